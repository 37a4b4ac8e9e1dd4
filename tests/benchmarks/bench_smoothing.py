"""The smoothed loss beside those of PyTorch, fastai and timm: 256 rows, 1,000 classes.

    pip install pytest-benchmark timm
    pytest tests/benchmarks/bench_smoothing.py --benchmark-columns=min,median --benchmark-sort=min

The column of peak memory, in matrices of the size of the logits, is printed at the end (`-s` is not needed)."""
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from imagenette_course.smoothing import LabelSmoothingCrossEntropy, smooth_targets
from fastai.losses import LabelSmoothingCrossEntropy as FastaiSmoothing
from torch.profiler import profile, ProfilerActivity

pytest.importorskip('pytest_benchmark')
timm = pytest.importorskip('timm.loss')

EPS, DEVICES = .1, ['cpu'] + ['cuda']*torch.cuda.is_available()
HARD = dict(here=LabelSmoothingCrossEntropy(EPS), torch=partial(F.cross_entropy, label_smoothing=EPS),
            fastai=FastaiSmoothing(EPS), timm=timm.LabelSmoothingCrossEntropy(EPS))
SOFT = dict(here=LabelSmoothingCrossEntropy(0), torch=F.cross_entropy, timm=timm.SoftTargetCrossEntropy()) # of targets that are smooth already
CASES = [(kind, name) for kind,fs in (('hard', HARD), ('soft', SOFT)) for name in fs]

def batch(kind, device):
    gen = torch.Generator().manual_seed(0)
    logits, y = torch.randn(256, 1000, generator=gen)*3, torch.randint(1000, (256,), generator=gen)
    return logits.to(device).requires_grad_(), (y if kind == 'hard' else smooth_targets(y, 1000, EPS)).to(device)

def forward(f, logits, targets):
    with torch.no_grad(): f(logits, targets)
    if logits.is_cuda: torch.cuda.synchronize()

def both(f, logits, targets):
    logits.grad = None
    f(logits, targets).backward()
    if logits.is_cuda: torch.cuda.synchronize()

def peak(go, logits):
    "Largest memory held at once on top of what is there before, in matrices of the logits' size."
    logits.grad = None
    if logits.is_cuda:
        before = torch.cuda.memory_allocated(); torch.cuda.reset_peak_memory_stats(); go()
        res = torch.cuda.max_memory_allocated() - before
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof: go()
        events = sorted((o for o in prof.profiler.kineto_results.events() if o.name() == '[memory]'), key=lambda o: o.start_ns())
        held = res = 0
        for o in events: held += o.nbytes(); res = max(res, held)
    return res/(logits.numel()*logits.element_size())

@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('what', [forward, both], ids=['forward', 'forward+backward'])
@pytest.mark.parametrize('kind,name', CASES)
def test_speed(benchmark, kind, name, what, device):
    f, (logits, targets) = (HARD if kind == 'hard' else SOFT)[name], batch(kind, device)
    benchmark.group = f'{kind} targets, {what.__name__}, {device}, {torch.get_num_threads()} threads'
    go = partial(what, f, logits, targets)
    benchmark.pedantic(go, rounds=100, iterations=10, warmup_rounds=5)
    benchmark.extra_info['peak matrices'] = peak(go, logits)

@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('kind', ['hard', 'soft'])
def test_peak_memory(kind, device, capsys):
    "Ours needs no more than the one that needs least."
    (logits, targets), fs = batch(kind, device), HARD if kind == 'hard' else SOFT
    for what in (forward, both):
        res = {name: peak(partial(what, f, logits, targets), logits) for name,f in fs.items()}
        with capsys.disabled(): print(f'\npeak, matrices, {kind}, {what.__name__}, {device}:', {k: round(v, 2) for k,v in res.items()})
        assert res['here'] <= 1.01*min(v for k,v in res.items() if k != 'here')
