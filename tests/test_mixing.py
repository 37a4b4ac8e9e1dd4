"Boxes, shares, CutMix and ResizeMix as functions and callbacks, and several of them in one training."
import copy, math, pickle, random
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from scipy import stats
from torch import nn

from imagenette_course.baseline import compare, fit, get_learner, no_output
from imagenette_course.core import BadInput
from imagenette_course.dataset import get_dls
from imagenette_course.mixing import *
from imagenette_course.mixing import CutMix, shrink_matrix # fastai exports another CutMix
from imagenette_course.mixup import MixUp, draw_lam, mixup
from imagenette_course.resize import ProgressiveResize, resize_batch
from imagenette_course.smoothing import LabelSmoothingCrossEntropy
from imagenette_course.speed import cached_dls, fast_learner
from fastai.callback.mixup import CutMix as FastaiCutMix, MixUp as FastaiMixUp
from fastai.vision.all import (Callback, CancelFitException, CrossEntropyLossFlat, DataLoader, DataLoaders, GradientAccumulation, Learner,
    MSELossFlat, TensorImage, load_learner, set_seed, xresnet18)
from torchvision.transforms import v2

quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)
ways = pytest.mark.parametrize('way', ['cut', 'resize'])
FUNCS = dict(cut=(cut_pairs, cutmix), resize=(resize_pairs, resizemix))
CBS = dict(cut=CutMix, resize=ResizeMix)

class Pool(nn.Sequential):
    "A network of milliseconds: mean colours of four quarters, and one linear layer."
    def __init__(self, n_out): super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, n_out))

def case(seed, n=5, h=7, w=9, c=3, dtype=torch.float32, inside=True):
    "A random batch: images, labels, boxes, partners. The boxes have a pixel at least, or stick out, or are empty."
    g = torch.Generator().manual_seed(seed)
    def draw(lo, hi): return torch.randint(lo, hi, (n,), generator=g)
    if inside:
        height,width = draw(1, h+1), draw(1, w+1)
        top,left = ((torch.rand(n, generator=g)*(size - length + 1)).long().clamp(max=size - length) for size,length in ((h, height), (w, width)))
    else: top,left,height,width = draw(-h, 2*h), draw(-w, 2*w), draw(0, 2*h), draw(0, 2*w)
    x = torch.randn(n, c, h, w, generator=g).to(dtype)
    return x, draw(0, 10), torch.stack([top, left, height, width], 1), torch.randperm(n, generator=g)

def visible(box, h, w):
    "Rows and columns of a box inside the image."
    t,l,bh,bw = box
    return slice(max(t, 0), max(min(t+bh, h), 0)), slice(max(l, 0), max(min(l+bw, w), 0))

def lines(x, n):
    "PyTorch's resize, along the last dimension. (Of a whole image it repeats the first row on a CPU where the width is 1.)"
    return F.interpolate(x.reshape(-1, 1, 1, x.shape[-1]), size=(1, n), mode='bilinear', antialias=True).reshape(*x.shape[:-1], n)

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

# masks and shares

@quick
@given(seed=seeds, h=st.integers(1, 12), w=st.integers(1, 12), inside=st.booleans())
def test_mask_and_share_against_slices(seed, h, w, inside):
    _,_,boxes,_ = case(seed, h=h, w=w, inside=inside)
    ref = torch.ones(len(boxes), h, w, dtype=torch.bool)
    for i,box in enumerate(boxes.tolist()): ref[(i, *visible(box, h, w))] = False
    assert torch.equal(keep_mask(boxes, h, w), ref)
    assert torch.allclose(kept_share(boxes, h, w).double(), ref.double().mean((1, 2)), atol=1e-6)

@pytest.mark.parametrize('box,share', [((0, 0, 10, 10), 0.), ((0, 0, 5, 10), .5), ((-5, -5, 10, 10), .75), ((5, 5, 10, 10), .75), ((-5, 0, 10, 10), .5),
                                       ((0, 9, 10, 9), .9), ((10, 10, 5, 5), 1.), ((-5, -5, 5, 5), 1.), ((3, 3, 0, 5), 1.), ((-9, -9, 99, 99), 0.)])
