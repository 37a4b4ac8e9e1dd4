"Boxes, shares, CutMix and ResizeMix as functions, and one contract for all callbacks that mix."
import copy, math, pickle, random
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from scipy import stats
from torch import nn

from imagenette_course.record import no_output
from imagenette_course.baseline import compare, fit, get_learner
from imagenette_course.core import BadInput
from imagenette_course.dataset import get_dls
from imagenette_course.mixing import *
from imagenette_course.mixing import CutMix # fastai exports another one
from imagenette_course.mixup import MixUp, draw_lam, mix_pairs
from imagenette_course.resize import ProgressiveResize
from imagenette_course.smoothing import LabelSmoothingCrossEntropy
from imagenette_course.speed import cached_dls, fast_learner
from fastai.callback.mixup import CutMix as FastaiCutMix, MixUp as FastaiMixUp
from fastai.vision.all import (Callback, CancelFitException, CrossEntropyLossFlat, DataLoader, DataLoaders,
                               GradientAccumulation, Learner, MSELossFlat, TensorImage, load_learner, set_seed,
                               xresnet18)
from torchvision.transforms import v2

quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)
FUNCS = dict(cut=(cut_pairs, cutmix), resize=(resize_pairs, resizemix))
ways = pytest.mark.parametrize('way', FUNCS)

class Pool(nn.Sequential):
    "A network of milliseconds: mean colours of four quarters, and one linear layer."
    def __init__(self, n_out): super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, n_out))

def case(seed, n=5, h=7, w=9, c=3, dtype=torch.float32, inside=True):
    "A random batch: images, labels, boxes, partners. The boxes have a pixel at least, or stick out, or are empty."
    g = torch.Generator().manual_seed(seed)
    def draw(lo, hi): return torch.randint(lo, hi, (n,), generator=g)
    if inside:
        height,width = draw(1, h+1), draw(1, w+1)
        top,left = ((torch.rand(n, generator=g)*(size - length + 1)).long().clamp(max=size - length)
                    for size,length in ((h, height), (w, width)))
    else: top,left,height,width = draw(-h, 2*h), draw(-w, 2*w), draw(0, 2*h), draw(0, 2*w)
    x = torch.randn(n, c, h, w, generator=g).to(dtype)
    return x, draw(0, 10), torch.stack([top, left, height, width], 1), torch.randperm(n, generator=g)

def visible(box, h, w):
    "Rows and columns of a box inside the image."
    t,l,bh,bw = box
    return slice(max(t, 0), max(min(t+bh, h), 0)), slice(max(l, 0), max(min(l+bw, w), 0))

def lines(x, n):
    "PyTorch's resize, along the last dimension: of a whole image it repeats the first row where the width is 1."
    flat = x.reshape(-1, 1, 1, x.shape[-1])
    return F.interpolate(flat, size=(1, n), mode='bilinear', antialias=True).reshape(*x.shape[:-1], n)

def one_by_one(way, x, boxes, perm):
    "The definition with slices, an image at a time; for boxes inside the image."
    res = x.clone()
    for i,(t,l,bh,bw) in enumerate(boxes.tolist()):
        other = x[perm[i]]
        patch = other[:,t:t+bh,l:l+bw] if way == 'cut' else lines(lines(other.double(), bw).mT, bh).mT
        res[i,:,t:t+bh,l:l+bw] = patch.to(x.dtype)
    return res

def soft_targets(y, lam, perm, n_classes=10):
    hot = y if y.is_floating_point() else F.one_hot(y.as_subclass(torch.Tensor), n_classes).float()
    return lam[:,None]*hot + (1-lam[:,None])*hot[perm]

# ---- masks and shares

@quick
@given(seed=seeds, h=st.integers(1, 12), w=st.integers(1, 12), inside=st.booleans())
def test_mask_and_share_against_slices(seed, h, w, inside):
    _,_,boxes,_ = case(seed, h=h, w=w, inside=inside)
    ref = torch.ones(len(boxes), h, w, dtype=torch.bool)
    for i,box in enumerate(boxes.tolist()): ref[(i, *visible(box, h, w))] = False
    assert torch.equal(keep_mask(boxes, h, w), ref)
    assert torch.allclose(kept_share(boxes, h, w).double(), ref.double().mean((1, 2)), atol=1e-6)

