"Blends, shares, the loss of a blend, and what is the callback's own; what all that mix must do is in test_mixing."
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

from imagenette_course.record import no_output
from imagenette_course.baseline import fit, get_learner
from imagenette_course.core import BadInput
from imagenette_course.dataset import get_dls
from imagenette_course.mixup import *
from imagenette_course.mixup import MixUp # fastai exports another class of this name
from fastai.callback.mixup import MixUp as FastaiMixUp
from fastai.vision.all import (BCEWithLogitsLossFlat, Callback, ClassificationInterpretation, CrossEntropyLossFlat,
                               LabelSmoothingCrossEntropyFlat, MSELossFlat, TensorImage, plt, set_seed)
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

# ---- two images

@quick
@given(seed=seeds, t=st.floats(0, 1))
def test_blend_of_two(seed, t):
    x,*_ = case(seed, 2)
    ref = t*x[0].numpy().astype(float) + (1-t)*x[1].numpy().astype(float)
    assert np.allclose(blend(x[0], x[1], t), ref, atol=1e-6)
    assert torch.equal(blend(x[0], x[1], 1), x[0]) and torch.equal(blend(x[0], x[1], 0), x[1])

three = torch.zeros(3)
def test_blend_refuses():
    for args,words in (((three.byte(), three, .5), 'a is a torch.uint8 of shape'), ((three, three, 1.1), 't=1.1'),
                       ((three, torch.zeros(4), .5), r'b is a .* it must be a float tensor of shape \(3,\)')):
        with pytest.raises(BadInput, match=words): blend(*args)

# ---- a batch

@pytest.mark.smoke
@quick
@given(seed=seeds, n=st.integers(1, 9), n_classes=st.integers(1, 12), per_image=st.booleans(),
       dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
       shape=st.sampled_from([(), (4,), (1, 3, 2)]))
def test_mixup_against_the_definition(seed, n, n_classes, per_image, dtype, shape):
    x,y,lam,perm = case(seed, n, n_classes, per_image, dtype, shape)
    before = x.clone(), y.clone()
    mx,my = mixup(x, y, lam, perm, n_classes)
    tol = {torch.float64: 1e-6, torch.float32: 1e-5}.get(dtype, .05)
    assert mx.dtype == dtype and mx.shape == x.shape
    assert my.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
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

@pytest.mark.smoke
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
        losses = [mixup_loss(F.cross_entropy, torch.ones(6, 10), y, o, perm) for o in (lam, .25)]
        assert torch.equal(*losses)

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
@pytest.mark.smoke
@pytest.mark.parametrize('change,words', [
    (dict(x=x4.byte()), 'x is a torch.uint8 of shape'), (dict(x=x4[:3]), r'y is a torch.int64 .* of shape \(3,\)'),
    (dict(y=y4+10), 'y holds 10: it must be between 0 and 9'), (dict(y=y4.float()), 'y is a torch.float32'),
    (dict(n_classes=0), 'n_classes=0'), (dict(lam=1.01), 'lam=1.01: it must be a number between 0 and 1'),
    (dict(lam=torch.tensor([.1, .2, math.nan, .3])), 'lam holds nan: it must be between 0 and 1'),
    (dict(lam=torch.rand(3)), r'lam is a torch.float32 of shape \(3,\): it must be a float tensor of shape \(4,\)'),
    (dict(lam=torch.ones((), dtype=torch.int64)), 'lam is a torch.int64'),
    (dict(perm=[0, 1, 2, 3]), 'perm is a list'), (dict(perm=p4+1), 'perm holds 4: it must be between 0 and 3')])
def test_mixup_refuses(change, words):
    with pytest.raises(BadInput, match=words): mixup(**{**dict(x=x4, y=y4, lam=.5, perm=p4, n_classes=10), **change})

# ---- shares

def beta_distance(s, alpha):
    """Largest distance of the distribution function of `s` from Beta's, as a part of what 999 of 1000 true samples keep
    below. Below one half only, where floats are fine enough: above, a share of 1-1e-9 is rounded to 1."""
    low = s[s < .5].double()
    return stats.kstest(low, lambda t: 2*stats.beta(alpha, alpha).cdf(t)).statistic*math.sqrt(len(low))/1.95

@pytest.mark.parametrize('alpha', [.1, 4.])
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

def test_alpha_is_checked():
    for alpha in (0, math.inf, '1'):
        for f in (lambda: draw_lam(4, alpha), lambda: MixUp(alpha)):
            with pytest.raises(BadInput, match='alpha=.*: it must be a number above 0'): f()

# ---- the loss

losses = [F.cross_entropy, nn.CrossEntropyLoss(), CrossEntropyLossFlat(), nn.CrossEntropyLoss(label_smoothing=.1),
          CrossEntropyLossFlat(label_smoothing=.1), LabelSmoothingCrossEntropyFlat(eps=.1)]

@pytest.mark.smoke
@quick
@given(seed=seeds, n=st.integers(1, 9), n_classes=st.integers(2, 12), per_image=st.booleans(), i=st.integers(0, 5))
def test_the_loss_of_the_mix_is_the_mix_of_the_losses(seed, n, n_classes, per_image, i):
    x,y,lam,perm = case(seed, n, n_classes, per_image)
    logits = torch.randn(n, n_classes, generator=torch.Generator().manual_seed(seed))
    _,soft = mixup(x, y, lam, perm, n_classes)
    ref = F.cross_entropy(logits, soft, label_smoothing=.1 if i > 2 else 0.)
    assert mixup_loss(losses[i], logits, y, lam, perm).item() == pytest.approx(ref.item(), rel=1e-4, abs=1e-5)

