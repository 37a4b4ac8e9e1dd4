"Runs and their records, repeatability, comparison, the confusion matrix."
import statistics
from functools import partial

import numpy as np
import pytest
from PIL import Image
import torch
import torch.nn.functional as F
from fastai.vision.all import (Callback, CrossEntropyLossFlat, Learner, L, OptimWrapper, Recorder, accuracy, error_rate, noop, set_seed, xresnet18,
    xresnet50)
from hypothesis import given, settings, strategies as st
from torch import nn

from imagenette_course import baseline
from imagenette_course.baseline import *
from imagenette_course.record import *
from imagenette_course.core import BadInput
from imagenette_course.dataset import get_dls
from imagenette_course.mixup import MixUp
from imagenette_course.smoothing import LabelSmoothingCrossEntropy
from imagenette_course.speed import cached_dls, fast_learner

class Pool(nn.Sequential):
    "A network of milliseconds: mean colour, and one linear layer."
    def __init__(self, n_out): super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, n_out))

@pytest.fixture(scope='module')
def dls(tiny): return get_dls(tiny, 8, 32, workers=0)

def test_recipe(sample, tmp_path, monkeypatch):
    assert baseline_recipe(sample) == dict(arch=xresnet18, size=64, bs=16, epochs=5, lr=3e-3)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert baseline_recipe(tmp_path) == dict(arch=xresnet18, size=64, bs=64, epochs=5, lr=3e-3)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for side in (160, 500): # the small copy is not enlarged; the full one is trained as in the book
        (tmp_path/'train/a').mkdir(parents=True, exist_ok=True)
        for i in range(3): Image.new('RGB', (side+i*40, side)).save(tmp_path/f'train/a/{i}.png')
        assert baseline_recipe(tmp_path) == dict(arch=xresnet50, size=min(224, side), bs=64, epochs=5, lr=3e-3)

def test_learner(dls):
    learn = get_learner(dls, partial(xresnet18, ndim=2))
    assert learn.model[-1].out_features == 10 and learn.seed == 42 and learn.arch == 'xresnet18'
    assert isinstance(learn.loss_func, CrossEntropyLossFlat) and learn.metrics[0].name == 'accuracy'

def test_learner_arguments(dls):
    loss, opt = nn.MultiMarginLoss(), object()
    learn = get_learner(dls, Pool, loss_func=loss, opt_func=opt)
    assert learn.loss_func is loss and learn.opt_func is opt
    with pytest.raises(ValueError, match='seed=-1'): get_learner(dls, Pool, seed=-1)

@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32-1))
def test_the_seed_decides_the_weights(dls, seed):
    weights = lambda s: nn.utils.parameters_to_vector(get_learner(dls, Pool, seed=s).model.parameters())
    assert torch.equal(weights(seed), weights(seed)) and not torch.equal(weights(seed), weights((seed+1) % 2**32))

def test_record(dls):
    run = fit(get_learner(dls, Pool, seed=3), 2, 1e-2, name='pool')
    assert [o['epoch'] for o in run.history] == [1, 2]
    assert set(run.history[0]) == {'epoch', 'train_loss', 'valid_loss', 'accuracy', 'seconds'}
    assert (run.name, run.epochs, run.lr, run.seed) == ('pool', 2, 1e-2, 3)
    assert 0 < run.history[0]['seconds'] < run.history[1]['seconds'] == run.seconds
    assert set(run.versions) == {'python', 'imagenette_course', 'fastai', 'torch', 'torchvision'}
    assert 'pool: accuracy' in repr(run) and fit(get_learner(dls, Pool), 1, 1e-2).name == 'Pool'

def test_record_against_an_independent_count(dls):
    learn = get_learner(dls, Pool)
    run = fit(learn, 1, 1e-2)
    with torch.no_grad(): logits,y = (torch.cat(o).as_subclass(torch.Tensor) for o in zip(*[(learn.model(x), y) for x,y in dls.valid]))
    assert run.accuracy == pytest.approx((logits.argmax(1) == y).float().mean().item(), abs=1e-6)
    assert run.history[-1]['valid_loss'] == pytest.approx(F.cross_entropy(logits, y).item(), abs=1e-5)
    cm = confusion(learn)
    ref = np.zeros((10, 10), int)
    for t,p in zip(y, logits.argmax(1)): ref[t,p] += 1
    assert (cm == ref).all()

