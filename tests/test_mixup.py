"Blends, shares, the loss of a blend, the callback, and what has to work after and with it."
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from scipy import stats
from torch import nn

from imagenette_course.baseline import fit, get_learner, no_output
from imagenette_course.core import BadInput
from imagenette_course.dataset import get_dls
from imagenette_course.mixup import *
from imagenette_course.mixup import MixUp # fastai exports another class of this name
from fastai.callback.mixup import CutMix as FastaiCutMix, MixUp as FastaiMixUp
from fastai.vision.models.xresnet import xresnet18
from fastai.vision.all import (Callback, CancelFitException, ClassificationInterpretation, CrossEntropyLossFlat, BCEWithLogitsLossFlat,
    DataLoader, DataLoaders, GradientAccumulation, LabelSmoothingCrossEntropyFlat, Learner, MSELossFlat, TensorImage, accuracy, plt, set_seed)
from torchvision.transforms import v2

quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)

class Pool(nn.Sequential):
    "A network of milliseconds: mean colour, and one linear layer."
    def __init__(self, n_out): super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, n_out))

def case(seed, n=6, n_classes=10, per_image=True, dtype=torch.float32, shape=(3, 5, 4)):
    "A random batch: images, labels, shares, partners."
    g = torch.Generator().manual_seed(seed)
    x,y = torch.randn(n, *shape, generator=g).to(dtype), torch.randint(0, n_classes, (n,), generator=g)
    lam = torch.rand(n, generator=g) if per_image else torch.rand((), generator=g).item()
    return x, y, lam, torch.randperm(n, generator=g)

def one_by_one(x, lam, perm):
    "The definition, an image at a time, in double precision."
    lams = lam.double().tolist() if isinstance(lam, torch.Tensor) else [lam]*len(x)
    return torch.stack([l*a.double() + (1-l)*x[j].double() for a,l,j in zip(x, lams, perm.tolist())])

# two images

@quick
@given(seed=seeds, t=st.floats(0, 1))
def test_blend_of_two(seed, t):
    x,*_ = case(seed, 2)
    ref = t*x[0].numpy().astype(float) + (1-t)*x[1].numpy().astype(float)
    assert np.allclose(blend(x[0], x[1], t), ref, atol=1e-6)
    assert torch.equal(blend(x[0], x[1], 1), x[0]) and torch.equal(blend(x[0], x[1], 0), x[1])

@quick
@given(a=st.integers(0, 9), b=st.integers(0, 9), t=st.floats(0, 1))
def test_targets_of_two(a, b, t):
    ref = t*np.eye(10)[a] + (1-t)*np.eye(10)[b]
    assert np.allclose(blend_targets(a, b, t, 10), ref, atol=1e-6)

def test_the_church_and_the_gas_pump(): assert blend_targets(2, 7, .3, 10).tolist() == pytest.approx([0, 0, .3, 0, 0, 0, 0, .7, 0, 0])

@pytest.mark.parametrize('args,words', [
    ((torch.zeros(3, dtype=torch.uint8), torch.zeros(3), .5), 'a is a torch.uint8 of shape'),
    ((torch.zeros(3), [0., 0., 0.], .5), 'b is a list'), ((torch.zeros(3), torch.zeros(4), .5), r'b has shape \(4,\): it must be \(3,\)'),
    ((torch.zeros(3), torch.zeros(3), 1.1), 't=1.1: it must be a number between 0 and 1'), ((torch.zeros(3), torch.zeros(3), float('nan')), 't=nan')])
def test_blend_refuses(args, words):
    with pytest.raises(BadInput, match=words): blend(*args)

@pytest.mark.parametrize('args,words', [((10, 0, .5, 10), 'a=10.*between 0 and 9'), ((0, -1, .5, 10), 'b=-1'), ((0, 1, -.1, 10), 't=-0.1'),
                                        ((0, 1.5, .5, 10), 'b=1.5'), ((0, 0, .5, 0), 'n_classes=0')])
def test_blend_targets_refuses(args, words):
    with pytest.raises(BadInput, match=words): blend_targets(*args)

# a batch

@quick
@given(seed=seeds, n=st.integers(1, 9), n_classes=st.integers(1, 12), per_image=st.booleans(),
       dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]), shape=st.sampled_from([(), (4,), (1, 3, 2)]))
