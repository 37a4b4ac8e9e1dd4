"""CUDA without a GPU: shapes and devices are real, values are not; mixing devices raises, and so does reading a value
back to the host."""
import itertools
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fastai.vision.all import AttrDict, ProgressCallback, Recorder, ResBlock, TensorImage, XResNet, imagenet_stats, ranger
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imagenette_course import models
from imagenette_course.baseline import get_learner
from imagenette_course.further import corner_views
from imagenette_course.mixing import *
from imagenette_course.mixup import *
from imagenette_course.normalize import batch_stats, dataset_stats
from imagenette_course.resize import ProgressiveResize, resize_batch
from imagenette_course.smoothing import LabelSmoothingCrossEntropy as Smooth, calibration_error, smooth_targets
from imagenette_course.speed import *
from imagenette_course.speed import _grey
from imagenette_course.store import PixelStore
from imagenette_course.sprint import *
from imagenette_course.techniques import *
from imagenette_course.tta import combine_views
from test_sprint import backward

DTYPES = torch.float32, torch.float16, torch.bfloat16
def tensors(o): return [t for t in tree_leaves(o) if isinstance(t, torch.Tensor)]
def facts(o): return [(t.shape, t.dtype) for t in tensors(o)]
def devices(o): return {t.device.type for t in tensors(o)}

class NoCopyBack(TorchDispatchMode):
    "Raises where a tensor is copied to the host, as a fake one would let it."
    on = True
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        res = func(*args, **(kwargs or {}))
        if self.on and 'cpu' in devices(res) and 'cuda' in devices(args): raise RuntimeError(f'{func} copies back')
        return res

def moved(self, device=None, dtype=None, memory_format=None):
    "In place of `nn.Module.to`, which swaps tensors, as fake ones can't be."
    for o in (*self.parameters(), *(o for o in self.buffers() if o.is_floating_point())):
        o.data = o.data.to(dtype=dtype, memory_format=o.ndim == 4 and memory_format or torch.preserve_format)
    return self

@pytest.fixture
def fake(monkeypatch):
    "A fake tensor can't be of fastai's classes; and autocast would look for a GPU."
    speed = 'imagenette_course.speed.'
    for o in ('fastai.losses.TensorBase', speed + 'TensorImage', 'imagenette_course.loader.TensorCategory'):
        monkeypatch.setattr(o, lambda x: x)
    monkeypatch.setattr(speed + '_grey', _grey.__wrapped__) # a fake tensor may not outlive its test
    monkeypatch.setattr(nn.Module, 'to', moved)
    monkeypatch.setattr('torch.cuda.amp.common.amp_definitely_not_available', lambda: False)
    with FakeTensorMode(allow_non_fake_inputs=False), NoCopyBack() as mode: yield mode

def ones(*shape, device='cuda'): return torch.ones(shape, device=device)

def test_mixed_devices_raise(fake):
    boxes = ones(4, 4, device='cpu').long()
    with pytest.raises(RuntimeError, match='on the same device'): erase(ones(4, 3, 9, 9), boxes, ones())

def test_reading_back_raises(fake):
    for read,words in ((torch.Tensor.item, '_local_scalar'), (bool, '_local_scalar'), (torch.Tensor.tolist, 'tolist'),
                       (torch.Tensor.cpu, '_to_copy'), (lambda x: ones(1)[x > 0], 'nonzero'),
                       (lambda x: torch.zeros(1).copy_(x), 'copy_')):
        with pytest.raises(RuntimeError, match=words): read(ones(1))

# functions

class Draw:
    "Arguments on a device, floats in a dtype."
    def __init__(self, device, dtype=torch.float32): self.device,self.dtype = torch.device(device),dtype
    def __call__(self, *shape): return torch.rand(shape, device=self.device, dtype=self.dtype)
    def whole(self, value, *shape, dtype=torch.int64): return torch.full(shape, value, device=self.device, dtype=dtype)
    def made(self, make, **kwargs):
        with self.device: return moved(make(**kwargs), dtype=self.dtype)
    x = property(lambda self: self(4, 3, 32, 32))
    y = property(lambda self: self.whole(2, 4))
    perm = property(lambda self: torch.arange(4, device=self.device))
    boxes = property(lambda self: self.whole(6, 4, 4))
    lam = property(lambda self: torch.rand(4, device=self.device))

def gradient(d, loss_func, targets):
    z = d(4, 10).requires_grad_()
    loss = loss_func(z, targets)
    with torch.no_grad(): backward(loss)
    return loss, z.grad

def losses(d, how, *reductions):
    "With and without weights, of labels and of soft targets."
    each = itertools.product((None, d(10)), reductions, (d.y, d(4, 10)))
    return [how(d, Smooth(weight=w, reduction=r), y) for w,r,y in each]

def calibrated(d):
    "It reads once, to see that they are probabilities."
    with pytest.MonkeyPatch.context() as m:
        if d.device.type == 'cuda': m.setattr(torch.Tensor, '__bool__', lambda self: True)
        return calibration_error(d(4, 10).softmax(1), d.y)