def test_a_run_repeats_whatever_went_before(dls):
    def losses(seed):
        torch.rand(7); np.random.rand(3); list(dls.train) # other uses of the random generators and the loader
        return [o['train_loss'] for o in fit(get_learner(dls, Pool, seed=seed), 2, 1e-2).history]
    assert losses(1) == losses(1) != losses(2)

def test_a_learner_made_elsewhere_has_no_seed(dls):
    learn = Learner(dls, Pool(10), loss_func=CrossEntropyLossFlat(), metrics=get_learner(dls, Pool).metrics)
    assert fit(learn, 1, 1e-2).seed is None

def test_callbacks_of_a_run_end_with_it(dls):
    learn = get_learner(dls, Pool)
    before = [type(o) for o in learn.cbs]
    fit(learn, 1, 1e-2)
    assert sorted(map(str, before)) == sorted(str(type(o)) for o in learn.cbs)

def test_one_line_an_epoch(dls, capsys):
    fit(get_learner(dls, Pool), 2, 1e-2)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and out[0].startswith('epoch 1/2  train_loss ') and 'accuracy' in out[1]
    fit(get_learner(dls, Pool), 1, 1e-2, show=False)
    assert capsys.readouterr().out == ''

@pytest.mark.parametrize('args,words', [((0, 1e-3), 'epochs=0'), ((1, float('nan')), 'lr=nan'), ((1, 11.), 'lr=11.0')])
def test_fit_arguments(dls, args, words):
    with pytest.raises(BadInput, match=words): fit(get_learner(dls, Pool), *args)

def test_schedules(dls):
    learn = get_learner(dls, Pool)
    run = fit(learn, 1, 1e-2, schedule='constant')
    assert run.settings['schedule'] == 'constant' and set(learn.recorder.lrs) == {1e-2}
    with pytest.raises(BadInput, match="schedule='step': it must be 'cycle' or 'flat' or"): fit(learn, 1, 1e-2, schedule='step')

def test_a_step_reads_nothing_back(tiny, monkeypatch):
    "Ten steps and ten batches of validation read as often as two."
    reads = []
    for name in ('cpu', 'item', 'tolist', 'numpy', '__float__', '__bool__'):
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *args, _m=method, **kw: reads.append(_m) or _m(self, *args, **kw))
    opt = partial(OptimWrapper, opt=partial(torch.optim.SGD, foreach=False))
    def count(bs):
        learn = get_learner(get_dls(tiny, bs, 16, stats=None, workers=0), Pool, metrics=error_rate, opt_func=opt)
        learn.recorder.after_fit = noop # which reads all of them
        class Watch(Callback):
            order = Recorder.order
            def before_batch(self): reads.clear()
            def after_step(self): self.learn.n = len(reads)
            def after_batch(self): self.learn.n = len(reads)
        with no_output(learn): learn.fit(1, 1e-3, cbs=Watch())
        return learn.n, len(learn.recorder.losses)
    assert [count(bs) for bs in (4, 20)] == [(0, 10), (0, 2)]

def test_the_recorder_is_fastais(dls):
    "Same numbers to the last bit, and the plots still work."
    def trained(make):
        set_seed(7); learn = make(); dls.train.rng.seed(7)
        with no_output(learn): learn.fit_one_cycle(2, 1e-2)
        return learn
    theirs = trained(lambda: Learner(dls, Pool(10), loss_func=CrossEntropyLossFlat(), metrics=[accuracy, error_rate]))
    ours = trained(lambda: get_learner(dls, Pool, metrics=error_rate, seed=7))
    assert ours.recorder.losses == theirs.recorder.losses and ours.recorder.values == theirs.recorder.values and len(ours.recorder.losses) == 10
    assert isinstance(ours.recorder, Recorder) and ours.recorder.metric_names == theirs.recorder.metric_names
    ours.recorder.plot_loss(); baseline.plt.close('all')
    with ours.no_bar(): assert ours.lr_find(num_it=12).valley > 0
    baseline.plt.close('all')