def test_mixup_against_the_definition(seed, n, n_classes, per_image, dtype, shape):
    x,y,lam,perm = case(seed, n, n_classes, per_image, dtype, shape)
    before = x.clone(), y.clone()
    mx,my = mixup(x, y, lam, perm, n_classes)
    tol = {torch.float64: 1e-6, torch.float32: 1e-5}.get(dtype, .05)
    assert mx.dtype == dtype and mx.shape == x.shape and my.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(mx.double(), one_by_one(x, lam, perm), atol=tol)
    assert torch.allclose(my.double(), one_by_one(F.one_hot(y, n_classes), lam, perm), atol=1e-6)
    assert torch.allclose(my.sum(1), torch.ones(n, dtype=my.dtype)) and (my >= 0).all()
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) # nothing that was given is changed

@quick
@given(seed=seeds, n=st.integers(1, 9))
def test_a_share_of_one_gives_the_batch_back(seed, n):
    x,y,_,perm = case(seed, n)
    for lam in (1, 1., torch.ones(n), torch.ones(())):
        mx,my = mixup(x, y, lam, perm, 10)
        assert torch.equal(mx, x) and torch.equal(my, F.one_hot(y, 10).float()) and mx.data_ptr() != x.data_ptr()
    assert torch.equal(mixup(x, y, 0, perm, 10)[0], x[perm])

@quick
@given(seed=seeds, n=st.integers(1, 9))
def test_the_order_of_the_batch_does_not_matter(seed, n):
    "Reordering the batch and its pairs reorders the result."
    x,y,lam,perm = case(seed, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed+1))
    where = order.argsort() # where each image went
    a,b = mixup(x, y, lam, perm, 10), mixup(x[order], y[order], lam[order], where[perm[order]], 10)
    for o,p in zip(a, b): assert torch.allclose(o[order], p, atol=1e-6)

@quick
@given(seed=seeds, n=st.integers(1, 9), lam=st.floats(0, 1))
def test_against_torchvision(seed, n, lam):
    x,y,*_ = case(seed, n)
    theirs = v2.MixUp(num_classes=10)
    theirs.make_params = lambda flat: dict(lam=lam)
    for a,b in zip(mixup(x, y, lam, torch.arange(n).roll(1), 10), theirs(x, y)): assert torch.allclose(a, b, atol=1e-6)

def test_a_share_from_numpy():
    x,y,_,perm = case(0)
    for lam in (np.float32(.25), np.float64(.25)):
        assert torch.equal(mix_pairs(x, lam, perm), mix_pairs(x, .25, perm))
        assert torch.equal(mixup_loss(F.cross_entropy, torch.ones(6, 10), y, lam, perm), mixup_loss(F.cross_entropy, torch.ones(6, 10), y, .25, perm))

def test_a_last_batch_of_one():
    x,y,lam,perm = case(0, 1)
    mx,my = mixup(x, y, lam, perm, 10)
    assert torch.equal(mx, x) and torch.equal(my, F.one_hot(y, 10).float())

def test_types_and_gradients_go_through():
    x,y,lam,perm = case(0)
    assert isinstance(mix_pairs(TensorImage(x), lam, perm), TensorImage)
    x.requires_grad_()
    mix_pairs(x, lam, perm).square().sum().backward()
    ours,x.grad = x.grad,None
    l = lam[:,None,None,None]
    (l*x + (1-l)*x[perm]).square().sum().backward()
    assert torch.allclose(ours, x.grad, atol=1e-5)

def test_it_compiles():
    compiled = torch.compile(mixup, fullgraph=True, backend='aot_eager')
    for per_image in (True, False):
        args = (*case(0, per_image=per_image), 10)
        for a,b in zip(compiled(*args), mixup(*args)): assert torch.allclose(a, b, atol=1e-6)
    logits = torch.randn(6, 10)
    x,y,lam,perm = case(0)
    loss = torch.compile(partial(mixup_loss, F.cross_entropy), fullgraph=True, backend='aot_eager')
    assert torch.allclose(loss(logits, y, lam, perm), mixup_loss(F.cross_entropy, logits, y, lam, perm))

