"The sprint: whitening, orthogonal steps, the network, growing images, the recipe, and everything else that works with them."
import json, math, os, subprocess, sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.vision.all import Callback, L, OptimWrapper, Normalize, imagenet_stats, load_learner, set_seed, xresnet18
from hypothesis import example, given, settings, strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from conftest import command
from imagenette_course.record import no_output
from imagenette_course.baseline import baseline_recipe, fit, get_learner
from imagenette_course.checkpoint import Checkpoint
from imagenette_course.core import BadInput
from imagenette_course.files import image_files
from imagenette_course.dataset import get_dls, held_out, make_sample
from imagenette_course.mixing import CutMix
from imagenette_course.mixup import MixUp
from imagenette_course.models import load_model, save_model
from imagenette_course.predict import predict_files
from imagenette_course.resize import ProgressiveResize, progressive_fit, smallest_size
from imagenette_course.smoothing import LabelSmoothingCrossEntropy
from imagenette_course.speed import cached_dls
from imagenette_course.sprint import *
from imagenette_course.techniques import EMA
from imagenette_course.options import Options, resolve
from imagenette_course.train import train
from imagenette_course.tta import tta

quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)

def randn(*shape, seed=0, dtype=torch.float32): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
def small(n_out=10): return SprintNet(n_out, widths=(8, 12, 16))
def patches(x, side): return F.unfold(x.double(), side, stride=2).transpose(1, 2).flatten(0, 1)

@pytest.fixture(scope='module')
def dls(tiny): return cached_dls(tiny, 8, 32)

# whitening

@pytest.mark.smoke
@quick
@given(seed=seeds, side=st.integers(1, 4), c=st.integers(1, 4))
def test_whitened_patches_have_unit_covariance(seed, side, c):
    "With as many filters as directions and no eps, by an eigen-decomposition in float64."
    k = c*side**2
    x = (randn(60, 3*c, 9, 9, seed=seed)).view(60, c, 3, 9, 9).mean(2) + randn(60, 1, 1, 1, seed=seed+1) # correlated
    w = whitening_filters(x, k, side, eps=0)
    assert w.shape == (2*k, c, side, side) and w.dtype == torch.float32 and torch.equal(w[:k], -w[k:])
    cov = (patches(x, side) @ w[:k].flatten(1).double().T).T.cov(correction=0)
    assert torch.allclose(cov.reshape(k, k), torch.eye(k, dtype=torch.float64), atol=1e-3)

@quick
@given(seed=seeds, n=st.integers(1, 12), eps=st.floats(1e-3, 1))
def test_filters_against_numpy(seed, n, eps):
    "The leading directions, each scaled by its variance; a direction has no sign."
    x = randn(8, 3, 12, 12, seed=seed).cumsum(-1)
    w = whitening_filters(x, n, 2, eps)[:n].flatten(1).double().numpy()
    value,vector = np.linalg.eigh(np.cov(patches(x, 2).numpy().T, bias=True))
    for got,v,d in zip(w, value[::-1], vector.T[::-1]):
        want = d/math.sqrt(v + eps)
        assert min(np.abs(got - want).max(), np.abs(got + want).max()) < 1e-4*np.abs(want).max() + 1e-5

def test_constant_images_give_finite_filters():
    for x in (torch.zeros(4, 3, 8, 8), torch.ones(1, 3, 4, 4)):
        for eps in (0, .01): assert whitening_filters(x, eps=eps).isfinite().all()

def test_bad_patches():
    for args,words in (((torch.zeros(2, 3, 8, 8).long(), 4), 'x is a'), ((torch.zeros(2, 3, 8, 8), 49), 'n_filters=49'), ((torch.zeros(2, 3, 8, 8), 4, 9), 'side=9')):
        with pytest.raises(BadInput, match=words): whitening_filters(*args)

# orthogonal steps

