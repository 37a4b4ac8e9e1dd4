"""CUDA without a GPU: shapes and devices are real, values are not; mixing devices raises, and so does reading a value back
to the host."""
import itertools
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fastai.vision.all import ProgressCallback, Recorder, TensorImage, imagenet_stats, ranger, xresnet18
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imagenette_course.baseline import get_learner
from imagenette_course.further import corner_views
from imagenette_course.mixing import *
from imagenette_course.mixup import *
from imagenette_course.models import Classifier
from imagenette_course.normalize import *
from imagenette_course.resize import ProgressiveResize, resize_batch
from imagenette_course.smoothing import *
from imagenette_course.speed import *
from imagenette_course.sprint import *
from imagenette_course.techniques import *
from imagenette_course.tta import combine_views
from test_sprint import backward

dtypes = pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=lambda o: str(o)[6:])

def tensors(o): return [t for t in tree_leaves(o) if isinstance(t, torch.Tensor)]

class NoCopyBack(TorchDispatchMode):
    "Raises where a tensor is copied to the host: a fake one would not."
    off = False
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        res = func(*args, **(kwargs or {}))
        if not self.off and any(o.device.type == 'cpu' for o in tensors(res)) and any(o.device.type == 'cuda' for o in tensors(args)):
            raise RuntimeError(f'{func} copies to the host')
        return res

def moved(self, device=None, dtype=None, memory_format=None):
    "`nn.Module.to` for fake tensors, which can't be swapped as PyTorch's own does it."
    for o in (*self.parameters(), *(o for o in self.buffers() if o.is_floating_point())):
        o.data = o.data.to(dtype=dtype, memory_format=memory_format if memory_format and o.ndim == 4 else torch.preserve_format)
    return self

@pytest.fixture
def fake(monkeypatch):
    "PyTorch would ask for a GPU's abilities; and a fake tensor can't be of fastai's classes as well."
    monkeypatch.setattr('torch.cuda.amp.common.amp_definitely_not_available', lambda: False)
    monkeypatch.setattr(nn.Module, 'to', moved)
    for o in ('fastai.losses.TensorBase', 'fastai.vision.augment.TensorImage', 'imagenette_course.models.TensorImage',
              'imagenette_course.speed.TensorImage', 'imagenette_course.speed.TensorCategory'): monkeypatch.setattr(o, lambda x: x)
    monkeypatch.setattr(torch.Tensor, 'affine_coord', TensorImage.affine_coord, raising=False)
    with FakeTensorMode(allow_non_fake_inputs=False), NoCopyBack() as mode: yield mode

# the tests can fail

def ones(*shape, device='cuda', dtype=None): return torch.ones(shape, device=device, dtype=dtype)

def test_mixed_devices_raise(fake):
    with pytest.raises(RuntimeError, match='different devices|device'): mix_pairs(ones(4, 3), .5, torch.arange(4))

@pytest.mark.parametrize('read', [torch.Tensor.item, bool, float, torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy,
                                  torch.nonzero, lambda x: ones(4)[x > 0], lambda x: torch.zeros(1).copy_(x)])
def test_reading_back_raises(fake, read):
    with pytest.raises(Exception) as e: read(ones(1))
    print(type(e.value), e.value)

# functions

class Draw:
    "Arguments on a device, floats in a dtype."
    def __init__(self, device, dtype): self.device,self.dtype = torch.device(device),dtype
    def __call__(self, *shape): return torch.rand(shape, device=self.device, dtype=self.dtype)
    def whole(self, value, *shape): return torch.full(shape, value, device=self.device)
    def made(self, make):
        with self.device: return moved(make(), dtype=self.dtype)
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

def calibrated(d):
    "It reads once, to see that they are probabilities."
    with pytest.MonkeyPatch.context() as m:
        if d.device.type == 'cuda': m.setattr(torch.Tensor, '__bool__', lambda self: True)
        return calibration_error(d(4, 10).softmax(1), d.y)

def averaged(d): a = [d.x, d(3)]; ema_step(a, [d.x, d(3)], .9); return a
def exchanged(d):
    net = d.made(lambda: nn.BatchNorm2d(3))
    exchange(net, {k: torch.zeros_like(v) for k,v in float_tensors(net).items()}); return net.state_dict()