x4,y4,p4 = torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64), torch.arange(4)
@pytest.mark.parametrize('change,words', [
    (dict(x=x4.byte()), 'x is a torch.uint8 of shape'), (dict(x=[1.]), 'x is a list'), (dict(x=torch.tensor(1.)), 'x is a torch.float32 of shape'),
    (dict(x=x4[:3]), 'y has 4 labels: x has 3 images'), (dict(y=y4+10), 'y holds 10: labels must be between 0 and 9'), (dict(y=y4-1), 'y holds -1'),
    (dict(y=y4.float()), 'y is a torch.float32'), (dict(y=y4[:,None]), 'y is a torch.int64 of shape'), (dict(n_classes=0), 'n_classes=0'),
    (dict(lam=1.01), 'lam=1.01: it must be a number between 0 and 1'), (dict(lam=-.5), 'lam=-0.5'), (dict(lam=float('nan')), 'lam=nan'),
    (dict(lam=None), 'lam=None'), (dict(lam=True), 'lam=True'), (dict(lam=torch.full((4,), 1.5)), 'lam holds 1.5: it must be between 0 and 1'),
    (dict(lam=torch.tensor([.1, .2, float('nan'), .3])), 'lam holds nan'), (dict(lam=torch.tensor(-.25)), 'lam holds -0.25'),
    (dict(lam=torch.rand(3)), r'lam is torch.float32 of shape \(3,\): it must be a float'), (dict(lam=torch.rand(4, 1)), r'lam .*\(4, 1\)'),
    (dict(lam=torch.ones(4, dtype=torch.int64)), 'lam is torch.int64'), (dict(perm=p4[:3]), r'perm is torch.int64 of shape \(3,\)'),
    (dict(perm=p4.float()), 'perm is torch.float32'), (dict(perm=[0, 1, 2, 3]), 'perm is list'), (dict(perm=p4+1), 'perm holds 4: it must be between 0 and 3'),
    (dict(perm=p4-1), 'perm holds -1')])
def test_mixup_refuses(change, words):
    args = {**dict(x=x4, y=y4, lam=.5, perm=p4, n_classes=10), **change}
    with pytest.raises(BadInput, match=words): mixup(**args)

# shares

def beta_distance(s, alpha):
    """Largest distance of the distribution function of `s` from Beta's, as a part of what 999 of 1000 true samples keep below.
    Below one half only, where floats are fine enough: above, a share of 1-1e-9 is rounded to 1."""
    low = s[s < .5].double()
    return stats.kstest(low, lambda t: 2*stats.beta(alpha, alpha).cdf(t)).statistic*math.sqrt(len(low))/1.95

@pytest.mark.parametrize('alpha', [.1, .4, 1, 4.])
def test_shares_are_beta(alpha):
    set_seed(0)
    s = draw_lam(20_000, alpha)
    assert s.shape == (20_000,) and s.min() >= 0 and s.max() <= 1
    assert beta_distance(s, alpha) < 1 and (s < .5).float().mean().item() == pytest.approx(.5, abs=.02)

def test_a_tiny_alpha_mixes_hardly_anything():
    s = draw_lam(10_000, 1e-3)
    assert not ((s > .01) & (s < .99)).float().mean() > .02 and s.mean().item() == pytest.approx(.5, abs=.03)

@quick
@given(n=st.integers(1, 50), alpha=st.floats(1e-6, 1e6))
def test_shares_are_numbers(n, alpha):
    s = draw_lam(n, alpha)
    assert s.shape == (n,) and ((0 <= s) & (s <= 1)).all()

@pytest.mark.parametrize('alpha', [0, -1., float('nan'), float('inf'), '1', None, True])
def test_alpha_is_checked(alpha):
    for f in (lambda: draw_lam(4, alpha), lambda: MixUp(alpha)):
        with pytest.raises(BadInput, match='alpha=.*: it must be a number above 0'): f()
    with pytest.raises(BadInput, match='n=0'): draw_lam(0, .4)

# the loss

losses = [F.cross_entropy, nn.CrossEntropyLoss(), CrossEntropyLossFlat(), nn.CrossEntropyLoss(label_smoothing=.1),
          CrossEntropyLossFlat(label_smoothing=.1), LabelSmoothingCrossEntropyFlat(eps=.1)]