def test_the_share_at_the_borders(box, share):
    "Only what lies inside counts: a box that sticks out by half is worth half."
    assert kept_share(torch.tensor([box]), 10, 10).item() == pytest.approx(share, abs=1e-6)

def test_the_target_is_what_can_be_seen():
    "Images of one colour each: the target can be read from the mean of the picture."
    x = torch.eye(4)[:,:,None,None].expand(4, 4, 16, 24).clone() # image i is 1 in channel i
    y,perm = torch.arange(4), torch.tensor([1, 2, 3, 0])
    for boxes in (draw_boxes(torch.tensor([.2, .5, .9, 1.]), 16, 24), torch.tensor([[-4, -4, 8, 8], [12, 20, 8, 8], [0, 0, 16, 24], [3, 3, 0, 0]])):
        for f in (cutmix, resizemix):
            mx,my = f(x, y, boxes, perm, 4)
            assert torch.allclose(mx.mean((2, 3)), my, atol=1e-5)

@pytest.mark.parametrize('boxes', [None, [[0, 0, 1, 1]], torch.zeros(2, 4), torch.zeros(4, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64),
                                   torch.zeros(2, 4, dtype=torch.int32)])
def test_boxes_are_checked(boxes):
    for f in (keep_mask, kept_share):
        with pytest.raises(BadInput, match=r'boxes is .*: it must be int64 of shape \(n, 4\): top, left, height, width'): f(boxes, 4, 4)

def test_sides_are_checked():
    good = torch.tensor([[0, 0, 1, 1]])
    for f in (keep_mask, kept_share):
        with pytest.raises(BadInput, match='boxes, height or width, holds -1'): f(torch.tensor([[0, 0, 1, -1]]), 4, 4)
        with pytest.raises(BadInput, match='h=0'): f(good, 0, 4)
        with pytest.raises(BadInput, match='w=2.5'): f(good, 4, 2.5)
    for f in (draw_boxes, draw_inner_boxes):
        for side,words in ((torch.tensor([1.1]), 'side holds 1.1'), (torch.tensor([-.1]), 'side holds -0.1'), (torch.tensor([float('nan')]), 'side holds nan'),
                           (torch.tensor([1]), 'side is a torch.int64'), (.5, 'side is a float'), (torch.rand(2, 2), 'side is a torch.float32 of shape')):
            with pytest.raises(BadInput, match=words): f(side, 4, 4)
        with pytest.raises(BadInput, match='h=0'): f(torch.rand(2), 0, 4)

# drawing