def test_the_target_is_what_can_be_seen():
    "Images of one colour each: the target can be read from the mean of the picture."
    x = torch.eye(4)[:,:,None,None].expand(4, 4, 16, 24).clone() # image i is 1 in channel i
    y,perm = torch.arange(4), torch.tensor([1, 2, 3, 0])
    for boxes in (draw_boxes(torch.tensor([.2, .5, .9, 1.]), 16, 24),
                  torch.tensor([[-4, -4, 8, 8], [12, 20, 8, 8], [0, 0, 16, 24], [3, 3, 0, 0]])):
        for f in (cutmix, resizemix):
            mx,my = f(x, y, boxes, perm, 4)
            assert torch.allclose(mx.mean((2, 3)), my, atol=1e-5)

# ---- drawing

@quick
@given(seed=seeds, n=st.integers(0, 20), h=st.integers(1, 40), w=st.integers(1, 40))
def test_drawn_boxes_lie_inside(seed, n, h, w):
    torch.manual_seed(seed)
    side = torch.rand(n)
    for f in (draw_boxes, draw_inner_boxes):
        boxes = f(side, h, w)
        assert boxes.shape == (n, 4) and boxes.dtype == torch.int64
        assert (boxes >= 0).all() and (boxes[:,:2] + boxes[:,2:] <= torch.tensor([h, w])).all()
    assert (boxes[:,2:] >= 1).all() and torch.equal(boxes[:,2], (side*h).round().clamp(min=1).long())

def test_cutmix_shares_have_the_mean_of_the_formula():
    set_seed(0)
    for h,w in ((64, 64), (1000, 700)):
        share = 1 - kept_share(draw_boxes((1 - draw_lam(20_000, 1.)).sqrt(), h, w), h, w)
        assert share.mean().item() == pytest.approx(1/2 - 1/5 + 1/48, abs=.008) # 4 standard errors

def test_cutmix_shares_are_torchvisions():
    set_seed(0)
    n,flat = 600, [torch.empty(1, 3, 1000, 800)]
    for alpha in (.3, 1.):
        theirs = v2.CutMix(alpha=alpha, num_classes=10)
        shares = [theirs.make_params(flat)['lam_adjusted'] for _ in range(n)]
        ours = kept_share(draw_boxes((1 - draw_lam(n, alpha)).sqrt(), 1000, 800), 1000, 800)
        assert stats.ks_2samp(ours.numpy(), shares).statistic < 1.95*math.sqrt(2/n)

def test_middles_are_everywhere_and_inner_boxes_too():
    set_seed(0)
    boxes = draw_boxes(torch.full((20_000,), 1/16), 16, 8) # one row high, half a column wide
    row = torch.bincount(boxes[boxes[:,2] == 1, 0], minlength=16)
    assert stats.chisquare(row.numpy()).pvalue > 1e-4
    boxes = draw_inner_boxes(torch.full((20_000,), .5), 16, 8)
    assert torch.equal(boxes[:,2:].unique(dim=0), torch.tensor([[8, 4]]))
    for at,n in ((boxes[:,0], 9), (boxes[:,1], 5)):
        assert stats.chisquare(torch.bincount(at, minlength=n).numpy()).pvalue > 1e-4

def test_images_of_one_pixel():
    set_seed(0)
    share = kept_share(draw_boxes(torch.full((4000,), .5), 1, 1), 1, 1)
    assert set(share.tolist()) == {0., 1.} # all of it or nothing
    assert (share == 0).float().mean().item() == pytest.approx(.25, abs=.03) # a half in each direction
    x,y = torch.randn(2, 3, 1, 1), torch.tensor([3, 4])
    for f in (cutmix, resizemix):
        mx,my = f(x, y, draw_inner_boxes(torch.rand(2), 1, 1), torch.tensor([1, 0]), 10)
        assert torch.allclose(mx, x.flip(0)) and torch.equal(my, F.one_hot(y.flip(0), 10).float())

# ---- the functions