@quick
@given(seed=seeds, n=st.integers(1, 9), n_classes=st.integers(2, 12), per_image=st.booleans(), i=st.integers(0, len(losses)-1))
def test_the_loss_of_the_mix_is_the_mix_of_the_losses(seed, n, n_classes, per_image, i):
    x,y,lam,perm = case(seed, n, n_classes, per_image)
    logits = torch.randn(n, n_classes, generator=torch.Generator().manual_seed(seed))
    _,soft = mixup(x, y, lam, perm, n_classes)
    ref = F.cross_entropy(logits, soft, label_smoothing=.1 if i > 2 else 0.)
    assert mixup_loss(losses[i], logits, y, lam, perm).item() == pytest.approx(ref.item(), rel=1e-4, abs=1e-5)

@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
def test_reductions_and_weights(reduction):
    x,y,lam,perm = case(1)
    logits,w = torch.randn(6, 10), torch.rand(10)
    _,soft = mixup(x, y, lam, perm, 10)
    for f in (nn.CrossEntropyLoss(weight=w, reduction=reduction), CrossEntropyLossFlat(weight=w, reduction=reduction)):
        assert torch.allclose(mixup_loss(f, logits, y, lam, perm), F.cross_entropy(logits, soft, weight=w, reduction=reduction), atol=1e-5)
        assert f.reduction == reduction
    ours = mixup_loss(partial(F.cross_entropy, reduction=reduction), logits, y, lam, perm)
    assert torch.allclose(ours, F.cross_entropy(logits, soft, reduction=reduction), atol=1e-5)

def test_targets_that_are_floats_are_mixed_themselves():
    x,y,lam,perm = case(2)
    logits,soft = torch.randn(6, 10), torch.rand(6, 10).softmax(1)
    for f in (F.cross_entropy, BCEWithLogitsLossFlat(), MSELossFlat()):
        assert torch.allclose(mixup_loss(f, logits, soft, lam, perm), f(logits, one_by_one(soft, lam, perm).float()), atol=1e-5)

def test_a_failing_loss_is_left_as_it_was():
    class Fails(nn.CrossEntropyLoss):
        def forward(self, *args): raise KeyboardInterrupt
    f = Fails()
    with pytest.raises(KeyboardInterrupt): mixup_loss(f, torch.zeros(4, 10), y4, .5, p4)
    assert f.reduction == 'mean'

def test_the_loss_refuses():
    for change,words in ((dict(lam=2.), 'lam=2.0'), (dict(perm=p4[:2]), 'perm'), (dict(lam=torch.rand(2)), 'lam')):
        args = {**dict(y=y4, lam=.5, perm=p4), **change}
        with pytest.raises(BadInput, match=words): mixup_loss(F.cross_entropy, torch.zeros(4, 10), **args)

# the callback

@pytest.fixture(scope='module')
def dls(tiny): return get_dls(tiny, 8, 32, workers=0)

def plain_dls(n=20, bs=8, dtype=torch.float32, drop_last=False, soft=False):
    "Loaders of plain tensors, without fastai's types."
    set_seed(0)
    y = torch.randint(0, 10, (n,))
    items = list(zip(torch.randn(n, 3, 8, 8).to(dtype), F.one_hot(y, 10).float() if soft else y))
    return DataLoaders(DataLoader(items, bs=bs, shuffle=True, drop_last=drop_last), DataLoader(items[:10], bs=bs), device='cpu')

class Watch(Callback):
    "Keeps what each event of a batch sees."
    order = 5 # after MixUp
    def __init__(self): self.seen = []
    def after_loss(self):
        mix = self.learn.mix_up if hasattr(self.learn, 'mix_up') else None
        self.seen.append(SimpleNamespace(training=self.training, x=self.x.clone(), y=self.y.clone(), pred=self.pred.detach().clone(), loss=self.loss_grad.item(),
                                         **(dict(lam=mix.lam.clone(), perm=mix.perm.clone()) if self.training and mix else {})))