@pytest.mark.gpu
def test_a_step_does_not_wait_for_the_gpu(tiny):
    class Watch(Callback):
        order = Recorder.order - 1
        def after_pred(self): torch.cuda.set_sync_debug_mode('error')
        def before_validate(self): torch.cuda.set_sync_debug_mode('default')
    class Done(Callback):
        order = Recorder.order + 1
        def after_batch(self): torch.cuda.set_sync_debug_mode('default')
    learn = get_learner(get_dls(tiny, 8, 32), Pool, metrics=error_rate)
    try:
        with no_output(learn): learn.fit(2, 1e-3, cbs=[Watch(), Done()])
    finally: torch.cuda.set_sync_debug_mode('default')
    learn.recorder.plot_loss(); baseline.plt.close('all')
    with no_output(learn): assert learn.lr_find(num_it=12).valley > 0

def made_up(name, acc, seconds=1.): return Run(name, 1, 1e-3, 0, 'none', history=[dict(epoch=1, train_loss=1., valid_loss=1., accuracy=acc, seconds=seconds)])

@settings(max_examples=50, deadline=None)
@given(accs=st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_compare_against_the_statistics_module(accs):
    row = compare([made_up('a', o, i) for i,o in enumerate(accs)]).loc['a']
    assert row['runs'] == len(accs)
    assert row['accuracy %'] == pytest.approx(100*statistics.mean(accs), abs=.051)
    assert row['std'] == pytest.approx(100*statistics.stdev(accs), abs=.051)
    assert row['lowest'] == pytest.approx(100*min(accs), abs=.051) and row['highest'] == pytest.approx(100*max(accs), abs=.051)

def test_compare_keeps_names_in_order():
    assert compare([made_up(o, .5) for o in 'bab']).index.tolist() == ['b', 'a']
    assert compare([made_up('a', .5)])['std'].isna().all() # one run has no spread

def test_compare_refuses():
    with pytest.raises(ValueError, match='nothing to compare'): compare([])
    with pytest.raises(ValueError, match="'a' has 0 of 1 epochs"): compare([Run('a', 1, 1e-3, 0, 'none')])
    for field,value in (('lr', 1e-2), ('device', 'other'), ('settings', dict(bs=2))):
        other = made_up('a', .5)
        setattr(other, field, value)
        with pytest.raises(ValueError, match=f"runs named 'a' differ in {field}"): compare([made_up('a', .5), other])
    other = made_up('a', .5)
    other.epochs, other.history = 2, other.history*2
    with pytest.raises(ValueError, match='differ in epochs'): compare([made_up('a', .5), other])

def test_settings_of_a_run(dls):
    class Nothing(Callback): pass
    s = fit(get_learner(dls, Pool), 1, 1e-2).settings
    assert s == dict(arch='Pool', loss='CrossEntropyLossFlat', opt='Adam', cbs=[], train=40, val=20, **dls.settings)
    assert fit(get_learner(dls, Pool), 1, 1e-2, cbs=Nothing()).settings['cbs'] == ['Nothing']
    assert fit(get_learner(dls, Pool, cbs=Nothing()), 1, 1e-2).settings['cbs'] == ['Nothing']

def test_settings_tell_strengths_apart(dls):
    "Runs that differ in alpha or eps alone must not be put together."
    new = lambda alpha, eps: fit(get_learner(dls, Pool, LabelSmoothingCrossEntropy(eps)), 1, 1e-2, name='a', cbs=MixUp(alpha), show=False)
    a,b,c = new(.2, .2), new(.3, .2), new(.2, .3)
    assert (a.settings['cbs'], a.settings['loss']) == (['MixUp(alpha=0.2)'], 'LabelSmoothingCrossEntropy(eps=0.2)')
    for other in (b, c):
        with pytest.raises(BadInput, match="runs named 'a' differ in settings"): compare([a, other])
    opt = partial(OptimWrapper, opt=torch.optim.AdamW)
    assert fit(get_learner(dls, Pool, opt_func=opt), 1, 1e-2, show=False).settings['opt'] == 'OptimWrapper(opt=AdamW)'

def test_a_second_fit_gets_other_batches_and_repeats(dls):
    def two():
        learn = get_learner(dls, Pool)
        seen = []
        class Watch(Callback):
            def before_batch(self): seen.append(self.x.sum().item()) if self.training else None
        for _ in range(2): fit(learn, 1, 1e-2, cbs=Watch())
        return seen
    a = two()
    assert a[:len(a)//2] != a[len(a)//2:] and a == two()

def test_further_metrics(dls):
    learn = get_learner(dls, Pool, metrics=error_rate)
    run = fit(learn, 1, 1e-2)
    assert run.history[0]['accuracy'] + run.history[0]['error_rate'] == pytest.approx(1)
    with pytest.raises(ValueError, match='needs the metric accuracy'): fit(Learner(dls, Pool(10), loss_func=CrossEntropyLossFlat()), 1, 1e-2)

def test_device_names():
    assert device_name('cpu').endswith('threads') and device_name(torch.device('mps')).endswith('mps')

@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 30))
def test_history_figure(n):
    run = made_up('a', .5)
    run.history = [dict(run.history[0], epoch=i+1, accuracy=i/n) for i in range(n)]
    fig = plot_history(run)
    assert len(fig.axes) == 2 and f'{(n-1)/n:.1%} after {n} epoch' + 's'*(n > 1) == fig.axes[1].get_title()
    assert fig.axes[1].lines[0].get_ydata().tolist() == pytest.approx([100*i/n for i in range(n)])
    baseline.plt.close(fig)