@quick
@given(seed=seeds, n=st.integers(0, 20), h=st.integers(1, 40), w=st.integers(1, 40), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
def test_drawn_boxes_lie_inside(seed, n, h, w, dtype):
    torch.manual_seed(seed)
    side = torch.rand(n).to(dtype)
    for f in (draw_boxes, draw_inner_boxes):
        boxes = f(side, h, w)
        assert boxes.shape == (n, 4) and boxes.dtype == torch.int64
        assert (boxes >= 0).all() and (boxes[:,:2] + boxes[:,2:] <= torch.tensor([h, w])).all()
    assert (boxes[:,2:] >= 1).all() and torch.equal(boxes[:,2], (side.float()*h).round().clamp(min=1).long())

@pytest.mark.parametrize('h,w', [(64, 64), (48, 80), (1000, 700)])
def test_cutmix_shares_have_the_mean_of_the_formula(h, w):
    set_seed(0)
    share = 1 - kept_share(draw_boxes((1 - draw_lam(20_000, 1.)).sqrt(), h, w), h, w)
    assert share.mean().item() == pytest.approx(1/2 - 1/5 + 1/48, abs=.008) # 4 standard errors

@pytest.mark.parametrize('alpha', [.3, 1.])
def test_cutmix_shares_are_torchvisions(alpha):
    set_seed(0)
    n,flat = 600, [torch.empty(1, 3, 1000, 800)]
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
    for at,n in ((boxes[:,0], 9), (boxes[:,1], 5)): assert stats.chisquare(torch.bincount(at, minlength=n).numpy()).pvalue > 1e-4

def test_images_of_one_pixel():
    set_seed(0)
    boxes = draw_boxes(torch.full((4000,), .5), 1, 1)
    share = kept_share(boxes, 1, 1)
    assert set(share.tolist()) == {0., 1.} # all of it or nothing
    assert (share == 0).float().mean().item() == pytest.approx(.25, abs=.03) # a half in each direction, none of which can be cut in two
    x,y = torch.randn(2, 3, 1, 1), torch.tensor([3, 4])
    for f in (cutmix, resizemix):
        mx,my = f(x, y, draw_inner_boxes(torch.rand(2), 1, 1), torch.tensor([1, 0]), 10)
        assert torch.allclose(mx, x.flip(0)) and torch.equal(my, F.one_hot(y.flip(0), 10).float())

# the functions

@ways
@quick
@given(seed=seeds, n=st.integers(1, 6), h=st.integers(1, 14), w=st.integers(1, 14), c=st.integers(1, 4),
       dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
def test_against_the_definition(way, seed, n, h, w, c, dtype):
    x,y,boxes,perm = case(seed, n, h, w, c, dtype)
    before = x.clone(), y.clone(), boxes.clone()
    mx,my = FUNCS[way][1](x, y, boxes, perm, 10)
    tol = 0 if way == 'cut' else {torch.float64: 1e-5, torch.float32: 1e-5}.get(dtype, .04)
    assert mx.dtype == dtype and mx.shape == x.shape and my.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(mx.double(), one_by_one(way, x, boxes, perm).double(), atol=tol, rtol=0 if way == 'cut' else .01)
    lam = 1 - boxes[:,2]*boxes[:,3]/(h*w)
    assert torch.allclose(my.double(), soft_targets(y, lam, perm).double(), atol=1e-6) and torch.allclose(my.sum(1), torch.ones(n, dtype=my.dtype))
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

@ways
@quick
@given(seed=seeds)
def test_the_order_of_the_batch_does_not_matter(way, seed):
    x,y,boxes,perm = case(seed)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    where = order.argsort() # where each image went
    f = FUNCS[way][1]
    for a,b in zip(f(x, y, boxes, perm, 10), f(x[order], y[order], boxes[order], where[perm[order]], 10)): assert torch.allclose(a[order], b, atol=1e-5)

@quick
@given(seed=seeds, box=st.tuples(st.integers(0, 19), st.integers(0, 19), st.integers(0, 15), st.integers(0, 15)))
def test_cutmix_is_torchvisions(seed, box):
    x,y,*_ = case(seed, h=16, w=20)
    left,right,top,bottom = sorted(box[:2]) + sorted(box[2:])
    theirs = v2.CutMix(num_classes=10)
    theirs.make_params = lambda flat: dict(box=(left, top, right, bottom), lam_adjusted=1 - (right-left)*(bottom-top)/(16*20))
    boxes = torch.tensor([[top, left, bottom-top, right-left]]).expand(len(x), 4)
    for a,b in zip(cutmix(x, y, boxes, torch.arange(len(x)).roll(1), 10), theirs(x, y)): assert torch.allclose(a, b, atol=1e-6)

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
def test_memory_formats_types_and_gradients(way):
    pairs = FUNCS[way][0]
    x,_,boxes,perm = case(1)
    ref = pairs(x, boxes, perm)
    for o in (x.to(memory_format=torch.channels_last), x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)):
        assert torch.allclose(pairs(o, boxes, perm), ref, atol=1e-6)
    assert isinstance(pairs(TensorImage(x), boxes, perm), TensorImage)
    leaf = x.clone().requires_grad_()
    pairs(leaf, boxes, perm).sum().backward()
    assert leaf.grad.sum().item() == pytest.approx(x.numel(), rel=1e-4) if way == 'cut' else leaf.grad.isfinite().all()

@ways
def test_it_compiles(way):
    f = FUNCS[way][1]
    args = (*case(0), 10)
    for a,b in zip(torch.compile(f, fullgraph=True, backend='aot_eager')(*args), f(*args)): assert torch.allclose(a, b, atol=1e-5)

x4,y4,p4,b4 = torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64), torch.arange(4), torch.tensor([[0, 0, 1, 1]]*4)
@ways
@pytest.mark.parametrize('change,words', [
    (dict(x=x4.byte()), 'x is a torch.uint8 of shape'), (dict(x=x4[0]), r'x is a torch.float32 of shape \(3, 2, 2\): it must be a float tensor with 4'),
    (dict(x=x4[:3]), 'y has 4 labels: x has 3 images'), (dict(y=y4+10), 'y holds 10'), (dict(y=y4.float()), 'y is a torch.float32'), (dict(n_classes=0), 'n_classes=0'),
    (dict(boxes=b4[:3]), 'boxes holds 3 boxes: x has 4 images'), (dict(boxes=b4.float()), 'boxes is torch.float32'), (dict(boxes=-b4), 'height or width, holds -1'),
    (dict(perm=p4[:3]), r'perm is torch.int64 of shape \(3,\)'), (dict(perm=p4+1), 'perm holds 4'), (dict(perm=[0, 1, 2, 3]), 'perm is list')])