def test_a_batch_by_the_definition(dls):
    class Before(Callback):
        order = -9
        def __init__(self): self.xs = []
        def before_batch(self): self.xs.append(self.x.clone())
    learn,watch,before = get_learner(dls, Pool, cbs=MixUp(.7)), Watch(), Before()
    with no_output(learn): learn.fit(1, cbs=[watch, before])
    assert {o.training for o in watch.seen} == {True, False}
    for o,x in zip(watch.seen, before.xs):
        y,pred = o.y.as_subclass(torch.Tensor), o.pred.as_subclass(torch.Tensor)
        if o.training:
            assert (o.lam >= .5).all() and (o.lam <= 1).all() and o.perm.sort()[0].tolist() == list(range(len(y)))
            assert torch.allclose(o.x.double(), one_by_one(x, o.lam, o.perm), atol=1e-4)
            soft = mixup(x, y, o.lam, o.perm, 10)[1].as_subclass(torch.Tensor)
            assert o.loss == pytest.approx(F.cross_entropy(pred, soft).item(), abs=1e-4)
        else:
            assert torch.equal(o.x, x) and o.loss == pytest.approx(F.cross_entropy(pred, y).item(), abs=1e-5)

@pytest.mark.parametrize('loss', [CrossEntropyLossFlat(), LabelSmoothingCrossEntropyFlat()])
def test_the_same_step_as_fastais(dls, loss):
    "Shares and partners are handed over from fastai's callback: images, loss and gradient of a step agree."
    batch = dls.one_batch()
    def step(cb, share=None):
        learn = get_learner(dls, Pool, loss_func=loss)
        learn.training,learn.model = True,learn.model.train()
        learn.xb,learn.yb = (batch[0].clone(),),(batch[1].clone(),)
        with learn.added_cbs(cb):
            if share: cb.draw = lambda: (setattr(cb, 'lam', share[0]), setattr(cb, 'perm', share[1]))
            learn.create_opt()
            for e in ('before_train', 'before_batch'): getattr(cb, e, lambda: None)()
            learn.pred = learn.model(*learn.xb)
            learn.loss_grad = learn.loss_func(learn.pred, *learn.yb)
            if hasattr(cb, 'after_loss'): cb.after_loss()
            learn.loss_grad.backward()
            getattr(cb, 'after_train', lambda: None)()
            return learn.x, learn.loss_grad.item(), learn.model[-1].weight.grad.clone()
    theirs = FastaiMixUp()
    ref = step(theirs)
    got = step(MixUp(), (theirs.lam, find_perm(batch[0], ref[0], theirs.lam)))
    assert torch.allclose(got[0], ref[0], atol=1e-5) and got[1] == pytest.approx(ref[1], abs=1e-5) and torch.allclose(got[2], ref[2], atol=1e-5)

def find_perm(x, mixed, lam):
    "The partner of each image, found from the blends: the one whose blend is closest."
    x,mixed = x.as_subclass(torch.Tensor), mixed.as_subclass(torch.Tensor)
    l = lam[:,None,None,None,None]
    candidates = l*x[:,None] + (1-l)*x[None]
    return (candidates - mixed[:,None]).abs().flatten(2).sum(2).argmin(1)

def test_class_or_instance(dls):
    for cbs in (MixUp, MixUp(), [MixUp]):
        learn = get_learner(dls, Pool, cbs=cbs)
        assert learn.mix_up.alpha == .4
        assert fit(learn, 1, 1e-2, show=False).settings['cbs'] == ['MixUp']
    learn = get_learner(dls, Pool)
    assert fit(learn, 1, 1e-2, cbs=MixUp, show=False).settings['cbs'] == ['MixUp'] and not hasattr(learn, 'mix_up')

@pytest.mark.parametrize('loss', losses[:2] + losses[3:4])
@pytest.mark.parametrize('soft', [False, True])
def test_torchs_losses(loss, soft):
    learn,watch = Learner(plain_dls(soft=soft), Pool(10), loss_func=loss, cbs=MixUp), Watch()
    with no_output(learn): learn.fit(1, cbs=watch)
    for o in (o for o in watch.seen if o.training):
        hot = o.y if soft else F.one_hot(o.y, 10).float()
        ref = F.cross_entropy(o.pred, one_by_one(hot, o.lam, o.perm).float(), label_smoothing=getattr(loss, 'label_smoothing', 0.))
        assert o.loss == pytest.approx(ref.item(), abs=1e-5)

def test_a_last_batch_of_one_image_in_training():
    learn,watch = Learner(plain_dls(17, 8), Pool(10), loss_func=F.cross_entropy, cbs=MixUp), Watch()
    with no_output(learn): learn.fit(1, cbs=watch)
    sizes = [len(o.y) for o in watch.seen if o.training]
    assert sizes == [8, 8, 1]
    last = [o for o in watch.seen if o.training][-1]
    assert last.loss == pytest.approx(F.cross_entropy(last.pred, last.y).item(), abs=1e-6)