@pytest.mark.smoke
@quick
@given(seed=seeds, rows=st.integers(1, 24), cols=st.integers(1, 40), scale=st.sampled_from([1e-12, 1., 1e4]))
def test_against_the_svd(seed, rows, cols, scale):
    "Same singular vectors; the singular values are those that the polynomial makes, near 1 unless they were tiny."
    m = randn(rows, cols, seed=seed, dtype=torch.float64)*scale
    u,s,vh = torch.linalg.svd(m, full_matrices=False)
    want = s/s.norm()
    for _ in range(4): want = 3.4445*want - 4.7750*want**3 + 2.0315*want**5
    got = orthogonalize(m, dtype=torch.float64)
    assert torch.allclose(u.T @ got @ vh.T, torch.diag(want), atol=1e-4)
    assert want.max() < 1.25 and (want[s/s.norm() > .1] > .65).all()

@quick
@given(seed=seeds, rows=st.integers(2, 48), cols=st.integers(2, 64))
@example(seed=1, rows=42, cols=44)
def test_half_precision_keeps_the_promise(seed, rows, cols):
    "Even where singular values fall off as 1/k, which is the hard case."
    u,_,vh = torch.linalg.svd(randn(rows, cols, seed=seed), full_matrices=False)
    for m in (randn(rows, cols, seed=seed), u @ torch.diag(1/torch.arange(1, u.shape[1]+1)) @ vh):
        got = orthogonalize(m)
        assert got.dtype == torch.bfloat16 and torch.linalg.svdvals(got.float()).max() < 1.5

def test_no_gradient_no_step(): assert (orthogonalize(torch.zeros(3, 5)) == 0).all()

def test_orthogonalize_against_jordans_form():
    "The iteration as it is published, on the long side."
    m = randn(16, 144)
    x = m/m.norm()
    for _ in range(4):
        s = x @ x.T
        x = 3.4445*x + (-4.7750*s + 2.0315*s @ s) @ x
    assert torch.allclose(orthogonalize(m, dtype=torch.float32), x, atol=1e-4)

def net_and_batch(fmt):
    set_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(96, 5)).to(memory_format=fmt)
    return net, randn(8, 3, 8, 8).to(memory_format=fmt), torch.arange(8)%5

@pytest.mark.smoke
def test_an_optimizer_step_against_torch(monkeypatch):
    "Muon by its formula, everything else by `torch.optim.AdamW`, over three steps, in both orders of memory."
    for fmt in (torch.contiguous_format, torch.channels_last):
        monkeypatch.setattr('imagenette_course.sprint.fast_settings', lambda _: type('', (), dict(bf16=False)))
        (ours,x,y),(ref,*_) = net_and_batch(fmt), net_and_batch(fmt)
        opt = SprintMuon(ours.parameters(), lr=.1, momentum=.6, adam_ratio=.05)
        kernels = [p for p in ref.parameters() if p.ndim == 4]
        adam = torch.optim.AdamW([p for p in ref.parameters() if p.ndim != 4], lr=.005, weight_decay=.01)
        buffers = [torch.zeros_like(w) for w in kernels]
        for _ in range(3):
            for net in (ours, ref): net.zero_grad(); F.cross_entropy(net(x), y).backward()
            opt.step(); adam.step()
            for w,b in zip(kernels, buffers):
                b.copy_(.6*b + w.grad)
                u = orthogonalize((w.grad + .6*b).flatten(1), dtype=torch.float32).view(w.shape)
                w.data = len(w)**.5*w.data/w.data.norm() - .1*u
        for a,b in zip(ours.parameters(), ref.parameters()): assert torch.allclose(a, b, atol=2e-5), (a - b).abs().max()