def test_the_functions_refuse(way, change, words):
    args = {**dict(x=x4, y=y4, boxes=b4, perm=p4, n_classes=10), **change}
    with pytest.raises(BadInput, match=words): FUNCS[way][1](**args)
    if not change.keys() & {'y', 'n_classes'} and 'labels' not in words:
        with pytest.raises(BadInput, match=words): FUNCS[way][0](args['x'], args['boxes'], args['perm'])

# in training

@pytest.fixture(scope='module')
def dls(tiny): return get_dls(tiny, 8, 32, workers=0)

def plain_dls(n=16, bs=4, dtype=torch.float32, soft=False, shape=(3, 8, 8)):
    "Loaders of random images, without fastai's types."
    g = torch.Generator().manual_seed(0)
    x = (torch.randn(n, *shape, generator=g)*40).to(dtype)
    y = torch.rand(n, 10, generator=g).softmax(1) if soft else torch.randint(0, 10, (n,), generator=g)
    dl = DataLoader([(x[i], y[i]) for i in range(n)], bs=bs, num_workers=0)
    return DataLoaders(dl, DataLoader([(x[i], y[i]) for i in range(n)], bs=bs, num_workers=0), device=torch.device('cpu'))

class Watch(Callback):
    "Keeps what each training batch was, just after its loss."
    order = 5
    def __init__(self): self.seen = []
    def after_loss(self):
        if not self.training: return
        mix = next(o for o in self.learn.cbs if isinstance(o, (MixUp, RandomMix)))
        mix = mix.now if isinstance(mix, RandomMix) else mix
        self.seen.append(SimpleNamespace(x=self.x, y=self.y, pred=self.pred.detach().clone(), loss=self.loss_grad.item(), kind=type(mix).__name__,
                                         lam=getattr(mix, 'lam', None), perm=getattr(mix, 'perm', None), boxes=getattr(mix, 'boxes', None)))

def trained(dls, cbs, loss=None, arch=Pool, more=(), epochs=1):
    "A learner after training, and what it saw."
    learn,watch = Learner(dls, arch(10), loss_func=loss or F.cross_entropy, cbs=cbs), Watch()
    with no_output(learn): learn.fit(epochs, cbs=[watch, *more])
    return learn, watch.seen

@ways
@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('loss', [F.cross_entropy, nn.CrossEntropyLoss(label_smoothing=.1), LabelSmoothingCrossEntropy(.1), partial(F.cross_entropy, reduction='sum')],
                         ids=['function', 'torch', 'ours', 'sum'])
def test_the_loss_is_the_loss_of_the_mixed_targets(way, soft, loss):
    _,seen = trained(plain_dls(soft=soft), CBS[way], loss)
    plain = getattr(loss, 'func', None) is F.cross_entropy
    eps = getattr(loss, 'label_smoothing', getattr(loss, 'eps', 0.))
    for o in seen:
        assert torch.equal(o.lam, kept_share(o.boxes, 8, 8))
        ref = F.cross_entropy(o.pred, soft_targets(o.y, o.lam, o.perm), label_smoothing=eps, reduction='sum' if plain else 'mean')
        assert o.loss == pytest.approx(ref.item(), rel=1e-4, abs=1e-5)