def test_metrics_see_true_labels(dls):
    learn,watch = get_learner(dls, Pool, cbs=MixUp), Watch()
    learn.recorder.train_metrics = True
    with no_output(learn): learn.fit(1, cbs=watch)
    row = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1]))
    for training,key in ((True, 'train_accuracy'), (False, 'valid_accuracy')):
        right = torch.cat([(o.pred.argmax(1) == o.y).float() for o in watch.seen if o.training == training])
        assert all(o.y.dtype == torch.int64 for o in watch.seen)
        assert row[key] == pytest.approx(right.mean().item(), abs=1e-6)

def test_the_training_loss_is_the_loss_on_blends(dls):
    learn,watch = get_learner(dls, Pool, cbs=MixUp), Watch()
    with no_output(learn): learn.fit(1, cbs=watch)
    seen = [o.loss for o in watch.seen if o.training]
    smooth,w = 0., 0.98
    for l in seen: smooth = smooth*w + l*(1-w)
    assert learn.recorder.values[-1][0] == pytest.approx(smooth/(1-w**len(seen)), abs=1e-4)

class Raise(Callback):
    order = 9
    def __init__(self, event, ex): setattr(self, event, self.fail); self.ex = ex
    def fail(self):
        if self.learn.training: raise self.ex

@pytest.mark.parametrize('event', ['before_batch', 'after_pred', 'after_loss', 'before_backward', 'after_batch'])
@pytest.mark.parametrize('ex', [KeyboardInterrupt(), RuntimeError('stop'), CancelFitException()], ids=lambda o: type(o).__name__)
def test_nothing_is_left_patched(dls, event, ex):
    loss = CrossEntropyLossFlat()
    learn = get_learner(dls, Pool, loss_func=loss, cbs=MixUp)
    with no_output(learn):
        try: learn.fit(1, cbs=Raise(event, ex))
        except (KeyboardInterrupt, RuntimeError): pass
        assert learn.loss_func is loss and loss.reduction == 'mean' and 'reduction' not in vars(learn)
        learn.fit(1) # and it goes on
        assert learn.validate()[0] == pytest.approx(reference(learn)[0], abs=1e-5)

def reference(learn):
    "Validation loss and accuracy, by hand."
    with torch.no_grad(): logits,y = (torch.cat(o).as_subclass(torch.Tensor) for o in zip(*[(learn.model.eval()(x), y) for x,y in learn.dls.valid]))
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item(), logits.softmax(1), y

# what works after it and with it

@pytest.fixture(scope='module')
def trained(dls):
    learn = get_learner(dls, Pool, cbs=MixUp)
    run = fit(learn, 2, 1e-2, show=False)
    learn.no_bar().__enter__()
    return learn, run

def test_the_record_of_validation(trained):
    learn,run = trained
    loss,acc,*_ = reference(learn)
    assert run.accuracy == pytest.approx(acc, abs=1e-6) and run.history[-1]['valid_loss'] == pytest.approx(loss, abs=1e-5)

def test_predict(trained):
    learn,_ = trained
    *_,probs,y = reference(learn)
    for i in (0, 7):
        name,index,p = learn.predict(learn.dls.valid_ds.items[i])
        assert torch.allclose(p.as_subclass(torch.Tensor), probs[i], atol=1e-5) and name == learn.dls.vocab[probs[i].argmax()] and index == probs[i].argmax()

def test_show_results(trained, monkeypatch):
    learn,_ = trained
    learn.show_results(max_n=4, shuffle=False)
    titles = [o.get_title() for o in plt.gcf().axes if o.get_title()]
    *_,probs,y = reference(learn)
    assert [o.split('\n') for o in titles] == [[learn.dls.vocab[t], learn.dls.vocab[p.argmax()]] for t,p in zip(y[:4], probs)]
    plt.close('all')

def test_interpretation(trained):
    learn,_ = trained
    *_,probs,y = reference(learn)
    interp = ClassificationInterpretation.from_learner(learn)
    ref = np.zeros((10, 10), int)
    for t,p in zip(y, probs.argmax(1)): ref[t,p] += 1
    assert (interp.confusion_matrix() == ref).all()
    losses,_ = interp.top_losses(3)[:2]
    assert torch.allclose(torch.as_tensor(losses).float(), (-probs[range(len(y)), y].log()).sort(descending=True)[0][:3], atol=1e-4)