def test_reductions_and_weights():
    x,y,lam,perm = case(1)
    logits,w = torch.randn(6, 10), torch.rand(10)
    _,soft = mixup(x, y, lam, perm, 10)
    for reduction in ('mean', 'sum', 'none'):
        want = F.cross_entropy(logits, soft, weight=w, reduction=reduction)
        for f in (nn.CrossEntropyLoss(w, reduction=reduction), CrossEntropyLossFlat(weight=w, reduction=reduction),
                  partial(F.cross_entropy, weight=w, reduction=reduction)):
            assert torch.allclose(mixup_loss(f, logits, y, lam, perm), want, atol=1e-5)
            assert isinstance(f, partial) or f.reduction == reduction

def test_targets_that_are_floats_are_mixed_themselves():
    x,y,lam,perm = case(2)
    logits,soft = torch.randn(6, 10), torch.rand(6, 10).softmax(1)
    for f in (F.cross_entropy, BCEWithLogitsLossFlat(), MSELossFlat()):
        want = f(logits, one_by_one(soft, lam, perm).float())
        assert torch.allclose(mixup_loss(f, logits, soft, lam, perm), want, atol=1e-5)

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

# ---- the callback

@pytest.fixture(scope='module')
def dls(tiny): return get_dls(tiny, 8, 32, workers=0)

class Watch(Callback):
    "Keeps what each batch gave."
    order = 5 # after MixUp
    def __init__(self): self.seen = []
    def after_loss(self):
        self.seen.append(SimpleNamespace(training=self.training, y=self.y.clone(), pred=self.pred.detach(),
                                         loss=self.loss_grad.item()))

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
    assert torch.allclose(got[0], ref[0], atol=1e-5) and got[1] == pytest.approx(ref[1], abs=1e-5)
    assert torch.allclose(got[2], ref[2], atol=1e-5)

def find_perm(x, mixed, lam):
    "The partner of each image, found from the blends: the one whose blend is closest."
    x,mixed = x.as_subclass(torch.Tensor), mixed.as_subclass(torch.Tensor)
    l = lam[:,None,None,None,None]
    candidates = l*x[:,None] + (1-l)*x[None]
    return (candidates - mixed[:,None]).abs().flatten(2).sum(2).argmin(1)

def test_each_image_is_the_stronger_half_of_its_blend(dls):
    learn = get_learner(dls, Pool, cbs=MixUp)
    fit(learn, 1, 1e-2, show=False)
    assert learn.mix_up.alpha == .4 and (learn.mix_up.lam >= .5).all() and (learn.mix_up.lam <= 1).all()

def test_what_is_recorded(dls):
    "The training loss is that of blends; metrics see true labels, also those of training batches."
    learn,watch = get_learner(dls, Pool, cbs=MixUp), Watch()
    learn.recorder.train_metrics = True
    with no_output(learn): learn.fit(1, cbs=watch)
    row = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1]))
    for training,key in ((True, 'train_accuracy'), (False, 'valid_accuracy')):
        right = torch.cat([(o.pred.argmax(1) == o.y).float() for o in watch.seen if o.training == training])
        assert row[key] == pytest.approx(right.mean().item(), abs=1e-6)
    seen = [o.loss for o in watch.seen if o.training]
    smooth,w = 0., 0.98
    for l in seen: smooth = smooth*w + l*(1-w)
    assert learn.recorder.smooth_loss.value.item() == pytest.approx(smooth/(1-w**len(seen)), abs=1e-4)

def test_interpretation_and_results(dls):
    learn = get_learner(dls, Pool, cbs=MixUp)
    fit(learn, 1, 1e-2, show=False)
    with no_output(learn):
        preds,y = (o.as_subclass(torch.Tensor) for o in learn.get_preds())
        learn.show_results(max_n=4, shuffle=False)
        titles = [o.get_title().split('\n') for o in plt.gcf().axes if o.get_title()]
        plt.close('all')
        interp = ClassificationInterpretation.from_learner(learn)
        top,_ = interp.top_losses(3)[:2]
    assert titles == [[dls.vocab[t], dls.vocab[p.argmax()]] for t,p in zip(y[:4], preds)]
    assert interp.confusion_matrix().trace() == (preds.argmax(1) == y).sum()
    want = (-preds[range(len(y)), y].log()).sort(descending=True)[0][:3]
    assert torch.allclose(torch.as_tensor(top).float(), want, atol=1e-4)

class AutocastCPU(Callback):
    "bf16 on the CPU, as fastai's MixedPrecision does on CUDA."
    order = 10
    def before_batch(self): self.cast = torch.autocast('cpu', torch.bfloat16); self.cast.__enter__()
    def after_pred(self): self.learn.pred = self.pred.float()
    def after_loss(self): self.cast.__exit__(None, None, None)

def test_bf16(dls):
    learn = get_learner(dls, Pool, cbs=[MixUp, AutocastCPU])
    assert math.isfinite(fit(learn, 1, 1e-2, show=False).history[-1]['train_loss'])
    assert learn.predict(dls.valid_ds.items[0])[2].sum().item() == pytest.approx(1, abs=1e-2)

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