def test_confusion_figure():
    names = list('abc')
    assert plot_confusion(np.eye(3, dtype=int), names).axes[0].get_title() == 'No mistakes'
    cm = np.array([[5,0,0],[0,3,2],[1,0,4]])
    assert plot_confusion(cm, names).axes[0].get_title() == 'Most frequent mistake: 2 of 5, b taken for c'
    plot_confusion(np.zeros((3,3), int), names) # a class without images divides by nothing
    baseline.plt.close('all')

def test_a_network_without_n_out(dls):
    from torchvision.models import resnet18
    with pytest.raises(BadInput, match=r'resnet18 has no parameter n_out.*lambda n_out: resnet18\(num_classes=n_out\)'): get_learner(dls, resnet18)
    assert get_learner(dls, lambda n_out: resnet18(num_classes=n_out)).model.fc.out_features == 10

@pytest.mark.slow
def test_the_sample_teaches(sample):
    "Hard enough that a better method can win, easy enough to be learned in a minute."
    r = baseline_recipe(sample)
    run = fit(fast_learner(cached_dls(sample, r.bs, r.size), r.arch), r.epochs, r.lr)
    assert .75 <= run.accuracy <= .97
    assert run.history[0]['accuracy'] < run.accuracy

@pytest.mark.gpu
def test_training_on_the_gpu(sample):
    r = baseline_recipe(sample)
    learn = get_learner(get_dls(sample, r.bs, r.size), r.arch)
    run = fit(learn, r.epochs, r.lr)
    assert next(learn.model.parameters()).is_cuda and run.device == torch.cuda.get_device_name()
    assert .75 <= run.accuracy <= .97
    cm = confusion(learn)
    assert cm.trace()/cm.sum() == pytest.approx(run.accuracy, abs=.01)

def test_slips_of_beginners(dls):
    "A name in place of a function, a network that is made already, loaders in place of a learner, one run in place of a list."
    with pytest.raises(BadInput, match='arch is a str: it must be a function'): get_learner(dls, 'xresnet18')
    with pytest.raises(BadInput, match='arch is a Pool'): get_learner(dls, Pool(10))
    with pytest.raises(BadInput, match='learn is a DataLoaders'): fit(dls, 1, 1e-2)
    run = fit(get_learner(dls, Pool), 1, 1e-2, show=False)
    for runs in (run, [dls], 'run'):
        with pytest.raises(BadInput, match='runs must be a list of runs'): compare(runs)