def test_the_size_of_a_kernel_makes_no_difference():
    "To a step, either: it is scaled first; and a kernel of zeros stays finite."
    (a,x,y),(b,*_) = net_and_batch(torch.contiguous_format), net_and_batch(torch.contiguous_format)
    with torch.no_grad(): b[0].weight.mul_(7)
    for net in (a, b): F.cross_entropy(net(x), y).backward()
    b[0].weight.grad.copy_(a[0].weight.grad) # the gradient alone would be a seventh
    for net in (a, b): SprintMuon(net.parameters()).step()
    assert torch.allclose(a[0].weight, b[0].weight, atol=1e-5)
    c = nn.Conv2d(3, 4, 3); nn.init.zeros_(c.weight); c(x).sum().backward(); SprintMuon(c.parameters()).step()
    assert c.weight.isfinite().all()

def test_a_loaded_state_is_where_the_weights_are():
    "A checkpoint is read to the CPU; steps, means and momentum go to the device of the weights."
    net,x,y = net_and_batch(torch.contiguous_format)
    opt = SprintMuon(net.parameters())
    F.cross_entropy(net(x), y).backward(); opt.step()
    other = SprintMuon([nn.Parameter(torch.empty_like(p, device='meta')) for p in net.parameters()])
    other.load_state_dict(opt.state_dict())
    assert {v.device.type for s in other.state.values() for v in s.values()} == {'meta'}

def test_momentum_is_put_back(dls):
    "fastai's one cycle moves it; the linear schedule trains with the optimizer's own."
    learn = get_learner(dls, small, opt_func=sprint_opt)
    fit(learn, 1, .1, show=False)
    assert learn.opt.hypers[0]['mom'] > .8
    fit(learn, 1, .1, show=False, schedule='linear')
    assert learn.opt.hypers[0]['mom'] == .6

def test_through_fastai():
    "Rate and momentum reach the optimizer, and its state comes back."
    net,x,y = net_and_batch(torch.contiguous_format)
    opt = sprint_opt(L(net.parameters()), lr=.1)
    F.cross_entropy(net(x), y).backward(); opt.step()
    opt.set_hypers(lr=.3, mom=.5)
    assert opt.hypers[0]['lr'] == .3 and opt.opt.param_groups[0]['momentum'] == .5
    state = opt.state_dict()
    other = sprint_opt(L(net.parameters()), lr=.1)
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for p in net.parameters() for a,b in zip(opt.opt.state[p].values(), other.opt.state[p].values()))

def test_bad_numbers():
    for o in (dict(lr='x'), dict(momentum=2.), dict(adam_ratio=-1.)):
        with pytest.raises(BadInput, match=[*o][0]): SprintMuon(nn.Linear(2, 2).parameters(), **o)

# the network

@pytest.mark.smoke
@quick
@given(h=st.integers(18, 256), w=st.integers(18, 70), n_out=st.integers(1, 12))
def test_output_shape(h, w, n_out):
    with torch.no_grad(): assert small(n_out).eval()(torch.zeros(2, 3, h, w)).shape == (2, n_out)

def test_smallest_size(dls):
    assert smallest_size(sprintnet()) == 18
    with pytest.raises(BadInput, match='size=16'), no_output(l := get_learner(dls, small)): fit(l, 1, .1, cbs=GrowImages(16), show=False)

def test_outputs_do_not_depend_on_the_batch():
    net,x = small().eval(), randn(6, 3, 32, 32)
    with torch.no_grad(): assert torch.allclose(net(x)[:2], net(x[:2]), atol=1e-5)

def test_gradients_reach_all_but_the_first_layer():
    for size in (32, 45):
        net = small().whiten(randn(16, 3, size, size))
        net(randn(4, 3, size, size)).sum().backward()
        assert [k for k,p in net.named_parameters() if p.grad is None or not p.requires_grad] == ['first.0.weight']

def test_a_loss_of_constant_images_is_finite():
    x = torch.zeros(4, 3, 32, 32)
    loss = F.cross_entropy(small().whiten(x)(x), torch.zeros(4, dtype=torch.int64))
    loss.backward()
    assert loss.isfinite()

# growing images