@pytest.mark.smoke
@ways
@quick
@given(seed=seeds, n=st.integers(1, 6), h=st.integers(1, 14), w=st.integers(1, 14), c=st.integers(1, 4),
       dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
def test_against_the_definition(way, seed, n, h, w, c, dtype):
    x,y,boxes,perm = case(seed, n, h, w, c, dtype)
    before = x.clone(), y.clone(), boxes.clone()
    mx,my = FUNCS[way][1](x, y, boxes, perm, 10)
    tol,rtol = (0, 0) if way == 'cut' else (1e-5 if dtype.itemsize > 2 else .04, .01)
    assert mx.dtype == dtype and mx.shape == x.shape
    assert my.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(mx.double(), one_by_one(way, x, boxes, perm).double(), atol=tol, rtol=rtol)
    lam = 1 - boxes[:,2]*boxes[:,3]/(h*w)
    assert torch.allclose(my.double(), soft_targets(y, lam, perm).double(), atol=1e-6)
    assert torch.allclose(my.sum(1), torch.ones(n, dtype=my.dtype))
    for a,b in zip((x, y, boxes), before): assert torch.equal(a, b) # nothing that was given is changed
    assert torch.equal(mx, FUNCS[way][0](x, boxes, perm)) # and it is deterministic

@quick
@given(seed=seeds, h=st.integers(1, 10), w=st.integers(1, 10))
def test_boxes_that_stick_out(seed, h, w):
    x,_,boxes,perm = case(seed, h=h, w=w, inside=False)
    mixed = cut_pairs(x, boxes, perm)
    for i,box in enumerate(boxes.tolist()):
        ref,at = x[i].clone(), visible(box, h, w)
        ref[(slice(None), *at)] = x[perm[i]][(slice(None), *at)]
        assert torch.equal(mixed[i], ref)
    keep = keep_mask(boxes, h, w)[:,None].expand_as(x)
    pasted = resize_pairs(x, boxes, perm)
    assert torch.equal(pasted[keep], x[keep]) and pasted.isfinite().all()

@ways
def test_everything_and_nothing(way):
    x,y,_,perm = case(0)
    n,_,h,w = x.shape
    full,none = torch.tensor([[0, 0, h, w]]).expand(n, 4), torch.tensor([[2, 3, 0, 0]]).expand(n, 4)
    mx,my = FUNCS[way][1](x, y, full, perm, 10)
    assert torch.allclose(mx, x[perm], atol=1e-6) and torch.equal(my, F.one_hot(y[perm], 10).float())
    mx,my = FUNCS[way][1](x, y, none, perm, 10)
    assert torch.equal(mx, x) and torch.equal(my, F.one_hot(y, 10).float())

@quick
@given(seed=seeds, way=st.sampled_from(['cut', 'resize']))
def test_the_order_of_the_batch_does_not_matter(seed, way):
    x,y,boxes,perm = case(seed)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    where = order.argsort() # where each image went
    f = FUNCS[way][1]
    for a,b in zip(f(x, y, boxes, perm, 10), f(x[order], y[order], boxes[order], where[perm[order]], 10)):
        assert torch.allclose(a[order], b, atol=1e-5)

@pytest.mark.smoke
@quick
@given(seed=seeds, box=st.tuples(st.integers(0, 19), st.integers(0, 19), st.integers(0, 15), st.integers(0, 15)))
def test_cutmix_is_torchvisions(seed, box):
    x,y,*_ = case(seed, h=16, w=20)
    left,right,top,bottom = sorted(box[:2]) + sorted(box[2:])
    theirs,lam = v2.CutMix(num_classes=10), 1 - (right-left)*(bottom-top)/(16*20)
    theirs.make_params = lambda flat: dict(box=(left, top, right, bottom), lam_adjusted=lam)
    boxes = torch.tensor([[top, left, bottom-top, right-left]]).expand(len(x), 4)
    for a,b in zip(cutmix(x, y, boxes, torch.arange(len(x)).roll(1), 10), theirs(x, y)):
        assert torch.allclose(a, b, atol=1e-6)

@quick
@given(size=st.integers(1, 40), start=st.integers(0, 39), length=st.integers(1, 40))
def test_the_matrix_is_a_resize(size, start, length):
    length = min(length, size); start = min(start, size-length)
    m = shrink_matrix(torch.tensor([start]), torch.tensor([length]), size)[0]
    x = torch.randn(1, 1, 1, size)
    ref = v2.functional.resize(x, [1, length], antialias=True).flatten()
    assert m.shape == (size, size) and torch.allclose(m.sum(1), torch.ones(size)) and (m >= 0).all()
    assert torch.allclose((m @ x.flatten())[start:start+length], ref, atol=1e-5)

@ways
def test_memory_formats_types_gradients_and_compilation(way):
    pairs,f = FUNCS[way]
    x,y,boxes,perm = case(1)
    ref = pairs(x, boxes, perm)
    for o in (x.to(memory_format=torch.channels_last), x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)):
        assert torch.allclose(pairs(o, boxes, perm), ref, atol=1e-6)
    assert isinstance(pairs(TensorImage(x), boxes, perm), TensorImage)
    leaf = x.clone().requires_grad_()
    pairs(leaf, boxes, perm).sum().backward()
    if way == 'cut': assert leaf.grad.sum().item() == pytest.approx(x.numel(), rel=1e-4)
    assert leaf.grad.isfinite().all()
    fast = torch.compile(f, fullgraph=True, backend='aot_eager')
    for a,b in zip(fast(x, y, boxes, perm, 10), f(x, y, boxes, perm, 10)): assert torch.allclose(a, b, atol=1e-5)

