"""Time and peak memory of mixup beside torchvision, timm and fastai, in one run, drawing included:

    pytest tests/benchmarks/bench_mixup.py

A batch of (64, 3, 128, 128) floats. Needs pytest-benchmark and timm; runs on CUDA, too, where there is one.
`peak` is what is allocated at one moment beyond what was there before, in batches of images (12.6 MB)."""
import time
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from imagenette_course.mixup import MixUp, draw_lam, mixup
from fastai.callback.mixup import MixUp as FastaiMixUp
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import TensorCategory, TensorImage

timm = pytest.importorskip('timm.data.mixup')
pytest.importorskip('pytest_benchmark')
from torchvision.transforms import v2

DEVICES = ['cpu'] + (['cuda'] if torch.cuda.is_available() else [])
N,N_CLASSES = 64,10

def batch(device):
    torch.manual_seed(0)
    return torch.rand(N, 3, 128, 128, device=device), torch.randint(0, N_CLASSES, (N,), device=device)

def ours_batch(x, y):
    return lambda: mixup(x, y, draw_lam(1, .4, x.device)[0], torch.randperm(N, device=x.device), N_CLASSES)
def ours_image(x, y): return lambda: mixup(x, y, draw_lam(N, .4, x.device), torch.randperm(N, device=x.device), N_CLASSES)
def ours_plain(x, y):
    perm = torch.randperm(N, device=x.device)
    return lambda: mixup(x, y, .3, perm, N_CLASSES)
def theirs_tv(x, y):
    f = v2.MixUp(alpha=.4, num_classes=N_CLASSES)
    return lambda: f(x, y)
def theirs_timm(x, y):
    f = timm.Mixup(mixup_alpha=.4, num_classes=N_CLASSES, label_smoothing=0.)
    return lambda: f(x, y) # changes x in place

def callback(cb, x, y):
    "The work of a batch: mixing, and the loss of given predictions."
    x,y = TensorImage(x),TensorCategory(y)
    pred = TensorImage(torch.randn(N, N_CLASSES, device=x.device))
    learn = SimpleNamespace(x=x, y=y, pred=pred, loss_func=CrossEntropyLossFlat(), training=True)
    cb.learn = learn
    if hasattr(cb, 'before_train'): cb.before_train()
    def step():
        learn.xb,learn.yb = (x,),(y,)
        cb.before_batch()
        learn.loss_grad = learn.loss_func(pred, *learn.yb)
        if hasattr(cb, 'after_loss'): cb.after_loss()
        learn.xb = None # the mixed batch ends with its step
        return learn.loss_grad
    return step
def ours_callback(x, y): return callback(MixUp(), x, y)
def theirs_fastai(x, y): return callback(FastaiMixUp(), x, y)

def peak(f, device):
    "Largest number of bytes held at once by `f` beyond what was held before."
    if device == 'cuda':
        torch.cuda.synchronize(); torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        f()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof: res = f()
    events = sorted((o for o in prof.profiler.kineto_results.events() if o.name() == '[memory]'), key=lambda o: o.start_ns())
    now = top = 0
    for o in events:
        now += o.nbytes()
        top = max(top, now)
    return top

GROUPS = {'function': dict(ours_batch=ours_batch, ours_image=ours_image, ours_plain=ours_plain, torchvision=theirs_tv, timm=theirs_timm),
          'callback': dict(ours=ours_callback, fastai=theirs_fastai)}
CASES = [(g, n) for g,fs in GROUPS.items() for n in fs]

@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('group,name', CASES)
def test_speed(benchmark, device, group, name):
    f = GROUPS[group][name](*batch(device))
    def run():
        f()
        if device == 'cuda': torch.cuda.synchronize()
    for _ in range(5): run()
    benchmark.group = f'{group}, {device}'
    benchmark.extra_info['peak, batches'] = round(peak(f, device)/(N*3*128*128*4), 3)
    benchmark.pedantic(run, rounds=100, iterations=1)

@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('group', list(GROUPS))
def test_ratios(device, group, capsys):
    "In turn, six blocks of 20 calls each, so that a slow moment of the machine meets each alike; medians of the 120."
    fs = {n: make(*batch(device)) for n,make in GROUPS[group].items()}
    times = {n: [] for n in fs}
    for _ in range(6):
        for n,f in fs.items():
            for i in range(25):
                if device == 'cuda': torch.cuda.synchronize()
                start = time.perf_counter()
                f()
                if device == 'cuda': torch.cuda.synchronize()
                if i >= 5: times[n].append(time.perf_counter() - start) # the first ones warm caches and allocator
    med = {n: sorted(t)[len(t)//2] for n,t in times.items()}
    mem = {n: peak(f, device)/(N*3*128*128*4) for n,f in fs.items()}
    best,least = (min(v for n,v in d.items() if 'ours' not in n) for d in (med, mem))
    with capsys.disabled():
        print(f'\n{group}, {device}, {torch.get_num_threads()} threads: median of 120, beside the best of the others')
        for n in fs: print(f'  {n:12} {1e3*med[n]:7.3f} ms  x{med[n]/best:.2f}   peak {mem[n]:.3f} batches  x{mem[n]/least:.3f}')
    for n in fs:
        if 'ours' in n: assert mem[n] <= least*1.01 and med[n] <= best*1.1, n