@quick
@given(epochs=st.integers(1, 100), first=st.integers(8, 200), more=st.integers(0, 200))
def test_sizes_grow_evenly(epochs, first, more):
    sizes = epoch_sizes(epochs, first, first+more)
    assert len(sizes) == epochs and sizes[-1] == first+more and sizes == sorted(sizes) and all((o-first)%16 == 0 for o in sizes[:-1])
    for i,o in enumerate(sizes[:-1]): assert 0 <= first + i*more/(epochs-1) - o < 16 + 1e-6
    assert epoch_sizes(5, 48, 112) == [48, 64, 80, 96, 112]

class Sizes(Callback):
    order = Checkpoint.order
    def __init__(self): self.seen = []
    def before_train(self): pass
    def after_epoch(self): pass
    def before_batch(self): self.seen.append((self.training, self.x.shape[-1]))

def test_images_grow_and_validation_with_them(tiny):
    dls, sizes = cached_dls(tiny, 20, 64), Sizes()
    learn = get_learner(dls, small)
    fit(learn, 3, .1, cbs=[GrowImages(32), sizes], show=False, schedule='linear')
    assert list(dict.fromkeys(sizes.seen)) == [(True, 32), (False, 32), (True, 48), (False, 48), (True, 64), (False, 64)]
    assert dls.train.one_batch()[0].shape[-1] == dls.valid.one_batch()[0].shape[-1] == 64

def test_predictions_after_a_stop_are_of_full_size(tiny, tmp_path):
    "With the callback in the learner: after Ctrl-C, and after export and loading."
    class Stop(Sizes):
        def after_epoch(self): raise KeyboardInterrupt
    dls, sizes = cached_dls(tiny, 20, 64), Sizes()
    learn = sprint_learner(dls, arch=sprintnet_small, cbs=GrowImages(32))
    with pytest.raises(KeyboardInterrupt): learn.fit_linear(3, .1, cbs=Stop())
    with no_output(learn): learn.validate(cbs=sizes)
    assert {o for _,o in sizes.seen} == {64}
    learn.path = tmp_path
    learn.export('l.pkl')
    loaded = load_learner(tmp_path/'l.pkl')
    with no_output(loaded): assert len(loaded.predict(dls.valid.items[0])[2]) == 10

def test_one_step_is_a_step(tiny):
    learn = sprint_learner(cached_dls(tiny, 40, 32), arch=sprintnet_small)
    before = learn.model.head.weight.clone()
    fit(learn, 1, .1, show=False, schedule='linear')
    assert not torch.equal(before, learn.model.head.weight.cpu())

def test_a_stopped_fit_leaves_full_images(tiny):
    class Stop(Sizes):
        def after_epoch(self): raise KeyboardInterrupt
    dls = cached_dls(tiny, 20, 64)
    with pytest.raises(KeyboardInterrupt): fit(get_learner(dls, small), 3, .1, cbs=[GrowImages(32), Stop()], show=False, schedule='linear')
    assert dls.train.one_batch()[0].shape[-1] == 64

def test_images_that_can_not_grow(tiny):
    dls = cached_dls(tiny, 20, 64)
    for first,words in ((96, 'last=64'), (4, 'first=4')):
        with pytest.raises(BadInput, match=words): fit(get_learner(dls, small), 2, .1, cbs=GrowImages(first), show=False)
    with pytest.raises(BadInput, match='cached_dls'): fit(get_learner(get_dls(tiny, 20, 64, workers=0), small), 2, .1, cbs=GrowImages(32), show=False)

def test_the_rate_rises_and_falls(dls):
    learn = get_learner(dls, small, opt_func=sprint_opt)
    run = fit(learn, 10, .2, show=False, schedule='linear')
    lr = np.array(learn.recorder.hps['lr'])
    want = np.interp(np.arange(50)/50, [0, .2, 1], [0, .2, 0])
    assert np.allclose(lr, want, atol=1e-6) and run.settings['schedule'] == 'linear'