x4,y4,p4 = torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64), torch.arange(4)
b4 = torch.tensor([[0, 0, 1, 1]]*4)
@pytest.mark.parametrize('f', [keep_mask, kept_share])
def test_boxes_that_are_none(f):
    for boxes,words in ((torch.ones(2, 4), r'boxes is a torch.float32 .*int64 of shape \(n, 4\)'), (torch.ones(2, 3).long(), r'\(n, 4\)'),
                        (torch.tensor([[0, 0, 1, -1]]), 'boxes, height or width, holds -1')):
        with pytest.raises(BadInput, match=words): f(boxes, 4, 4)
    with pytest.raises(BadInput, match='h=0'): f(torch.zeros(1, 4).long(), 0, 4)

@pytest.mark.parametrize('f', [draw_boxes, draw_inner_boxes])
def test_sides_that_are_none(f):
    for side,words in ((torch.ones(2).long(), 'side is a torch.int64'), (torch.tensor([.5, 1.5]), 'side holds 1.5'), (.5, 'side is a float')):
        with pytest.raises(BadInput, match=words): f(side, 4, 4)

@pytest.mark.parametrize('f', [cut_pairs, resize_pairs])
def test_pairs_that_do_not_fit(f):
    x, boxes, perm = torch.rand(2, 3, 4, 4), torch.zeros(2, 4).long(), torch.tensor([1, 0])
    for args,words in (((x.byte(), boxes, perm), 'x is a torch.uint8'), ((x, boxes[:1], perm), r'boxes .*\(2, 4\)'), ((x, boxes, perm[:1]), r'perm .*\(2,\)')):
        with pytest.raises(BadInput, match=words): f(*args)

def test_the_functions_refuse():
    for change,words in ((dict(x=x4.byte()), 'x is a torch.uint8 of shape'), (dict(y=y4+10), 'y holds 10'),
                         (dict(x=x4[0]), 'a float tensor with 4 dimensions'), (dict(n_classes=0), 'n_classes=0'),
                         (dict(x=x4[:3]), r'must be int64 of shape \(3'), (dict(perm=p4+1), 'perm holds 4'),
                         (dict(boxes=b4.float()), r'boxes is a torch.float32 .* must be int64 of shape \(4, 4\)'),
                         (dict(boxes=-b4), 'height or width, holds -1')):
        args = {**dict(x=x4, y=y4, boxes=b4, perm=p4, n_classes=10), **change}
        for f in (cutmix, resizemix):
            with pytest.raises(BadInput, match=words): f(**args)

# ---- one contract for all callbacks that mix

MAKERS = dict(MixUp=MixUp, CutMix=CutMix, ResizeMix=ResizeMix,
              RandomMix=lambda: RandomMix([MixUp, CutMix, ResizeMix], [.25, .25, .25]))
every = pytest.mark.parametrize('make', MAKERS.values(), ids=MAKERS)

@pytest.fixture(scope='module')
def dls(tiny): return get_dls(tiny, 8, 32, workers=0)

def plain_dls(n=16, bs=4, dtype=torch.float32, soft=False, shape=(3, 8, 8)):
    "Loaders of random images, without fastai's types."
    g = torch.Generator().manual_seed(0)
    x = (torch.randn(n, *shape, generator=g)*40).to(dtype)
    y = torch.rand(n, 10, generator=g).softmax(1) if soft else torch.randint(0, 10, (n,), generator=g)
    items = [(x[i], y[i]) for i in range(n)]
    return DataLoaders(*[DataLoader(items, bs=bs, num_workers=0) for _ in range(2)], device=torch.device('cpu'))

