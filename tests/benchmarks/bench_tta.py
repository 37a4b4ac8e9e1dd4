"""`tta` beside fastai's `learn.tta`: the same network, images and number of views, in one run. Not collected by default:

    pytest tests/benchmarks/bench_tta.py

pytest-benchmark, where it is installed, prints a table of seconds. The last test prints the ratios of seconds and of peak memory."""
import os, resource, subprocess, sys
from statistics import median
from time import perf_counter

import pytest
import torch
from imagenette_course.record import device_name
from imagenette_course.baseline import get_learner
from imagenette_course.dataset import get_dls, make_sample
from imagenette_course.tta import tta
from fastai.vision.all import xresnet18

N = 4 # augmented views

def make_learner():
    path = make_sample()
    return get_learner(get_dls(path, 16, 64), xresnet18)

def ours(learn): return tta(learn, n=N)
def fastai(learn):
    with learn.no_bar(): return learn.tta(n=N)

WHO = dict(ours=ours, fastai=fastai)

def peak_memory(who):
    "Peak in MB of a process that does nothing else: of its GPU memory with CUDA, of its resident memory otherwise."
    learn = make_learner()
    learn.model.to(learn.dls.device)
    if torch.cuda.is_available(): torch.cuda.reset_peak_memory_stats()
    WHO[who](learn)
    return torch.cuda.max_memory_allocated()/2**20 if torch.cuda.is_available() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**10

def measured_alone(who):
    out = subprocess.run([sys.executable, __file__, who], capture_output=True, text=True, check=True, env={**os.environ, 'IN_TEST': '1'})
    return float(out.stdout.split()[-1])

@pytest.fixture(scope='module')
def learn(): return make_learner()

@pytest.mark.parametrize('who', WHO)
def test_seconds(learn, who, request):
    if not request.config.pluginmanager.has_plugin('benchmark'): pytest.skip('pytest-benchmark is not installed')
    request.getfixturevalue('benchmark').pedantic(WHO[who], args=(learn,), rounds=3, warmup_rounds=1)

def test_no_slower_and_no_larger(learn, capsys):
    "Turn by turn, so that a change of the machine's speed meets both."
    for f in WHO.values(): f(learn)
    secs = {k: [] for k in WHO}
    for i in range(6):
        for k in list(WHO)[::1 if i%2 else -1]:
            start = perf_counter()
            WHO[k](learn)
            secs[k].append(perf_counter() - start)
    ratios = sorted(a/b for a,b in zip(*secs.values()))
    peak = {k: median(measured_alone(k) for _ in range(2)) for k in WHO}
    with capsys.disabled():
        print(f'\n{N} views of {len(learn.dls.valid_ds)} images, xresnet18 at 64 px, {device_name(learn.dls.device)}, median of 6:',
              *(f'{k} {median(secs[k]):.2f} s, peak {peak[k]:.0f} MB' for k in WHO),
              f'ours/fastai: seconds {median(ratios):.3f} (pairs {ratios[0]:.3f} to {ratios[-1]:.3f}), memory {peak["ours"]/peak["fastai"]:.3f}', sep='\n  ')
    assert median(ratios) < 1.05 and peak['ours'] < 1.05*peak['fastai']

if __name__ == '__main__': print(peak_memory(sys.argv[1]))