# the learner and the recipe

def test_same_seed_same_weights(dls):
    a,b,c = (sprint_learner(dls, seed=s).model.state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a) and not torch.equal(a['head.weight'], c['head.weight'])
    assert torch.equal(a['first.0.weight'], c['first.0.weight']) # the data's, not the seed's

def test_filters_are_of_training_images_as_the_network_sees_them(dls, tiny):
    learn = sprint_learner(dls)
    x = torch.cat([b[0] for b in dls.test_dl(list(dls.train.items))])
    assert torch.allclose(learn.model.first[0].weight, whitening_filters(x), atol=1e-6)
    assert isinstance(learn.loss_func, LabelSmoothingCrossEntropy) and learn.arch == 'sprintnet'

def test_recipe(sample, tmp_path):
    r = recipe(tmp_path)
    assert set(recipe(sample)) == set(r) and (r.arch, r.opt, r.schedule, r.epochs) == (sprintnet, 'sprint', 'linear', 5)
    assert {*baseline_recipe(sample)} < set(r)

def test_one_call(tiny):
    learn,run = sprint(tiny, epochs=2, size=48, seed=3)
    assert run.seed == 3 and len(run.history) == 2 and run.settings['size'] == 48 and learn.dls.c == 10
    assert run.accuracy == pytest.approx(learn.validate()[1], abs=1e-6)

@pytest.mark.slow
def test_the_sample_is_learned(sample): assert sprint(sample, epochs=6)[1].accuracy > .9

def test_one_or_two_classes_of_any_kind_of_image(tmp_path):
    "Two images of each, greyscale, with an alpha channel, of different shapes."
    for classes in (dict(b='RGBA'), dict(a='L', b='RGBA')):
        for part in ('train', 'val'):
            for c,mode in classes.items():
                (tmp_path/part/c).mkdir(parents=True, exist_ok=True)
                for i in range(2): Image.fromarray(np.random.RandomState(i).randint(0, 255, (40+9*i, 50, 4), dtype=np.uint8)).convert(mode).save(tmp_path/part/c/f'{i}.png')
        learn,run = sprint(tmp_path, epochs=1, size=32)
        assert learn.dls.c == len(classes) and math.isfinite(run.history[0]['valid_loss']) and (run.accuracy == 1 or len(classes) == 2)

# a citizen of the package

@pytest.mark.parametrize('cb', [lambda: [MixUp(.4), EMA(.9)], lambda: [CutMix(), ProgressiveResize(24, 32, step=8)]], ids=['mixup', 'cutmix'])
def test_techniques(dls, cb):
    learn = sprint_learner(dls, cbs=cb())
    run = fit(learn, 2, .1, show=False, schedule='linear')
    assert len(run.history) == 2 and all(math.isfinite(o['train_loss']) for o in run.history)
    preds,_ = tta(learn, n=2)
    assert preds.shape == (20, 10) and torch.allclose(preds.sum(1), torch.ones(20), atol=1e-3)

def test_stages(tiny):
    learn = sprint_learner(cached_dls(tiny, 8, 32))
    before = learn.model.first[0].weight.clone()
    run = progressive_fit(learn, [(1, 24, 8, .1), (1, 32, 8, .05)], show=False)
    assert len(run.history) == 3 and torch.equal(before, learn.model.first[0].weight)

def test_saved_and_asked(dls, tmp_path):
    "The file gives the network back; the command's function answers with it."
    learn = sprint_learner(dls, use=dict(bf16=False, channels_last=True, fused=True)) # float32, as the loaded one
    fit(learn, 1, .1, show=False, schedule='linear')
    save_model(learn, tmp_path/'m.safetensors')
    model = load_model(tmp_path/'m.safetensors')
    x = dls.valid.one_batch()[0].as_subclass(torch.Tensor)
    learn.model.eval()
    with torch.no_grad(): assert torch.allclose(model.model(x), learn.model(x), atol=1e-6)
    rows = predict_files(model, dls.valid.items[:3])
    assert all(sum(o['probabilities'].values()) == pytest.approx(1, abs=1e-4) for o in rows)