class Watch(Callback):
    "Keeps what each batch was, and what became of it, just after its loss."
    order = 5
    def __init__(self): self.seen = []
    def after_loss(self):
        mix = next(o for o in self.learn.cbs if isinstance(o, MixUp))
        mix = mix.now if isinstance(mix, RandomMix) else mix
        drawn = {k: getattr(mix, k, None) for k in ('lam', 'perm', 'boxes')}
        self.seen.append(SimpleNamespace(
            x=self.x, y=self.y, pred=self.pred.detach().clone(), loss=self.loss_grad.item(), training=self.training,
            kind=type(mix).__name__, **drawn))

class Before(Callback):
    "Keeps the batches as they came."
    order = -9
    def __init__(self): self.xs = []
    def before_batch(self): self.xs.append(self.x.clone())

def trained(dls, cbs, loss=F.cross_entropy, arch=Pool, more=(), epochs=1):
    "What each training batch and each validation batch became."
    learn,watch = Learner(dls, arch(10), loss_func=loss, cbs=cbs), Watch()
    with no_output(learn): learn.fit(epochs, cbs=[watch, *more])
    return [o for o in watch.seen if o.training], [o for o in watch.seen if not o.training]

def wanted(o, x):
    "The images that a batch should have become, by the functions."
    if o.kind == 'MixUp': return mix_pairs(x, o.lam, o.perm)
    return {'CutMix': cut_pairs, 'ResizeMix': resize_pairs}[o.kind](x, o.boxes, o.perm) if o.kind != 'NoneType' else x

@pytest.mark.smoke
@every
def test_images_loss_and_validation(make):
    "Mixed as by the function, with the loss of the mixed targets; validation is plain."
    random.seed(1)
    before = Before()
    seen,valid = trained(plain_dls(shape=(3, 8, 12), n=80), make(), more=[before])
    for o,x in zip(seen, before.xs):
        assert torch.equal(o.x, wanted(o, x)) and o.x.dtype == x.dtype and o.x.device == x.device
        if o.boxes is not None: assert torch.equal(o.lam, kept_share(o.boxes, 8, 12))
        soft = F.one_hot(o.y, 10).float() if o.kind == 'NoneType' else soft_targets(o.y, o.lam, o.perm)
        assert o.loss == pytest.approx(F.cross_entropy(o.pred, soft).item(), rel=1e-4, abs=1e-5)
    for o,x in zip(valid, before.xs[20:]):
        assert torch.equal(o.x, x) and o.loss == pytest.approx(F.cross_entropy(o.pred, o.y).item(), rel=1e-4)
    assert len(seen) == len(valid) == 20 and any(not torch.equal(o.x, x) for o,x in zip(seen, before.xs))
    if make is MAKERS['RandomMix']: assert {o.kind for o in seen} == {'MixUp', 'CutMix', 'ResizeMix', 'NoneType'}

@every
def test_losses_and_targets(make):
    for loss,eps in ((nn.CrossEntropyLoss(label_smoothing=.1), .1), (LabelSmoothingCrossEntropy(.2), .2),
                     (partial(F.cross_entropy, reduction='sum'), 0.), (MSELossFlat(), None)):
        for soft in (False, True):
            if eps is None and not soft: continue
            for o in trained(plain_dls(soft=soft), make(), loss)[0]:
                target = F.one_hot(o.y, 10).float() if o.y.ndim == 1 else o.y
                if o.kind != 'NoneType': target = soft_targets(target, o.lam, o.perm)
                want = (F.mse_loss(o.pred, target) if eps is None else
                        F.cross_entropy(o.pred, target, label_smoothing=eps, reduction='mean' if eps else 'sum'))
                assert o.loss == pytest.approx(want.item(), rel=1e-4, abs=1e-5)