FLOATS = dict(
    batch_stats=lambda d: batch_stats(d.x), dataset_stats=lambda d: dataset_stats([d.x, (d.x, d.y)]),
    resize_batch=lambda d: resize_batch(d.x, 18), corner_views=lambda d: corner_views(d.x, 20),
    combine_views=lambda d: [combine_views(d(4, 10), d(2, 4, 10), reduce=o) for o in ('mean', 'max')],
    blend=lambda d: blend(d.x, d.x, .3), mix_pairs=lambda d: [mix_pairs(d.x, o, d.perm) for o in (.3, d.lam, d.lam[0])],
    mixup=lambda d: mixup(d.x, d.y, d.lam, d.perm, 10),
    mixup_loss=lambda d: losses(d, lambda d,f,y: mixup_loss(f, d(4, 10), y, d.lam, d.perm), 'mean', 'none'),
    mixup_gradient=lambda d: gradient(d, partial(mixup_loss, Smooth(), lam=d.lam, perm=d.perm), d.y),
    cutmix=lambda d: cutmix(d.x, d.y, d.boxes, d.perm, 10),
    resizemix=lambda d: resizemix(d.x, d.y, d.boxes, d.perm, 10),
    pairs=lambda d: [o(d.x, d.boxes, d.perm) for o in (cut_pairs, resize_pairs)],
    draw=lambda d: [o(d(4), 32, 24) for o in (draw_boxes, draw_inner_boxes)],
    loss=lambda d: losses(d, lambda d,f,y: f(d(4, 10), y), 'mean', 'sum', 'none'),
    gradient=lambda d: losses(d, gradient, 'mean', 'sum'),
    calibration_error=calibrated, erase=lambda d: erase(d.x, d.boxes, d.x),
    as_matrix=lambda d: as_matrix(d(8, 3, 2, 2)), BlurPool=lambda d: d.made(BlurPool)(d.x),
    boxes=lambda d: [o(d(4) + .5) for o in (random_boxes, centre_boxes)],
    recolour=lambda d: recolour(d.x, *colour_matrices(4, device=d.device), *torch.ones(2, 3, device=d.device)),
    whitening_filters=lambda d: whitening_filters(d.x),
    orthogonalize=lambda d: [orthogonalize(o, dtype=d.dtype) for o in (d(8, 27), d(27, 8))],
    sprintnet=lambda d: d.made(sprintnet).whiten(d.x)(d.x), sprintnet_small=lambda d: d.made(sprintnet_small)(d.x))
OTHERS = dict(
    draw_lam=lambda d: draw_lam(4, .4, d.device), smooth_targets=lambda d: smooth_targets(d.y, 10, .1),
    keep=lambda d: [o(d.boxes, 32, 24) for o in (keep_mask, kept_share)],
    matrices=lambda d: [shrink_matrix(d.y, d.boxes[0], 32), resize_matrix(d.y, d.boxes[0], 32, 20)],
    erasing_boxes=lambda d: erasing_boxes(4, 32, 24, device=d.device),
    colour_matrices=lambda d: colour_matrices(4, device=d.device), # and bytes on a CPU:
    crop_resize=lambda d: crop_resize(d.whole(9, 4, 3, 32, 32, dtype=torch.uint8), d.boxes, 20).float(),
    Views=lambda d: [Views(20, imagenet_stats)(d.whole(9, 4, 32, 32, 3, dtype=torch.uint8), d.lam + .5, o)
                     for o in (True, False)])

@pytest.mark.parametrize('name', [*FLOATS, *OTHERS])
def test_functions(name, request):
    "Shapes and dtypes as on a CPU; floats in all three types."
    f,dtypes = {**FLOATS, **OTHERS}[name], DTYPES if name in FLOATS else DTYPES[:1]
    wanted = [facts(f(Draw('cpu', o))) for o in dtypes]
    request.getfixturevalue('fake')
    for dtype,want in zip(dtypes, wanted):
        got = f(Draw('cuda', dtype))
        assert facts(got) == want and devices(got) == {'cuda'}

# whole steps

class Loader:
    "What a loader of `cached_dls` does with stored squares that are on the GPU: one batch."
    bs,drop_last,device = 4,True,torch.device('cuda')
    def __init__(self, split, views, dtype):
        self.views,self.dtype,self.items = views,dtype,[Path(o) for o in 'abcd']
        self.store = PixelStore.__new__(PixelStore)
        content = AttrDict(pixels=torch.ones(4, 80, 80, 3, dtype=torch.uint8), ratio=torch.ones(4), copies={})
        vars(self.store).update(content=content, row={o: i for i,o in enumerate(self.items)})
        self.store.on(self.device)
        self.dataset = SimpleNamespace(split_idx=split, items=self.items, tls=[None, [0]*4])
    def __len__(self): return 1
    def __iter__(self): return ((x.to(self.dtype), y) for x,y in CachedDL.create_batches(self, range(4)))