def test_compiled(dls):
    learn = sprint_learner(dls, use=dict(bf16=False, channels_last=True, fused=True))
    x = dls.valid.one_batch()[0].as_subclass(torch.Tensor)
    learn.model.eval()
    want = learn.model(x)
    for m in learn.model.children(): m.compile(backend='aot_eager')
    assert torch.allclose(learn.model(x), want, atol=1e-5)

def test_resumed_bit_for_bit(tiny, tmp_path):
    "Stopped after each epoch and gone on with: the same weights and history as a run that was left alone."
    options = dict(data=tiny, epochs=3, size=48, bs=20, grow=32, ema=.9, mixup=.4)
    train(**options, out=tmp_path/'whole', show=False)
    with pytest.raises(KeyboardInterrupt): train(**options, out=tmp_path/'parts', show=False, cbs=StopAt(0))
    with pytest.raises(KeyboardInterrupt): train(resume=tmp_path/'parts', show=False, cbs=StopAt(1))
    train(resume=tmp_path/'parts', show=False)
    a,b = (load_file(tmp_path/o/'model.safetensors') for o in ('whole', 'parts'))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    h = [pd.read_csv(tmp_path/o/'history.csv').drop(columns='seconds') for o in ('whole', 'parts')]
    assert h[0].equals(h[1])

class StopAt(Callback):
    "Ctrl-C after the epoch with this number."
    order = Checkpoint.order + 2
    def __init__(self, at): self.at = at
    def after_epoch(self):
        if self.epoch == self.at: raise KeyboardInterrupt

def test_the_command_trains_the_recipe(tiny, tmp_path):
    "No option but the data; for another network, and with --book, the recipe of chapter 01."
    s = {k: train(data=tiny, out=tmp_path/k, show=False, **o)['plan'] for k,o in
         dict(sprint=dict(epochs=1), other=dict(arch='xresnet18', epochs=1, size=32), book=dict(book=True, epochs=1, size=32), plain=dict(epochs=1, size=32, smooth=0., grow=0, no_whiten=True)).items()}
    r = recipe(tiny)
    assert {k: s['sprint'][k] for k in ('arch', 'size', 'bs', 'lr', 'opt', 'schedule', 'smooth', 'crop', 'grow')} == {**{k: r[k] for k in r if k != 'epochs'}, 'arch': 'sprintnet'}
    for k in ('other', 'book'): assert (s[k]['arch'], s[k]['opt'], s[k]['schedule'], s[k]['smooth'], s[k]['crop'], s[k]['grow'], s[k]['lr']) == ('xresnet18', 'adamw', 'cycle', None, .75, None, 3e-3)
    assert s['plain']['smooth'] == 0 and s['plain']['grow'] == 0

@pytest.mark.slow
def test_two_processes(tiny, tmp_path):
    proc = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-port', '29631', '-m', 'imagenette_course.train', '--data', str(tiny),
        '--epochs', '2', '--size', '32', '--grow', '24', '--bs', '8', '--out', str(tmp_path/'two')], capture_output=True, text=True, timeout=600, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert proc.returncode == 0, proc.stderr[-2000:]
    assert len(pd.read_csv(tmp_path/'two/history.csv')) == 2

def options(tiny, **o): return resolve(Options(**o), tiny)

def test_the_rate_suits_the_optimizer(tiny):
    got = {(a, k): options(tiny, arch=a, opt=k).lr for a in (None, 'xresnet18') for k in (None, 'adamw', 'ranger', 'muon', 'sprint')}
    assert all(v == (.17 if k == 'sprint' or (k is None and a is None) else 3e-3) for (a,k),v in got.items()), got