@every
def test_batches_of_all_kinds(make):
    "Half floats, a last batch of one image, images of a pixel, the same tensors again; whole numbers are refused."
    for dtype in (torch.bfloat16, torch.float16):
        seen,_ = trained(plain_dls(dtype=dtype), make(), LabelSmoothingCrossEntropy(), lambda n: Pool(n).to(dtype))
        assert all(o.x.dtype == dtype and math.isfinite(o.loss) for o in seen)
    seen,_ = trained(plain_dls(9, 4), make())
    assert [len(o.y) for o in seen] == [4, 4, 1]
    assert seen[-1].loss == pytest.approx(F.cross_entropy(seen[-1].pred, seen[-1].y).item(), abs=1e-5)
    assert all(math.isfinite(o.loss) for o in trained(plain_dls(shape=(3, 1, 1)), make())[0])
    items = torch.randn(8, 3, 8, 8), torch.arange(8) # a loader may give the same tensors again and again
    before,learn = items[0].clone(), Learner(plain_dls(8), Pool(10), loss_func=F.cross_entropy, cbs=make())
    learn.dls.train.create_batches = lambda _: iter([items, items])
    with no_output(learn): learn.fit(2)
    assert torch.equal(items[0], before)
    random.seed(0)
    with pytest.raises(BadInput, match='x is a torch.uint8'): trained(plain_dls(64, dtype=torch.uint8), make())

class Raise(Callback):
    order = 9
    def __init__(self, event, ex): setattr(self, event, self.fail); self.ex = ex
    def fail(self):
        if self.learn.training: raise self.ex

@every
def test_nothing_is_left_patched(make):
    loss = CrossEntropyLossFlat()
    learn = Learner(plain_dls(), Pool(10), loss_func=loss, cbs=make())
    with no_output(learn):
        for event in ('before_batch', 'after_pred', 'after_loss'):
            for ex in (KeyboardInterrupt(), RuntimeError('stop'), CancelFitException()):
                try: learn.fit(1, cbs=Raise(event, ex))
                except (KeyboardInterrupt, RuntimeError): pass
                assert learn.loss_func is loss and loss.reduction == 'mean'
        learn.fit(1) # and it goes on
        assert learn.validate()[0] == pytest.approx(reference(learn)[0], abs=1e-4)

def reference(learn):
    "Validation loss, accuracy and probabilities, by hand."
    batches = [(learn.model.eval()(x).detach(), y) for x,y in learn.dls.valid]
    logits,y = (torch.cat(o).as_subclass(torch.Tensor) for o in zip(*batches))
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item(), logits.softmax(1)

@every
def test_gradient_accumulation(make):
    "Four batches of 4 with one step: fastai divides each loss by 16/4."
    class Grads(Callback):
        order = 7 # after accumulation
        def __init__(self): self.losses = []
        def after_loss(self): self.losses.append(self.loss_grad.item()) if self.training else None
    grads = Grads()
    seen,_ = trained(plain_dls(), make(), more=[GradientAccumulation(16), grads])
    assert [o.loss/4 for o in seen] == pytest.approx(grads.losses, rel=1e-5)

@every
def test_what_comes_after_sees_plain_images(dls, make, tmp_path):
    "The record, get_preds, predict, tta, the rate finder, an exported learner, a saved and a loaded one."
    learn = get_learner(dls, Pool, cbs=make())
    for _ in range(2): run = fit(learn, 1, 1e-2, show=False) # two fits
    loss,acc,probs = reference(learn)
    file = dls.valid_ds.items[3]
    def same(learner): return torch.allclose(learner.predict(file)[2].as_subclass(torch.Tensor), probs[3], atol=1e-5)
    assert run.accuracy == pytest.approx(acc, abs=1e-6)
    assert run.history[-1]['valid_loss'] == pytest.approx(loss, abs=1e-5)
    learn.path = tmp_path
    with learn.no_bar():
        assert torch.allclose(learn.get_preds()[0].as_subclass(torch.Tensor), probs, atol=1e-5) and same(learn)
        set_seed(0); views = learn.tta(n=1)[0]
        with learn.removed_cbs(learn.cbs.filter(lambda o: isinstance(o, MixUp))): set_seed(0); plain = learn.tta(n=1)[0]
        assert torch.equal(views, plain) # it takes no part
        learn.lr_find(num_it=8, show_plot=False)
        learn.export('a.pkl'); learn.save('weights')
    loaded = load_learner(tmp_path/'a.pkl')
    with loaded.no_bar(): assert same(loaded)
    other = get_learner(dls, Pool, cbs=make(), seed=7)
    other.path = tmp_path
    other.load('weights')
    assert reference(other)[0] == reference(learn)[0]