@ways
def test_regression(way):
    _,seen = trained(plain_dls(soft=True), CBS[way], MSELossFlat())
    for o in seen: assert o.loss == pytest.approx(F.mse_loss(o.pred, soft_targets(o.y, o.lam, o.perm)).item(), rel=1e-4)

@ways
def test_the_images_are_those_of_the_function(way):
    class Before(Callback):
        order = -2
        def __init__(self): self.xs = []
        def before_batch(self): self.xs.append(self.x.clone()) if self.training else None
    before = Before()
    learn,seen = trained(plain_dls(shape=(3, 8, 12)), CBS[way], more=[before])
    assert len(seen) == 4
    for o,x in zip(seen, before.xs):
        assert torch.equal(o.x, FUNCS[way][0](x, o.boxes, o.perm))
        assert o.boxes.shape == (4, 4) and len(o.boxes.unique(dim=0)) > 1 # a box for each image
    assert not all(torch.equal(o.x, x) for o,x in zip(seen, before.xs)) # a single batch may have met itself

@ways
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_floats(way, dtype):
    learn,seen = trained(plain_dls(dtype=dtype), CBS[way], arch=lambda n: Pool(n).to(dtype))
    assert all(o.x.dtype == dtype and math.isfinite(o.loss) for o in seen)

@ways
def test_what_can_not_be_mixed_is_refused(way):
    for dls,words in ((plain_dls(dtype=torch.uint8), 'x is a torch.uint8'), (plain_dls(shape=(12,)), r'x is a torch.float32 of shape \(4, 12\)')):
        learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), loss_func=F.cross_entropy, cbs=CBS[way])
        with no_output(learn), pytest.raises(BadInput, match=words): learn.fit(1)

@ways
def test_a_last_batch_of_one_image(way):
    _,seen = trained(plain_dls(9, 4), CBS[way])
    assert [len(o.y) for o in seen] == [4, 4, 1]
    assert seen[-1].loss == pytest.approx(F.cross_entropy(seen[-1].pred, seen[-1].y).item(), abs=1e-5)

@ways
def test_one_pixel_images_in_training(way):
    _,seen = trained(plain_dls(shape=(3, 1, 1)), CBS[way])
    assert all(set(o.lam.tolist()) <= {0., 1.} and math.isfinite(o.loss) for o in seen)

@ways
def test_the_batch_of_the_loader_is_not_changed(way):
    items = torch.randn(8, 3, 8, 8), torch.arange(8)
    before = items[0].clone()
    learn = Learner(plain_dls(8), Pool(10), loss_func=F.cross_entropy, cbs=CBS[way])
    learn.dls.train.create_batches = lambda _: iter([items, items])
    with no_output(learn): learn.fit(2)
    assert torch.equal(items[0], before)

def test_cutmix_is_fastais(dls):
    "The same box, order and weights: images, loss and gradients agree."
    set_seed(0)
    batch = dls.one_batch()
    box = torch.tensor([[5, 8, 20, 24]]).expand(len(batch[1]), 4)
    def step(cb, order=None):
        learn = get_learner(dls, Pool)
        learn.training,learn.xb,learn.yb = True, (batch[0].clone(),), batch[1:]
        with learn.added_cbs(cb):
            if order is not None: cb.draw = lambda: [setattr(cb, k, v) for k,v in dict(boxes=box, lam=kept_share(box, 32, 32), perm=order).items()]
            else: cb.rand_bbox = lambda W, H, lam: (8, 5, 32, 25) # left, top, right, bottom
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
    assert torch.equal(got[0], ref[0]) and got[1] == pytest.approx(ref[1], abs=1e-5) and torch.allclose(got[2], ref[2], atol=1e-5)