def test_refused(tiny, tmp_path):
    for o,words in ((dict(crop=.4, book=True), '--crop and --book'), (dict(no_whiten=True, arch='xresnet18'), '--no_whiten'), (dict(grow=64, size=32), 'grow'), (dict(grow=16), '18 px or more'),
                    (dict(grow=32, progressive='1:32,1:48'), '--progressive'), (dict(blur=True), 'sprintnet')):
        with pytest.raises(BadInput) as e: train(data=tiny, out=tmp_path/'o', show=False, epochs=1, **o)
        assert words.lower() in str(e.value).lower(), e.value

# settings are chosen on held-out training images

def test_held_out(sample):
    files = image_files(sample)
    train_,valid = held_out(files)
    assert not set(train_) & set(valid) and {files[i].parts[-3] for i in train_+valid} == {'train'} and len(train_) == 9*len(valid) == 720
    other = list(reversed(files))
    assert {other[i] for i in held_out(other)[1]} == {files[i] for i in valid}

def test_val_is_not_looked_at(tmp_path):
    own = make_sample(tmp_path/'own', 10, 1, seed=2)
    dls = cached_dls(own, 10, 32, holdout=True)
    assert {o.parts[-3] for o in [*dls.train.items, *dls.valid.items]} == {'train'} and len(dls.valid_ds) == 10
    s = train(data=own, epochs=1, size=32, holdout=True, out=tmp_path/'o', show=False)
    assert (s['dataset']['train'], s['dataset']['val']) == (90, 10)

# cuda without a gpu

def backward(loss):
    "What `loss.backward()` does, node by node: PyTorch's own engine asks a real device for its streams."
    grads = {loss.grad_fn: {0: torch.ones_like(loss)}}
    while grads:
        node = max(grads, key=lambda o: o._sequence_nr() if type(o).__name__ != 'AccumulateGrad' else -1)
        got = grads.pop(node)
        if hasattr(node, 'variable'): node.variable.grad = got[0].sum_to_size(node.variable.shape); continue
        res = (node if callable(node) else node.apply)(*(got.get(i) for i in range(max(got)+1)))
        for (to,i),g in zip(node.next_functions, res if isinstance(res, tuple) else (res,)):
            if to is not None and g is not None: grads.setdefault(to, {})[i] = g + grads.get(to, {}).get(i, 0)

def test_backward_by_hand_is_backward():
    net,x,y = net_and_batch(torch.contiguous_format)
    F.cross_entropy(net(x), y).backward()
    want = [p.grad.clone() for p in net.parameters()]
    net.zero_grad(); backward(F.cross_entropy(net(x), y))
    assert all(torch.allclose(p.grad, w, atol=1e-6) for p,w in zip(net.parameters(), want))

@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_whole_step_on_cuda_by_fake_tensors(dtype, monkeypatch):
    """Loss, gradients and both optimizers, with `orthogonalize` in `dtype`: no mixed devices, and nothing is read back to
    the host."""
    monkeypatch.setattr('imagenette_course.sprint.fast_settings', lambda _: type('', (), dict(bf16=dtype == torch.bfloat16)))
    with FakeTensorMode(allow_non_fake_inputs=False), torch.device('cuda'):
        net,loss_func = sprintnet(), LabelSmoothingCrossEntropy()
        net.first[0].weight.requires_grad_(False)
        opt = SprintMuon([p for p in net.parameters() if p.requires_grad])
        x,y = torch.empty(8, 3, 64, 64).to(memory_format=torch.channels_last), torch.empty(8, dtype=torch.int64)
        for _ in range(2):
            loss = loss_func(net(x), y)
            backward(loss); opt.step(); opt.zero_grad()
        assert loss.device.type == 'cuda' and all(s.device.type == 'cuda' for o in opt.state.values() for s in o.values())

@pytest.mark.gpu
def test_on_the_gpu(sample):
    learn,run = sprint(sample, epochs=4)
    assert next(learn.model.parameters()).is_cuda and run.accuracy > .8