def test_tta(trained):
    learn,_ = trained
    *_,y = reference(learn)
    preds,targs = learn.tta(n=2)
    assert torch.equal(targs.as_subclass(torch.Tensor), y) and torch.allclose(preds.sum(1), torch.ones(len(y)), atol=1e-4)
    set_seed(0); a = learn.tta(n=2)[0]
    with learn.removed_cbs(learn.mix_up): set_seed(0); b = learn.tta(n=2)[0]
    assert torch.equal(a, b) # the callback takes no part

def test_lr_find(dls):
    learn = get_learner(dls, Pool, cbs=MixUp)
    loss_func,before = learn.loss_func, learn.model[-1].weight.clone()
    with learn.no_bar(): found = learn.lr_find(num_it=12, show_plot=False)
    assert 1e-7 <= found.valley <= 10 and learn.loss_func is loss_func and torch.equal(before, learn.model[-1].weight)
    assert fit(learn, 1, 1e-2, show=False).accuracy == pytest.approx(reference(learn)[1], abs=1e-6)

def test_save_and_load(dls, tmp_path):
    learn = get_learner(dls, Pool, cbs=MixUp)
    learn.path = tmp_path
    fit(learn, 1, 1e-2, show=False)
    learn.save('a')
    other = get_learner(dls, Pool, cbs=MixUp, seed=7)
    other.path = tmp_path
    other.load('a')
    assert reference(other)[0] == reference(learn)[0] and fit(other, 1, 1e-2, show=False).history

def test_export_and_load(trained, tmp_path):
    "tta on a learner that was exported and loaded."
    from fastai.vision.all import load_learner
    learn,_ = trained
    old,learn.path = learn.path,tmp_path
    try: learn.export('a.pkl')
    finally: learn.path = old
    loaded = load_learner(tmp_path/'a.pkl')
    name,*_,p = loaded.predict(learn.dls.valid_ds.items[0])
    assert torch.allclose(p.as_subclass(torch.Tensor), reference(learn)[2][0], atol=1e-5)
    with loaded.no_bar(): preds,_ = loaded.tta(dl=loaded.dls.test_dl(learn.dls.valid_ds.items[:4]), n=2)
    assert preds.shape == (4, 10)

def test_gradient_accumulation(dls):
    "Four batches of 8 with one step: fastai divides each loss by 32/8."
    class Grads(Callback):
        order = 7 # after accumulation
        def __init__(self): self.losses = []
        def after_loss(self): self.losses.append(self.loss_grad.item()) if self.training else None
    learn,watch,grads = get_learner(dls, Pool, cbs=MixUp), Watch(), Grads()
    with no_output(learn): learn.fit(1, cbs=[GradientAccumulation(32), watch, grads])
    seen = [o for o in watch.seen if o.training]
    for o,l in zip(seen, grads.losses):
        soft = one_by_one(F.one_hot(o.y.as_subclass(torch.Tensor), 10), o.lam, o.perm).float()
        assert o.loss == pytest.approx(F.cross_entropy(o.pred.as_subclass(torch.Tensor), soft).item(), abs=1e-4)
        assert l == pytest.approx(o.loss*8/32, abs=1e-5)
    assert len(seen) == 5 and learn.loss_func.reduction == 'mean'

class AutocastCPU(Callback):
    "bf16 on the CPU, as fastai's MixedPrecision does on CUDA."
    order = 10
    def before_batch(self): self.cast = torch.autocast('cpu', torch.bfloat16); self.cast.__enter__()
    def after_pred(self): self.learn.pred = self.pred.float()
    def after_loss(self): self.cast.__exit__(None, None, None)

def test_bf16(dls):
    learn,watch = get_learner(dls, Pool, cbs=[MixUp, AutocastCPU]), Watch()
    with no_output(learn): learn.fit(1, cbs=watch)
    for o in (o for o in watch.seen if o.training):
        soft = one_by_one(F.one_hot(o.y.as_subclass(torch.Tensor), 10), o.lam, o.perm).float()
        assert o.loss == pytest.approx(F.cross_entropy(o.pred.as_subclass(torch.Tensor), soft).item(), abs=1e-3) and math.isfinite(o.loss)
    assert learn.predict(dls.valid_ds.items[0])[2].sum().item() == pytest.approx(1, abs=1e-2)