smooth = LabelSmoothingCrossEntropy
FLOATS = dict(
    batch_stats=lambda d: batch_stats(d.x), dataset_stats=lambda d: dataset_stats([d.x, (d.x, d.y)]),
    resize_batch=lambda d: resize_batch(d.x, 18), corner_views=lambda d: corner_views(d.x, 20),
    combine_views=lambda d: [combine_views(d(4, 10), d(2, 4, 10), reduce=o) for o in ('mean', 'max')],
    blend=lambda d: blend(d.x, d.x, .3), mix_pairs=lambda d: [mix_pairs(d.x, o, d.perm) for o in (.3, d.lam, d.lam[0])],
    mixup=lambda d: mixup(d.x, d.y, d.lam, d.perm, 10),
    mixup_loss=lambda d: [mixup_loss(smooth(), d(4, 10), o, d.lam, d.perm) for o in (d.y, d(4, 10))],
    cut_pairs=lambda d: cut_pairs(d.x, d.boxes, d.perm), cutmix=lambda d: cutmix(d.x, d.y, d.boxes, d.perm, 10),
    resize_pairs=lambda d: resize_pairs(d.x, d.boxes, d.perm), resizemix=lambda d: resizemix(d.x, d.y, d.boxes, d.perm, 10),
    draw_boxes=lambda d: draw_boxes(d(4), 32, 24), draw_inner_boxes=lambda d: draw_inner_boxes(d(4), 32, 24),
    loss=lambda d: [smooth(weight=w, reduction=r)(d(4, 10), y) for w,r,y in itertools.product(
        (None, d(10)), ('mean', 'sum', 'none'), (d.y, d(4, 10)))],
    gradient=lambda d: [gradient(d, smooth(weight=w, reduction=r), y) for w,r,y in itertools.product(
        (None, d(10)), ('mean', 'sum'), (d.y, d(4, 10)))],
    mixed_gradient=lambda d: gradient(d, partial(mixup_loss, smooth(), lam=d.lam, perm=d.perm), d.y),
    calibration_error=calibrated,
    erase=lambda d: erase(d.x, d.boxes, d.x), ema_step=averaged, exchange=exchanged, as_matrix=lambda d: as_matrix(d(8, 3, 2, 2)),
    BlurPool=lambda d: d.made(BlurPool)(d.x), random_boxes=lambda d: random_boxes(d(4) + .5),
    centre_boxes=lambda d: centre_boxes(d(4) + .5),
    recolour=lambda d: recolour(d.x, *colour_matrices(4, device=d.device), *torch.ones(2, 3, device=d.device)),
    whitening_filters=lambda d: whitening_filters(d.x), orthogonalize=lambda d: [
        orthogonalize(d(*o), dtype=d.dtype) for o in ((8, 27), (27, 8))],
    SprintNet=lambda d: d.made(lambda: sprintnet_small()).whiten(d.x)(d.x), xresnet=lambda d: d.made(
        lambda: use_blur_pool(xresnet18(n_out=10)))(d.x))
WHOLE = dict(
    draw_lam=lambda d: draw_lam(4, .4, d.device), smooth_targets=lambda d: smooth_targets(d.y, 10, .1),
    keep_mask=lambda d: keep_mask(d.boxes, 32, 24), kept_share=lambda d: kept_share(d.boxes, 32, 24),
    shrink_matrix=lambda d: shrink_matrix(d.y, d.whole(9, 4), 32), erasing_boxes=lambda d: erasing_boxes(4, 32, 24, device=d.device),
    resize_matrix=lambda d: resize_matrix(d.y, d.whole(9, 4), 32, 20), colour_matrices=lambda d: colour_matrices(4, device=d.device),
    crop_resize=lambda d: crop_resize(d.whole(9, 4, 3, 32, 32).to(torch.uint8), d.boxes, 20).float(),
    Views=lambda d: [Views(20, imagenet_stats)(d.whole(9, 4, 32, 32, 3).to(torch.uint8), d.lam + .5, o) for o in (True, False)])

def facts(res): return [(o.shape, o.dtype) for o in tensors(res)]

def same_as_on_cpu(f, dtype, request):
    want = facts(f(Draw('cpu', dtype)))
    request.getfixturevalue('fake')
    res = f(Draw('cuda', dtype))
    assert facts(res) == want and {o.device.type for o in tensors(res)} == {'cuda'}

@dtypes
@pytest.mark.parametrize('name', FLOATS)
def test_floats(name, dtype, request, monkeypatch):
    "Shapes and dtypes as on a CPU."
    same_as_on_cpu(FLOATS[name], dtype, request)

@pytest.mark.parametrize('name', WHOLE)
def test_without_floats(name, request): same_as_on_cpu(WHOLE[name], torch.float32, request)

# whole steps