@every
def test_the_same_seed_makes_the_same_training(dls, make):
    "Bit for bit, of a copy and of a pickle, too; two fits of one learner each have a seed of their own."
    def one(cb, seed):
        learn,watch = get_learner(dls, Pool, cbs=cb, seed=seed), Watch()
        runs = [fit(learn, 1, 1e-2, cbs=watch, show=False) for _ in range(2)]
        return [o.loss for o in watch.seen], [o.history[-1]['valid_loss'] for o in runs]
    a,b = one(make(), 3), one(make(), 4)
    assert a == one(copy.deepcopy(make()), 3) == one(pickle.loads(pickle.dumps(make())), 3)
    assert a[0] != b[0] and a[0][:5] != a[0][5:]

def test_two_that_mix_are_refused():
    "One in the learner, one for a fit alone."
    for a,b in ((MixUp, MixUp), (MixUp, CutMix), (FastaiMixUp, CutMix), (MAKERS['RandomMix'], MixUp),
                (ResizeMix, FastaiCutMix)):
        learn = Learner(plain_dls(), Pool(10), loss_func=F.cross_entropy, cbs=a())
        with no_output(learn), pytest.raises(BadInput, match='are in the learner: both would mix the images'):
            learn.fit(1, cbs=b())

def test_growing_images(tiny):
    "Mixed at the size of the loaders, then shrunken; the shares stay those of the boxes."
    dls = cached_dls(tiny, 8, 48)
    for make in (CutMix, ResizeMix):
        cbs,watch = [make(), ProgressiveResize(32, 48, step=16)], Watch()
        learn = fast_learner(dls, partial(xresnet18, widen=.125), cbs=cbs)
        fit(learn, 2, 1e-2, cbs=watch, show=False)
        seen = [o for o in watch.seen if o.training]
        assert {o.x.shape[-1] for o in seen} == {32, 48}
        for o in seen: assert torch.allclose(o.lam, kept_share(o.boxes, 48, 48))

# ---- what each has of its own

def test_cutmix_is_fastais(dls):
    "The same box, order and weights: images, loss and gradients agree."
    set_seed(0)
    batch = dls.one_batch()
    box = torch.tensor([[5, 8, 20, 24]]).expand(len(batch[1]), 4)
    def step(cb, order=None):
        learn = get_learner(dls, Pool)
        learn.training,learn.xb,learn.yb = True, (batch[0].clone(),), batch[1:]
        with learn.added_cbs(cb):
            if order is None: cb.rand_bbox = lambda W, H, lam: (8, 5, 32, 25) # left, top, right, bottom
            else: cb.draw = lambda: vars(cb).update(boxes=box, lam=kept_share(box, 32, 32), perm=order)
            getattr(cb, 'before_train', lambda: None)()
            torch.manual_seed(7); cb.before_batch()
            learn.pred = learn.model(*learn.xb)
            learn.loss_grad = learn.loss_func(learn.pred, *learn.yb)
            if hasattr(cb, 'after_loss'): cb.after_loss()
            learn.loss_grad.backward()
            getattr(cb, 'after_train', lambda: None)()
            return learn.x, learn.loss_grad.item(), learn.model[-1].weight.grad.clone()
    theirs = FastaiCutMix()
    ref = step(theirs)
    torch.manual_seed(7); theirs.distrib.sample((1,)); order = torch.randperm(len(batch[1]))
    got = step(CutMix(), order)
    assert torch.equal(got[0], ref[0]) and got[1] == pytest.approx(ref[1], abs=1e-5)
    assert torch.allclose(got[2], ref[2], atol=1e-5)

def test_what_a_run_says_of_them(dls):
    for cbs,name in ((MixUp, 'MixUp'), (CutMix(1.), 'CutMix'), (CutMix(.5), 'CutMix(alpha=0.5)'),
                     (ResizeMix(.2, .5), 'ResizeMix(min_side=0.2, max_side=0.5)'),
                     (RandomMix([MixUp, CutMix(.3)], [.5, .4]), 'RandomMix(mixes=0.5 MixUp(0.4) + 0.4 CutMix(0.3))')):
        assert fit(get_learner(dls, Pool), 1, 1e-2, cbs=cbs, show=False).settings['cbs'] == [name]
    make = lambda p: get_learner(dls, Pool, cbs=RandomMix([CutMix], [p]))
    with pytest.raises(BadInput, match='give them two names'):
        compare([fit(make(p), 1, 1e-2, name='mixed', show=False) for p in (.5, .6)])

