"Combining views, and test time augmentation of learners: fresh, saved, exported, interrupted, in mixed precision."
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from imagenette_course import tta as module
from imagenette_course.baseline import fit, get_learner
from imagenette_course.core import BadInput
from imagenette_course.files import image_files
from imagenette_course.dataset import get_dls
from imagenette_course.tta import combine_views, tta
from fastai.vision.all import (Callback, CancelFitException, CrossEntropyLossFlat, EarlyStoppingCallback, MixUp,
                               SaveModelCallback, TfmdDL, load_learner, set_seed, xresnet18)
from hypothesis import given, settings, strategies as st
from torch import nn

class Pool(nn.Sequential):
    "A network of milliseconds, with dropout and batch norm so that train and eval mode differ."
    def __init__(self, n_out): super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(.5), nn.Linear(12, n_out))

class SameViews(Callback):
    "Pass number k of each prediction draws the views of seed k."
    def before_fit(self): self.k = 0
    def before_validate(self): set_seed(self.k); self.k += 1

@pytest.fixture(scope='module')
def dls(tiny): return get_dls(tiny, 8, 32, workers=0)

@pytest.fixture(scope='module')
def trained(dls):
    learn = get_learner(dls, Pool)
    fit(learn, 2, 3e-2, show=False)
    return learn

@pytest.fixture
def learn(dls, trained):
    "A learner of its own for each test."
    res = get_learner(dls, Pool)
    res.model.load_state_dict(trained.model.state_dict())
    return res

def by_numpy(plain, views, beta, reduce):
    "Independent of torch, in float64, view by view."
    if not len(views): return plain
    if reduce == 'max': return np.maximum.reduce([plain, *views])
    total = np.zeros_like(plain)
    for o in views: total += o
    return beta*plain + (1-beta)*total/len(views)

# The function of tensors

@pytest.mark.smoke
@settings(deadline=None, max_examples=60)
@given(n=st.integers(0, 6), rows=st.integers(0, 5), cols=st.integers(1, 7), beta=st.floats(0, 1), reduce=st.sampled_from(['mean', 'max']),
       dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]), scale=st.sampled_from([1, 30]), seed=st.integers(0, 999))
def test_combine_against_numpy(n, rows, cols, beta, reduce, dtype, scale, seed):
    gen = torch.Generator().manual_seed(seed)
    plain, views = (torch.randn(*o, rows, cols, generator=gen, dtype=torch.float64).mul(scale).to(dtype) for o in ((), (n,)))
    before = plain.clone(), views.clone()
    res = combine_views(plain, views, beta, reduce)
    ref = by_numpy(plain.double().numpy(), views.double().numpy(), beta, reduce)
    assert res.dtype == dtype and res.shape == plain.shape
    np.testing.assert_allclose(res.double().numpy(), ref, rtol=2*torch.finfo(dtype).eps, atol=(2e-6 if dtype != torch.float64 else 1e-12)*scale)
    assert torch.equal(plain, before[0]) and torch.equal(views, before[1]) # nothing is changed in place

@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 6), beta=st.floats(0, 1), seed=st.integers(0, 999))
def test_a_mean_of_probabilities_is_one(n, beta, seed):
    gen = torch.Generator().manual_seed(seed)
    plain, views = (torch.randn(*o, generator=gen).mul(3).softmax(-1) for o in ((4, 5), (n, 4, 5)))
    res = combine_views(plain, views, beta)
    assert torch.allclose(res.sum(1), torch.ones(4)) and (res >= 0).all()
    order = torch.randperm(n, generator=gen)
    assert torch.allclose(res, combine_views(plain, views[order], beta), atol=1e-6) # views have no order
    y = torch.randint(5, (4,), generator=gen) # convexity: no worse than the mean loss of what is averaged
    nll = lambda p: -p[range(4), y].log()
    assert (nll(res) <= beta*nll(plain) + (1-beta)*torch.stack([nll(o) for o in views]).mean(0) + 1e-5).all()
    assert (combine_views(plain, views, beta, 'max') >= torch.maximum(plain, views[0])).all()