class Loader:
    "What a loader of `cached_dls` does with stored squares that are on the GPU."
    bs,drop_last,device = 4,True,torch.device('cuda')
    def __init__(self, split, views, dtype):
        self.views,self.dtype,self.store = views,dtype,PixelStore.__new__(PixelStore)
        self.items = [Path(str(i)) for i in range(4)]
        vars(self.store).update(pixels=torch.ones(4, 80, 80, 3, dtype=torch.uint8), ratio=torch.ones(4), _there={},
                                row={o: i for i,o in enumerate(self.items)})
        self.store.on(self.device)
        self.dataset = SimpleNamespace(split_idx=split, items=self.items, tls=[None, [0]*4])
    def __len__(self): return 1
    def __iter__(self):
        for x,y in CachedDL.create_batches(self, range(4)): yield x.to(self.dtype), y

class Loaders(list):
    device,c = Loader.device,10
    def __init__(self, dtype):
        self.views = Views(64, imagenet_stats)
        super().__init__(Loader(i, self.views, dtype) for i in (0, 1))
        self.train,self.valid = self
    def test_dl(self, items): return self.valid

def step(learn):
    assert learn.loss_grad.device.type == 'cuda' and learn.model.training
    with torch.no_grad(): backward(learn.loss_grad)
    weights = [p for p in learn.model.parameters() if p.requires_grad]
    for p in weights: p.grad = p.grad.clone() # no view, fastai detaches it in place
    assert {p.grad.device.type for p in weights} == {'cuda'}
    learn.steps = getattr(learn, 'steps', 0) + 1

small = partial(SprintNet, widths=(8, 12, 16))
def blurred(n_out): return use_blur_pool(xresnet18(n_out=n_out))
TECHNIQUES = dict(
    plain=dict, smooth=lambda: dict(loss_func=smooth()), xresnet=lambda: dict(arch=blurred),
    **{k: lambda o=o: dict(opt_func=o) for k,o in dict(ranger=ranger, muon=muon, sprint_opt=sprint_opt).items()},
    **{getattr(o, '__name__', k): lambda o=o: dict(cbs=o()) for k,o in dict(
        MixUp=MixUp, CutMix=CutMix, ResizeMix=ResizeMix, EMA=EMA, RandomErasing=RandomErasing,
        RandomMix=partial(RandomMix, [MixUp, CutMix, ResizeMix], [.4, .3, .3]),
        ProgressiveResize=partial(ProgressiveResize, 32, 64), GrowImages=partial(GrowImages, 32)).items()},
    all=lambda: dict(cbs=[EMA(), RandomErasing(), GrowImages(32), MixUp()], loss_func=smooth()))

@dtypes
@pytest.mark.parametrize('technique', TECHNIQUES)
@pytest.mark.parametrize('make', [get_learner, fast_learner, sprint_learner], ids=lambda o: o.__name__)
def test_training(make, technique, dtype, fake, monkeypatch):
    "Two epochs of one batch, each with its validation; bfloat16 is autocast where the learner has it."
    bf16 = dtype == torch.bfloat16 and make is not get_learner
    monkeypatch.setattr('torch.cuda.is_bf16_supported', lambda **_: bf16)
    if bf16: dtype = torch.float32
    options = dict(arch=small)|TECHNIQUES[technique]()
    if make is sprint_learner and options['arch'] is not small: pytest.skip('a network of another kind')
    fake.off = True # the first filters are made on the CPU
    with torch.device('cuda'): learn = make(Loaders(dtype), **options)
    fake.off = False
    learn.remove_cbs([Recorder, ProgressCallback]) # fastai's read the loss back
    learn.model.to(dtype=dtype)
    learn._backward = partial(step, learn)
    learn.fit(2, .1)
    assert learn.steps == 2 and {o.device.type for o in tensors(learn.model.state_dict())} == {'cuda'}

def test_autocast_is_at_work(fake, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_bf16_supported', lambda **_: True)
    with torch.autocast('cuda', torch.bfloat16): assert (ones(2, 2) @ ones(2, 2)).dtype == torch.bfloat16

# prediction

class Answer(Exception): "The probabilities, about to be read."

@dtypes
@pytest.mark.parametrize('kind,device', itertools.product([torch.uint8, torch.float32, torch.float16], ['cpu', 'cuda']))
def test_prediction(dtype, kind, device, fake, monkeypatch):
    "Floats are read once, to see that they are in 0..1."
    def cpu(self): raise Answer(self)
    monkeypatch.setattr(torch.Tensor, 'cpu', cpu); monkeypatch.setattr(torch.Tensor, 'item', lambda self: .5)
    with torch.device('cuda'): model = Classifier(moved(small(), dtype=dtype), list('0123456789'), 64, 80, *imagenet_stats)
    x = torch.ones(2, 3, 90, 120, dtype=kind, device=device)
    assert facts(model.prepare(x)) == [((2, 3, 64, 64), dtype)] and model.prepare(x).is_cuda
    with pytest.raises(Answer) as e: model(x)
    assert facts(e.value.args[0]) == [((2, 10), torch.float32)] and e.value.args[0].is_cuda