class Loaders(list):
    device,c = Loader.device,10
    def __init__(self, dtype):
        self.views = Views(64, imagenet_stats)
        super().__init__(Loader(i, self.views, dtype) for i in (0, 1))
        self.train,self.valid = self
    def test_dl(self, items): return self.valid

small = partial(SprintNet, widths=(8, 12))
def blurred(n_out): return use_blur_pool(XResNet(ResBlock, 1, [1, 1, 1, 1], n_out=n_out))
CALLBACKS = dict(
    MixUp=MixUp, CutMix=CutMix, ResizeMix=ResizeMix, EMA=EMA, RandomErasing=RandomErasing,
    RandomMix=lambda: RandomMix([MixUp, CutMix, ResizeMix], [.4, .3, .3]),
    ProgressiveResize=lambda: ProgressiveResize(32, 64), GrowImages=lambda: GrowImages(32),
    all=lambda: [EMA(), RandomErasing(), GrowImages(32), MixUp()])
OTHER = dict(plain={}, Smooth=dict(loss_func=Smooth()), blur=dict(arch=blurred), ranger=dict(opt_func=ranger),
             muon=dict(opt_func=muon), sprint_opt=dict(opt_func=sprint_opt))

def go_back(learn):
    with torch.no_grad(): backward(learn.loss_grad)
    weights = [p for p in learn.model.parameters() if p.requires_grad]
    for p in weights: p.grad = p.grad.clone() # fastai detaches it in place, which a view does not allow
    assert devices([learn.loss, *(p.grad for p in weights)]) == {'cuda'}
    learn.steps = getattr(learn, 'steps', 0) + 1

@pytest.mark.parametrize('make,technique,dtype', [
    *((make, o, torch.float32 if make is get_learner else torch.bfloat16)
      for make in (get_learner, fast_learner, sprint_learner) for o in (*OTHER, *CALLBACKS)
      if (make, o) != (sprint_learner, 'blur')),
    *((make, 'all', torch.float16) for make in (get_learner, fast_learner, sprint_learner)),
    (get_learner, 'all', torch.bfloat16), (fast_learner, 'all', torch.float32)],
    ids=lambda o: getattr(o, '__name__', str(o).split('.')[-1]))
def test_training(make, technique, dtype, fake, monkeypatch):
    "Two epochs of a step and a validation; bfloat16 is autocast where the learner has it."
    bf16 = dtype == torch.bfloat16 and make is not get_learner
    monkeypatch.setattr('torch.cuda.is_bf16_supported', lambda **_: bf16)
    if bf16: dtype = torch.float32
    options = dict(arch=small)|OTHER.get(technique, {})|dict(cbs=CALLBACKS.get(technique, list)())
    fake.on = False # the first filters are made on the CPU
    with torch.device('cuda'): learn = make(Loaders(dtype), **options)
    fake.on = True
    learn.remove_cbs([Recorder, ProgressCallback]) # fastai's read the loss
    moved(learn.model, dtype=dtype)
    learn._backward = partial(go_back, learn)
    learn.fit(2, .1)
    assert learn.steps == 2 and devices(learn.model.state_dict()) == {'cuda'}

def test_autocast_is_at_work(fake, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_bf16_supported', lambda **_: True)
    with torch.autocast('cuda', torch.bfloat16): assert (ones(2, 2) @ ones(2, 2)).dtype == torch.bfloat16

# prediction

def test_the_second_resizing_is_fastais():
    "Which reads a value back."
    for before,after in ((64, 64), (80, 64), (129, 64), (300, 97)):
        x = Draw('cpu')(2, 3, before, before)
        want = TensorImage(x).affine_coord(sz=after).as_subclass(torch.Tensor)
        assert torch.allclose(models._squeezed(x, after), want, atol=1e-4)

@pytest.mark.parametrize('kind,device,dtype', [
    (torch.uint8, 'cpu', torch.float32), (torch.uint8, 'cuda', torch.bfloat16), (torch.float32, 'cpu', torch.bfloat16),
    (torch.float32, 'cuda', torch.float16), (torch.float16, 'cuda', torch.float32)], ids=str)
def test_prediction(kind, device, dtype, fake, monkeypatch):
    "Up to the probabilities, which are read. Images are read only if they are floats, to see that they are in 0..1."
    class Answer(Exception): pass
    def cpu(self): raise Answer(self)
    monkeypatch.setattr(torch.Tensor, 'cpu', cpu)
    if kind != torch.uint8: monkeypatch.setattr(torch.Tensor, 'item', lambda self: .5)
    model = Draw('cuda', dtype).made(lambda: models.Classifier(small(), list('0123456789'), 64, 80, *imagenet_stats))
    x = torch.ones(2, 3, 90, 120, dtype=kind, device=device)
    assert facts(model.prepare(x)) == [((2, 3, 64, 64), dtype)] and devices(model.prepare(x)) == {'cuda'}
    with pytest.raises(Answer) as e: model(x)
    assert facts(e.value.args) == [((2, 10), torch.float32)] and devices(e.value.args) == {'cuda'}