def test_bfloat16_sums_keep_small_terms():
    views = torch.full((1000, 1, 2), 1/3, dtype=torch.bfloat16)
    res = combine_views(views[0], views)
    assert torch.equal(res, views[0]) # a sum in bfloat16 would stop growing
    slow = torch.zeros(1, 2, dtype=torch.bfloat16)
    for o in views: slow += o
    assert ((slow/1000 - views[0]).abs() > .1).all()

def test_ends_of_beta():
    plain, views = torch.rand(3, 4), torch.rand(2, 3, 4)
    assert torch.allclose(combine_views(plain, views, 1), plain) and torch.allclose(combine_views(plain, views, 0), views.mean(0))
    assert combine_views(plain, views[:0], 0) is plain

def test_combine_compiles():
    torch.compiler.reset()
    fast = torch.compile(combine_views, fullgraph=True, backend='aot_eager')
    for reduce,dtype in (('mean', torch.float32), ('mean', torch.bfloat16), ('max', torch.float32)):
        plain, views = torch.rand(6, 5).to(dtype), torch.rand(3, 6, 5).to(dtype)
        assert torch.allclose(fast(plain, views, .3, reduce).float(), combine_views(plain, views, .3, reduce).float(), atol=1e-6)
    with pytest.raises(Exception, match='beta=2'): fast(plain, views, 2.)

def test_gradients_go_through():
    plain, views = torch.rand(2, 3, requires_grad=True), torch.rand(4, 2, 3, requires_grad=True)
    combine_views(plain, views).sum().backward()
    assert torch.allclose(plain.grad, torch.tensor(.25)) and torch.allclose(views.grad, torch.tensor(.75/4))

def test_combine_refuses():
    P, V = torch.rand(2, 3), torch.rand(4, 2, 3)
    for args,words in (((P, V, -.1), 'beta=-0.1: it must be a number between 0 and 1'), ((P, V, '0.5'), "beta='0.5'"),
                       ((P, V, .5, 'sum'), "reduce='sum': it must be 'mean' or 'max'"), ((P, V, .5, ['mean']), 'reduce='),
                       ((P[0], V), 'plain is a .* it must be a float tensor with 2 dimensions'), ((P.long(), V), 'plain'),
                       ((P, [P, P]), 'views is a list'), ((P, V.int()), 'views is a torch.int32'),
                       ((P, torch.rand(4, 3, 3)), r'views is a .* of shape \(4, 3, 3\).* of shape \(n_views, 2, 3\)')):
        with pytest.raises(BadInput, match=words): combine_views(*args)

# Learners

@pytest.mark.smoke
def test_against_fastai(learn):
    for n,beta,reduce in ((1, .25, 'mean'), (3, .25, 'mean'), (2, 0, 'mean'), (3, .25, 'max')):
        with learn.no_bar(), learn.added_cbs(SameViews()):
            (ours, y), (ref, y_ref) = tta(learn, None, n, beta, reduce), learn.tta(n=n, beta=beta, use_max=reduce == 'max')
        assert torch.allclose(ours, ref, atol=1e-6) and torch.equal(y, y_ref)
        assert type(ours) is type(y) is torch.Tensor and ours.shape == (20, 10) and not ours.requires_grad

def test_against_views_taken_one_by_one(learn):
    "With nothing of fastai's prediction but its loader: the model is called here."
    dl = learn.dls.valid
    def one(seed, split_idx):
        own = dl.new() # draws a number
        set_seed(seed)
        with dl.dataset.set_split_idx(split_idx), torch.no_grad(): return torch.cat([learn.model.eval()(x).softmax(1) for x,_ in own])
    views = torch.stack([one(0, 0), one(1, 0)])
    assert (views[0] - views[1]).abs().max() > 1e-3 # they are different views
    ref = combine_views(one(2, 1).as_subclass(torch.Tensor), views.as_subclass(torch.Tensor), .4)
    learn.add_cb(SameViews())
    assert torch.allclose(tta(learn, n=2, beta=.4)[0], ref, atol=1e-6)