def test_class_or_instance(dls):
    for cbs,name in ((CutMix, 'CutMix'), (CutMix(1.), 'CutMix'), (CutMix(.5), 'CutMix(alpha=0.5)'), (ResizeMix, 'ResizeMix'), (ResizeMix(.2, .5), 'ResizeMix(min_side=0.2, max_side=0.5)'),
                     (RandomMix([MixUp, CutMix(.3)], [.5, .4]), 'RandomMix(mixes=0.5 MixUp(0.4) + 0.4 CutMix(0.3))')):
        assert fit(get_learner(dls, Pool), 1, 1e-2, cbs=cbs, show=False).settings['cbs'] == [name]

@pytest.mark.parametrize('args,words', [((0,), 'min_side=0: it must be above 0'), ((-.1,), 'min_side=-0.1'), ((.5, .4), 'min_side=0.5'), ((.1, 1.1), 'max_side=1.1'),
                                        (('a',), "min_side='a'"), ((.1, None), 'max_side=None'), ((.1, float('nan')), 'max_side=nan')])
def test_resizemix_refuses(args, words):
    with pytest.raises(BadInput, match=words): ResizeMix(*args)

@pytest.mark.parametrize('alpha', [0, -1., float('nan'), '1', None])
def test_cutmix_refuses(alpha):
    with pytest.raises(BadInput, match='alpha=.*: it must be a number above 0'): CutMix(alpha)

# several in one training

class Hooked(MixUp):
    "Needs an event that `RandomMix` does not pass on."
    def after_pred(self): pass

def test_random_mix_picks_with_its_probabilities():
    mix = RandomMix([MixUp, CutMix, ResizeMix], [.4, .3, .2])
    mix.learn = SimpleNamespace()
    mix.pass_on = lambda event: None
    random.seed(0)
    kinds = []
    for _ in range(5000): mix.before_batch(); kinds.append(type(mix.now).__name__)
    counts = [kinds.count(o) for o in ('MixUp', 'CutMix', 'ResizeMix', 'NoneType')]
    assert stats.chisquare(counts, [2000, 1500, 1000, 500]).pvalue > 1e-3

def test_random_mix_in_training():
    "Each batch is mixed by one of them, or by none, and its loss is the one that belongs to it."
    random.seed(1)
    learn,seen = trained(plain_dls(64), RandomMix([MixUp, CutMix, ResizeMix], [.3, .3, .3]), epochs=2)
    assert {o.kind for o in seen} == {'MixUp', 'CutMix', 'ResizeMix', 'NoneType'}
    for o in seen:
        soft = F.one_hot(o.y, 10).float() if o.kind == 'NoneType' else soft_targets(o.y, o.lam, o.perm)
        assert o.loss == pytest.approx(F.cross_entropy(o.pred, soft).item(), rel=1e-4, abs=1e-5)

@pytest.mark.parametrize('p,kind', [([1., 0.], 'MixUp'), ([0, 1], 'CutMix'), ([0, 0], 'NoneType')])
def test_random_mix_at_the_ends(p, kind):
    _,seen = trained(plain_dls(), RandomMix([MixUp, CutMix], p))
    assert {o.kind for o in seen} == {kind}

def test_the_same_seed_makes_the_same_training(dls):
    def one(seed):
        learn,watch = get_learner(dls, Pool, cbs=RandomMix([MixUp, CutMix, ResizeMix], [.3, .3, .3]), seed=seed), Watch()
        runs = [fit(learn, 2, 1e-2, cbs=watch, show=False) for _ in range(2)] # two fits of one learner, each with a seed of its own
        return [o.kind for o in watch.seen], [[{k: v for k,v in h.items() if k != 'seconds'} for h in o.history] for o in runs]
    a,b,c = one(3), one(3), one(4)
    assert a == b and a[0] != c[0] and len(a[0]) == 20 and a[0][:10] != a[0][10:]

def test_runs_of_two_mixtures_are_not_compared_under_one_name(dls):
    runs = [fit(get_learner(dls, Pool, cbs=RandomMix([CutMix], [p])), 1, 1e-2, name='mixed', show=False) for p in (.5, .6)]
    with pytest.raises(BadInput, match='give them two names'): compare(runs)