def test_the_callbacks_refuse():
    for make,words in ((lambda: CutMix(0), 'alpha=0: it must be a number above 0'),
                       (lambda: ResizeMix(0), 'min_side=0: it must be a number above 0 and 0.8 or less'),
                       (lambda: ResizeMix(.1, 1.1), 'max_side=1.1'),
                       (lambda: ResizeMix(.5, .4), 'min_side=0.5: it must be a number above 0 and 0.4 or less'),
                       (lambda: RandomMix([FastaiMixUp()], [.5]), r'class of mixes\[0\]=<class .fastai.callback.mixup'),
                       (lambda: RandomMix([MixUp, 3], [.5, .5]), r'class of mixes\[1\]'),
                       (lambda: RandomMix([MixUp], [.5, .5]), r'len\(p\)=2: it must be 1'),
                       (lambda: RandomMix([MixUp, CutMix], [.7, .4]), r'sum\(p\)=1.1'),
                       (lambda: RandomMix([MixUp], [-.1]), r'p\[0\]=-0.1')):
        with pytest.raises(BadInput, match=words): make()

def test_random_mix_picks_with_its_probabilities():
    mix = RandomMix([MixUp, CutMix, ResizeMix], [.4, .3, .2])
    mix.learn = SimpleNamespace()
    mix.pass_on = lambda event: None
    random.seed(0)
    kinds = []
    for _ in range(5000): mix.before_batch(); kinds.append(type(mix.now).__name__)
    counts = [kinds.count(o) for o in ('MixUp', 'CutMix', 'ResizeMix', 'NoneType')]
    assert stats.chisquare(counts, [2000, 1500, 1000, 500]).pvalue > 1e-3

def test_random_mix_at_the_ends():
    for p,kind in (([1., 0.], 'MixUp'), ([0, 1], 'CutMix'), ([0, 0], 'NoneType')):
        assert {o.kind for o in trained(plain_dls(), RandomMix([MixUp, CutMix], p))[0]} == {kind}
    RandomMix([CutMix]*10, [.1]*10) # ten tenths are one

# ---- on a GPU

@pytest.mark.gpu
def test_on_the_gpu_as_on_the_cpu():
    x,y,boxes,perm = case(3, 64, 32, 40)
    for f,dtype,tol in ((cutmix, torch.float32, 1e-5), (resizemix, torch.float32, 1e-5),
                        (resizemix, torch.bfloat16, .05)):
        a = f(x.to(dtype), y, boxes, perm, 10)
        b = f(x.to(dtype).cuda(), y.cuda(), boxes.cuda(), perm.cuda(), 10)
        for o,p in zip(a, b): assert p.is_cuda and torch.allclose(o.float(), p.float().cpu(), atol=tol)

@pytest.mark.gpu
@every
def test_a_step_never_waits_for_the_gpu(make):
    x,y = torch.randn(64, 3, 32, 32, device='cuda'), torch.randint(0, 10, (64,), device='cuda')
    model,cb = Pool(10).cuda(), make()
    cb.learn = SimpleNamespace(xb=(x,), x=x, yb=(y,), y=y, loss_func=LabelSmoothingCrossEntropy(), training=True)
    def step():
        cb.learn.xb = cb.learn.x,
        cb.before_batch()
        cb.learn.pred = model(*cb.learn.xb)
        cb.learn.loss_grad = F.cross_entropy(cb.learn.pred, y)
        cb.after_loss()
        cb.learn.loss_grad.backward()
    step()
    torch.cuda.set_sync_debug_mode('error')
    try:
        for _ in range(10): step() # `RandomMix` comes to each of its callbacks
    finally: torch.cuda.set_sync_debug_mode('default')

@pytest.mark.gpu
def test_training_on_the_gpu_in_bf16(tiny):
    learn = get_learner(get_dls(tiny, 8, 32, workers=0), Pool, cbs=MAKERS['RandomMix']()).to_bf16()
    assert math.isfinite(fit(learn, 1, 1e-2, show=False).history[-1]['train_loss'])