def test_no_views_are_the_plain_prediction(learn):
    with learn.no_bar(): ref, y_ref = learn.get_preds()
    ours, y = tta(learn, n=0)
    assert torch.allclose(ours, ref, atol=1e-6) and torch.equal(y, y_ref)
    assert torch.allclose(tta(learn, n=0, beta=0, reduce='max')[0], ref, atol=1e-6)
    assert torch.allclose(tta(learn, n=2, beta=1)[0], ref, atol=1e-6)

def test_all_images_in_order(learn):
    "20 images in batches of 8; a loader that shuffles and drops the last batch gives the same."
    ref, y = tta(learn, n=0)
    assert y.tolist() == [i for i in range(10) for _ in range(2)]
    for dl in (learn.dls.valid.new(shuffle=True, drop_last=True), learn.dls.valid.new(bs=7), learn.dls.valid.new(bs=1)):
        other, y2 = tta(learn, dl, n=0)
        assert torch.allclose(other, ref, atol=1e-5) and torch.equal(y, y2)
    x, y = tta(learn, learn.dls.train, n=1)
    assert len(x) == 40 and y.tolist() == [learn.dls.train_ds.vocab.o2i[learn.dls.train_ds.vocab[o[1]]] for o in learn.dls.train_ds]

def test_loader_without_labels(learn, tiny):
    files = image_files(tiny).filter(lambda o: o.parts[-3] == 'val')
    learn.add_cb(SameViews())
    ref, y = tta(learn, n=2)
    preds, none = tta(learn, learn.dls.test_dl(files), n=2)
    assert none is None and torch.allclose(preds, ref, atol=1e-6)
    preds, y2 = tta(learn, learn.dls.test_dl(files, with_labels=True), n=2)
    assert torch.equal(y, y2) and torch.allclose(preds, ref, atol=1e-6)

def test_logits_when_the_loss_has_no_activation(learn):
    learn.add_cb(SameViews())
    probs = tta(learn, n=0)[0]
    learn.loss_func = nn.CrossEntropyLoss()
    logits = tta(learn, n=0)[0]
    assert torch.allclose(logits.softmax(1), probs, atol=1e-6) and not torch.allclose(logits.sum(1), torch.ones(20))
    with learn.no_bar(): ref = learn.tta(n=2)[0]
    assert torch.allclose(tta(learn, n=2)[0], ref, atol=1e-5) # the running sum did not write into the outputs

# Saved, loaded, exported