@pytest.mark.parametrize('mixes,p,words', [
    ([FastaiMixUp()], [.5], r'mixes\[0\] is a fastai.callback.mixup.MixUp: it must be'), ([MixUp, 3], [.5, .5], r'mixes\[1\] is a builtins.int'), ([FastaiCutMix], [.5], r'mixes\[0\] is a fastai.callback.mixup.CutMix'), ([Hooked()], [.5], r'mixes\[0\] is a .*Hooked'),
    ([MixUp], [.5, .5], 'p holds 2 probabilities: mixes holds 1'), ([MixUp, CutMix], [.7, .4], 'p adds up to 1.1: it must be 1 or less'),
    ([MixUp], [-.1], r'p\[0\]=-0.1'), ([MixUp], [float('nan')], r'p\[0\]=nan'), ([MixUp], ['x'], r'p\[0\]=')])
def test_random_mix_refuses(mixes, p, words):
    with pytest.raises(BadInput, match=words): RandomMix(mixes, p)

def test_ten_tenths_are_one():
    RandomMix([CutMix]*10, [.1]*10)

@pytest.mark.parametrize('cbs', [(MixUp, CutMix), (CutMix, ResizeMix), (FastaiMixUp, CutMix), (RandomMix([CutMix], [.5]), MixUp), (ResizeMix, FastaiCutMix)],
                         ids=lambda o: '-'.join(getattr(p, '__name__', type(p).__name__) for p in o))
def test_two_that_mix_are_refused(cbs):
    learn = Learner(plain_dls(), Pool(10), loss_func=F.cross_entropy, cbs=list(cbs))
    with no_output(learn), pytest.raises(BadInput, match='are in the learner: both would mix the images'): learn.fit(1)

# what works with it and after it

def makers(): return [CutMix(), ResizeMix(), RandomMix([MixUp, CutMix, ResizeMix], [.3, .3, .3])]
every = pytest.mark.parametrize('i', range(3), ids=['CutMix', 'ResizeMix', 'RandomMix'])

def reference(learn):
    "Validation loss and accuracy, by hand."
    with torch.no_grad(): logits,y = (torch.cat(o).as_subclass(torch.Tensor) for o in zip(*[(learn.model.eval()(x), y) for x,y in learn.dls.valid]))
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item(), logits.softmax(1)

@every
def test_validation_predictions_and_metrics_see_plain_images(dls, i, tmp_path):
    learn = get_learner(dls, Pool, cbs=makers()[i])
    for _ in range(2): run = fit(learn, 1, 1e-2, show=False) # two fits
    loss,acc,probs = reference(learn)
    assert run.accuracy == pytest.approx(acc, abs=1e-6) and run.history[-1]['valid_loss'] == pytest.approx(loss, abs=1e-5)
    with learn.no_bar():
        assert torch.allclose(learn.predict(dls.valid_ds.items[3])[2].as_subclass(torch.Tensor), probs[3], atol=1e-5)
        learn.lr_find(num_it=8, show_plot=False)
        learn.path = tmp_path
        learn.export('a.pkl')
    loaded = load_learner(tmp_path/'a.pkl')
    with loaded.no_bar(): assert torch.allclose(loaded.predict(dls.valid_ds.items[3])[2].as_subclass(torch.Tensor), probs[3], atol=1e-5)

@every
def test_copies_and_pickles(i):
    for twin in (copy.deepcopy(makers()[i]), pickle.loads(pickle.dumps(makers()[i]))):
        learn,seen = trained(plain_dls(), twin)
        assert len(seen) == 4 and any(o is twin for o in learn.cbs)

class Raise(Callback):
    order = 9
    def __init__(self, event, ex): setattr(self, event, self.fail); self.ex = ex
    def fail(self):
        if self.learn.training: raise self.ex