def test_bf16_images():
    learn = Learner(plain_dls(dtype=torch.bfloat16), Pool(10).bfloat16(), loss_func=F.cross_entropy, cbs=MixUp)
    with no_output(learn): learn.fit(1)
    assert math.isfinite(learn.recorder.values[-1][0])

@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'", "ignore:.*CUDA is not available", 'ignore:torch.cuda.amp')
def test_fastais_to_bf16(dls):
    learn = get_learner(dls, Pool, cbs=MixUp).to_bf16()
    assert fit(learn, 1, 1e-2, show=False).accuracy == pytest.approx(reference(learn)[1], abs=.06)

def test_images_in_whole_numbers_are_refused():
    learn = Learner(plain_dls(dtype=torch.uint8), Pool(10), loss_func=F.cross_entropy, cbs=MixUp)
    with no_output(learn), pytest.raises(BadInput, match='x is a torch.uint8'): learn.fit(1)

def test_the_batch_of_the_loader_is_not_changed():
    "A loader may give the same tensors again and again."
    items = torch.randn(8, 3, 8, 8), torch.arange(8)
    before = items[0].clone()
    learn = Learner(plain_dls(8), Pool(10), loss_func=F.cross_entropy, cbs=MixUp)
    learn.dls.train.create_batches = lambda _: iter([items, items])
    with no_output(learn): learn.fit(2)
    assert torch.equal(items[0], before)

@pytest.mark.gpu
def test_on_the_gpu_as_on_the_cpu():
    for per_image in (True, False):
        x,y,lam,perm = case(3, 64, per_image=per_image, shape=(3, 32, 32))
        gpu = [o.cuda() if isinstance(o, torch.Tensor) else o for o in (x, y, lam, perm)]
        for dtype,tol in ((torch.float32, 1e-5), (torch.bfloat16, .05)):
            a,b = mixup(x.to(dtype), y, lam, perm, 10), mixup(gpu[0].to(dtype), *gpu[1:], 10)
            for o,p in zip(a, b): assert p.is_cuda and torch.allclose(o.float(), p.float().cpu(), atol=tol)
    s = draw_lam(20_000, .4, 'cuda')
    assert s.is_cuda and beta_distance(s.cpu(), .4) < 1

@pytest.mark.gpu
def test_a_step_never_waits_for_the_gpu():
    x,y = torch.randn(64, 3, 32, 32, device='cuda'), torch.randint(0, 10, (64,), device='cuda')
    model = Pool(10).cuda()
    cb = MixUp()
    cb.learn = SimpleNamespace(xb=(x,), x=x, yb=(y,), y=y, loss_func=nn.CrossEntropyLoss(), training=True)
    def step():
        cb.learn.xb = cb.learn.x,
        cb.before_batch()
        cb.learn.pred = model(*cb.learn.xb)
        cb.after_loss()
        cb.learn.loss_grad.backward()
        mixup(x, y, cb.lam, cb.perm, 10); mixup(x, y, .3, cb.perm, 10)
    step()
    torch.cuda.set_sync_debug_mode('error')
    try: step()
    finally: torch.cuda.set_sync_debug_mode('default')

@pytest.mark.gpu
def test_training_on_the_gpu_in_bf16(tiny):
    dls = get_dls(tiny, 8, 32, workers=0)
    learn = get_learner(dls, Pool, cbs=MixUp).to_bf16()
    assert math.isfinite(fit(learn, 1, 1e-2, show=False).history[-1]['train_loss']) and learn.mix_up.lam.is_cuda

# ---- never two that mix

def test_two_callbacks_that_mix_are_refused(tiny):
    "Twice ours, or ours and fastai's, in the learner or for one fit."
    dls = get_dls(tiny, 8, 32, workers=0)
    for a,b in ((MixUp(.4), MixUp(.4)), (MixUp(.4), FastaiMixUp(.4)), (FastaiCutMix(1.), MixUp(.4))):
        learn = get_learner(dls, partial(xresnet18, widen=.125), cbs=a)
        with pytest.raises(BadInput, match='both would mix the images'): fit(learn, 1, 1e-3, cbs=b, show=False)