def test_export_and_load(learn, tiny, tmp_path):
    learn.export(tmp_path/'learner.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loaded = load_learner(tmp_path/'learner.pkl')
    for o in (learn, loaded): o.add_cb(SameViews())
    ref, y = tta(learn, n=2)
    with pytest.raises(BadInput, match=r'dl has 0 images: it must have 1 or more; after load_learner, give dl=learn.dls.test_dl\(files\)'): tta(loaded)
    files = image_files(tiny).filter(lambda o: o.parts[-3] == 'val')
    preds, none = tta(loaded, loaded.dls.test_dl(files), n=2)
    assert none is None and torch.allclose(preds, ref, atol=1e-5)
    assert torch.equal(tta(loaded, loaded.dls.test_dl(files, with_labels=True), n=0)[1], y)

# Left as found

def state(learn):
    "Everything of a learner that a prediction could change; identity of lists and callbacks, and their contents."
    attributes = {k: (id(v), list(v) if isinstance(v, list) else str(v)) for k,v in vars(learn).items() if k not in ('model', 'dls', 'opt')}
    cbs = [(id(o), {k: (id(v), str(v)) for k,v in vars(o).items()}) for o in learn.cbs]
    modes = [m.training for m in learn.model.modules()]
    weights = [o.clone() for o in learn.model.state_dict().values()]
    loaders = [(o.shuffle, o.drop_last, o.bs, o.rng.getstate(), o.dataset.split_idx, [t.tfms.split_idx for t in o.dataset.tls],
                *(getattr(o, k).split_idx for k in ('after_item', 'before_batch', 'after_batch'))) for o in learn.dls]
    return attributes, cbs, modes, loaders, id(learn.dls), weights

def same(a, b): return a[:-1] == b[:-1] and all(torch.equal(x, y) for x,y in zip(a[-1], b[-1]))

@pytest.mark.parametrize('mode', ['train', 'mixed'])
def test_the_learner_stays_as_it_was(dls, mode):
    trained = get_learner(dls, Pool)
    fit(trained, 2, 1e-2, show=False)
    trained.model.train()
    if mode == 'mixed': trained.model[2].eval() # a frozen layer in a network in training mode
    before = state(trained)
    assert len(trained.recorder.losses) == 10 and len(trained.recorder.values) == 2
    tta(trained, n=1)
    assert same(state(trained), before)
    with trained.no_bar(): trained.get_preds()
    assert not same(state(trained), before) # what is compared does notice a prediction of fastai's

class Stop(Callback):
    "Raises in the middle of an augmented pass."
    def __init__(self, kind): self.kind = kind
    def after_pred(self):
        if self.dl.dataset.split_idx == 0 and self.iter == 1: raise self.kind('stopped')

@pytest.mark.parametrize('error', [KeyboardInterrupt, CancelFitException])
def test_after_an_error(learn, error):
    learn.add_cb(Stop(error))
    learn.model.train()
    before = state(learn)
    with pytest.raises(error): tta(learn, n=2)
    assert same(state(learn), before)
    assert learn.dls.valid_ds.split_idx == 1 and not learn.lock.locked() and torch.is_grad_enabled()
    learn.remove_cb(Stop)
    assert len(tta(learn, n=1)[0]) == 20

def test_an_error_in_the_loader(learn):
    dl = learn.dls.valid.new()
    def broken(b): raise OSError('no such file')
    dl.create_batch = broken
    before = state(learn)
    with pytest.raises(OSError, match='no such file'): tta(learn, dl)
    assert same(state(learn), before) and dl.dataset.split_idx == 1

def test_training_goes_on_afterwards(dls):
    "The same batches and losses as without it, but for the augmentation that it drew."
    losses = []
    for use in (False, True):
        learn = get_learner(dls, Pool)
        fit(learn, 1, 1e-2, show=False)
        if use: tta(learn, n=1)
        losses.append([o['train_loss'] for o in fit(learn, 1, 1e-2, show=False).history])
    assert losses[0] == losses[1]

def test_callbacks_that_watch_the_training_sleep(learn, tmp_path):
    "fastai's own tta makes SaveModelCallback look for the best weights of a training that never was."
    learn.path = tmp_path
    learn.add_cbs([SaveModelCallback(), EarlyStoppingCallback()])
    assert len(tta(learn, n=1)[0]) == 20
    assert not list(tmp_path.rglob('*.pth'))

def test_other_callbacks_take_part(learn):
    "As with get_preds: a callback may change the input."
    class Dark(Callback):
        def before_batch(self): self.learn.xb = (self.x*0,)
    learn.add_cb(Dark())
    preds = tta(learn, n=2)[0]
    assert torch.allclose(preds, preds[:1].expand_as(preds), atol=1e-6)

def test_after_training_with_mixup(dls):
    learn = get_learner(dls, Pool, cbs=MixUp())
    fit(learn, 1, 1e-2, show=False)
    with learn.no_bar(), learn.added_cbs(SameViews()): ours, ref, plain = tta(learn, n=2), learn.tta(n=2), learn.get_preds()
    assert torch.allclose(ours[0], ref[0], atol=1e-6) and torch.equal(ours[1], ref[1]) and ours[1].dtype == torch.int64
    assert torch.allclose(tta(learn, n=0)[0], plain[0], atol=1e-6) and learn.loss_func.__class__ is CrossEntropyLossFlat

def test_a_network_in_bfloat16(learn):
    class Lower(Callback):
        def before_batch(self): self.learn.xb = (self.x.bfloat16(),)
    learn.add_cb(SameViews())
    ref = tta(learn, n=2)[0]
    learn.model.bfloat16()
    learn.add_cb(Lower())
    preds = tta(learn, n=2)[0]
    assert preds.dtype == torch.float32 and torch.allclose(preds, ref, atol=.03) and not torch.equal(preds, ref)
    assert torch.allclose(preds.sum(1), torch.ones(20), atol=1e-5) # the softmax is taken in float32

def test_memory_does_not_grow_with_n(learn):
    kept = []
    class Count(Callback):
        def after_validate(self): kept.append(sum(o.numel() for o in [*self.learn.gather_preds.views, *self.learn.gather_preds.plain]))
    learn.add_cb(Count())
    tta(learn, n=5)
    assert kept == [200]*5 + [400]

# The bar

def test_bar(learn, monkeypatch, capsys):
    "One step a pass, where it can be seen."
    class Bar(list):
        def __init__(self, gen, leave): super().__init__(gen); bars.append(self)
    bars = []
    monkeypatch.setattr(module, 'progress_bar', Bar)
    tta(learn, n=1)
    assert not bars and capsys.readouterr() == ('', '') # neither a notebook nor a terminal
    monkeypatch.setattr(module, 'show_bar', lambda: True)
    tta(learn, n=3)
    with learn.no_bar(): tta(learn, n=1)
    assert bars == [[0, 1, 2, 3]]

def test_refuses(learn):
    before, none = state(learn), learn.dls.valid.new(learn.dls.valid_ds.new_empty())
    for kwargs,words in ((dict(n=-1), 'n=-1: it must be a whole number of 0 or more'), (dict(n=1.5), 'n=1.5'),
                         (dict(beta=2), 'beta=2: it must be a number between 0 and 1'), (dict(beta=None), 'beta=None'),
                         (dict(reduce='median'), "reduce='median': it must be 'mean' or 'max'"),
                         (dict(dl=[1, 2]), r'dl is a list: .* over Datasets, as from learn.dls.test_dl\(files\)'),
                         (dict(dl=TfmdDL([1, 2])), 'dl is a TfmdDL'), (dict(dl=none), 'dl has 0 images: it must have 1')):
        with pytest.raises(BadInput, match=words): tta(learn, **kwargs)
        assert same(state(learn), before)
    with pytest.raises(BadInput, match='learn is a Pool: it must be a Learner'): tta(learn.model)

# On a GPU

@pytest.mark.gpu
def test_combine_on_the_gpu():
    plain, views = torch.rand(50, 10), torch.rand(4, 50, 10)
    on_gpu = plain.cuda(), views.cuda()
    torch.cuda.set_sync_debug_mode('error')
    try: res = [combine_views(*on_gpu, reduce=o) for o in ('mean', 'max')]
    finally: torch.cuda.set_sync_debug_mode('default')
    for o,reduce in zip(res, ('mean', 'max')):
        assert torch.allclose(o.cpu(), combine_views(plain, views, reduce=reduce), atol=1e-6)

@pytest.mark.gpu
def test_a_learner_on_the_gpu(tiny):
    dls = get_dls(tiny, 8, 32, workers=0)
    learn = get_learner(dls, xresnet18)
    fit(learn, 1, 1e-3, show=False)
    learn.to_bf16()
    with learn.no_bar(), learn.added_cbs(SameViews()): (ours, y), (ref, y2) = tta(learn, n=2), learn.tta(n=2)
    assert ours.device.type == y.device.type == 'cpu' and torch.equal(y, y2)
    assert torch.allclose(ours, ref, atol=2e-2)