@every
@pytest.mark.parametrize('event', ['before_batch', 'after_pred', 'after_loss'])
@pytest.mark.parametrize('ex', [KeyboardInterrupt(), CancelFitException()], ids=lambda o: type(o).__name__)
def test_nothing_is_left_patched(i, event, ex):
    loss = CrossEntropyLossFlat()
    learn = Learner(plain_dls(), Pool(10), loss_func=loss, cbs=makers()[i])
    with no_output(learn):
        try: learn.fit(1, cbs=Raise(event, ex))
        except KeyboardInterrupt: pass
        assert learn.loss_func is loss and loss.reduction == 'mean'
        learn.fit(1) # and it goes on
        assert learn.validate()[0] == pytest.approx(reference(learn)[0], abs=1e-4)

@every
def test_gradient_accumulation(i):
    "Four batches of 4 with one step: fastai divides each loss by 16/4."
    class Grads(Callback):
        order = 7 # after accumulation
        def __init__(self): self.losses = []
        def after_loss(self): self.losses.append(self.loss_grad.item()) if self.training else None
    grads = Grads()
    _,seen = trained(plain_dls(), makers()[i], more=[GradientAccumulation(16), grads])
    assert [o.loss/4 for o in seen] == pytest.approx(grads.losses, rel=1e-5)

@every
def test_growing_images(tiny, i):
    "Mixed at the size of the loaders, then shrunken; the shares stay those of the boxes."
    dls = cached_dls(tiny, 8, 48)
    learn,watch = fast_learner(dls, partial(xresnet18, widen=.125), cbs=[makers()[i], ProgressiveResize(32, 48, step=16)]), Watch()
    run = fit(learn, 2, 1e-2, cbs=watch, show=False)
    assert {o.x.shape[-1] for o in watch.seen} == {32, 48} and len(run.history) == 2
    for o in (o for o in watch.seen if o.boxes is not None):
        assert torch.allclose(o.lam, kept_share(o.boxes, 48, 48)) and o.boxes[:,:2].add(o.boxes[:,2:]).max() <= 48

@pytest.mark.parametrize('i', range(2), ids=['CutMix', 'ResizeMix'])
def test_batches_of_several_sizes(i):
    "The loader itself gives other sizes in the middle of a run."
    batches = [(torch.randn(4, 3, *size), torch.arange(4)) for size in ((8, 8), (12, 6), (1, 5))]
    learn,watch = Learner(plain_dls(), Pool(10), loss_func=F.cross_entropy, cbs=makers()[i]), Watch()
    learn.dls.train.create_batches = lambda _: iter(batches)
    with no_output(learn): learn.fit(1, cbs=watch)
    for o in watch.seen: assert torch.equal(o.lam, kept_share(o.boxes, *o.x.shape[2:]))

@pytest.mark.gpu
@ways
def test_on_the_gpu_as_on_the_cpu(way):
    x,y,boxes,perm = case(3, 64, 32, 40)
    for dtype,tol in ((torch.float32, 1e-5), (torch.bfloat16, .05)):
        a,b = FUNCS[way][1](x.to(dtype), y, boxes, perm, 10), FUNCS[way][1](x.to(dtype).cuda(), y.cuda(), boxes.cuda(), perm.cuda(), 10)
        for o,p in zip(a, b): assert p.is_cuda and torch.allclose(o.float(), p.float().cpu(), atol=tol)
    for f in (draw_boxes, draw_inner_boxes):
        boxes = f(torch.rand(5000, device='cuda'), 32, 40)
        assert boxes.is_cuda and (boxes >= 0).all() and (boxes[:,:2] + boxes[:,2:] <= torch.tensor([32, 40], device='cuda')).all()

@pytest.mark.gpu
@every
def test_a_step_never_waits_for_the_gpu(i):
    x,y = torch.randn(64, 3, 32, 32, device='cuda'), torch.randint(0, 10, (64,), device='cuda')
    model,cb = Pool(10).cuda(), makers()[i]
    cb.learn = SimpleNamespace(xb=(x,), x=x, yb=(y,), y=y, loss_func=nn.CrossEntropyLoss(), training=True)
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
@every
def test_training_on_the_gpu_in_bf16(tiny, i):
    learn = get_learner(get_dls(tiny, 8, 32, workers=0), Pool, cbs=makers()[i]).to_bf16()
    assert math.isfinite(fit(learn, 1, 1e-2, show=False).history[-1]['train_loss'])
