"The benchmark: a rate that is known, comparable pipelines, counted operations, the command and its refusals."
import io, sys
from importlib.util import find_spec

import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import nn
from fastai.vision.all import resnet18, xresnet18

from imagenette_course.baseline import get_learner
from imagenette_course.core import BadInput
from imagenette_course.files import image_files
from imagenette_course.dataset import get_dls, subset
from imagenette_course.speed import cached_dls, fast_learner

from benchmarks import rates as bench
from benchmarks.rates import *

THERE = [o for o in PIPELINES if o != 'timm' or find_spec('timm')]

class Clock:
    "A clock that a test moves."
    def __init__(self, monkeypatch): self.now = 0; monkeypatch.setattr(bench.time, 'perf_counter', lambda: self.now)
    def batches(self, seconds, n=10**6, bs=4, first=100):
        for i in range(n): self.now += first if i < 2 else seconds; yield torch.zeros(bs), None

@pytest.mark.parametrize('seconds', [.25, 1, 8])
def test_rate_leaves_the_start_out(monkeypatch, seconds):
    assert rate(Clock(monkeypatch).batches(seconds), 5) == pytest.approx(4/seconds)

def test_rate_of_few_batches(monkeypatch):
    assert rate(Clock(monkeypatch).batches(2, n=3), 100) == 2
    for n in range(3):
        with pytest.raises(BadInput, match='fewer than 3 batches'): rate(Clock(monkeypatch).batches(2, n=n))

def test_rate_leaves_out_what_lies_ready(monkeypatch):
    clock = Clock(monkeypatch)
    def batches():
        for i in range(100): clock.now += 0 if i < 6 else 2; yield torch.zeros(4), None
    assert rate(batches(), 20, skip=6) == 2 and rate(batches(), 20) > 2

def test_rate_stops_in_time(monkeypatch):
    clock = Clock(monkeypatch)
    rate(clock.batches(1), 20)
    assert 200 + 20 < clock.now < 200 + 23

@pytest.mark.parametrize('name', THERE)
def test_the_pipelines_are_comparable(tiny, name):
    files = image_files(tiny)
    seen = [o[:2] for o in PIPELINES[name](tiny, files, 8, 32, 0)]
    assert len(seen) == 5 and all(x.shape == (8, 3, 32, 32) and x.dtype == torch.float32 for x,_ in seen)
    labels = torch.cat([y for _,y in seen]).tolist()
    assert sorted(labels) == sorted([o for o in range(10) for _ in range(4)]) # training images, each once, and never one of validation
    x = torch.cat([x for x,_ in seen])
    assert x.mean().abs() < 1 and .5 < x.std() < 2

@pytest.mark.parametrize('name', THERE)
def test_the_pipelines_are_random(tiny, name):
    dl = PIPELINES[name](tiny, image_files(tiny), 40, 32, 0)
    a,b = (next(iter(dl))[0].sum((1, 2, 3)).sort()[0] for _ in range(2))
    assert not torch.allclose(torch.as_tensor(a), torch.as_tensor(b))

def test_pipeline_rates(tiny):
    rows = pipeline_rates(tiny, subset(tiny, 2), 8, 32, workers=0, seconds=.01)
    assert [o['what'] for o in rows] == [f'input: {o}' for o in THERE]
    assert all(o['size'] == 32 and o['images'] == 20 and o['rate'] > 0 for o in rows)

def test_a_batch_of_more_images_than_there_are(tiny):
    with pytest.raises(BadInput, match='only 40 training images'): pipeline_rates(tiny, image_files(tiny), 41, 32, 0)

# ---- operations

@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 5), c=st.integers(1, 6), out=st.integers(1, 6), k=st.sampled_from([1, 3]), side=st.integers(3, 9))
def test_operations_of_a_convolution(n, c, out, k, side):
    conv = nn.Conv2d(c, out, k, padding=k//2, bias=False)
    forward = 2*out*c*k*k*side*side
    assert step_flops(conv, torch.randn(n, c, side, side)) == pytest.approx(2*forward) # and the weights' gradient
    assert conv.weight.grad is None

def test_operations_grow_with_the_area():
    net = resnet18()
    small,large = (step_flops(net, torch.randn(2, 3, o, o)) for o in (64, 128))
    assert large/small == pytest.approx(4, rel=.02)

def test_matmul_rate(monkeypatch):
    clock = Clock(monkeypatch)
    def counted(): clock.now += .5; return clock.now
    monkeypatch.setattr(bench.time, 'perf_counter', counted)
    assert matmul_rate('cpu', n=10) == 2*10**3/.5 and torch.get_float32_matmul_precision() == 'highest'

@pytest.mark.parametrize('make', [get_learner, fast_learner])
def test_the_step_trains(tiny, make):
    learn = make(get_dls(tiny, 8, 32, workers=0), xresnet18)
    before = [o.detach().clone() for o in learn.model.parameters()]
    assert step_rate(learn, .01) > 0
    assert all(not torch.equal(a, b) for a,b in zip(before, learn.model.parameters()))

def test_step_rates(tiny):
    mine,book = step_rates(cached_dls(tiny, 8, 32), seconds=.01)
    assert (mine['what'], book['what']) == ('step: this course', 'step: --book')
    for o in (mine, book): assert o['size'] == 32 and o['images'] == 40 and o['rate'] > 0 and 0 < o['share'] < 2

# ---- all of it

@pytest.mark.slow
def test_epoch_rate(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path)) # for the other process
    o = epoch_rate(tiny, 2, 8, 32, book=True)
    assert o['what'] == 'epoch: --book' and o['images'] == 20 and o['rate'] == pytest.approx(20/o['seconds']) and .1 < o['gb'] < 8
    with pytest.raises(BadInput, match='--bs 41 .*bs=41'): epoch_rate(tiny, None, 41, 32)

def quick(monkeypatch):
    "Everything for a moment only, and the epochs made up."
    full = bench.measure
    def epoch(path, k, bs, size, arch, book, workers):
        n = 40 if k is None else 10*k
        return dict(what=f"epoch: {'--book' if book else 'this course'}", size=size, images=n, rate=n/(8 if book else 2), seconds=8. if book else 2., gb=1.5)
    monkeypatch.setattr(bench, 'epoch_rate', epoch)
    monkeypatch.setattr(bench, 'measure', lambda path, bs, size, arch, workers: full(path, bs, size, arch, 0, .01, (24, 32)))

def test_measure_and_ratios(tiny, monkeypatch):
    quick(monkeypatch)
    df = bench.measure(tiny, 8, 32, 'xresnet18', None)
    assert df['size'].iloc[0] == 32 and set(df['size']) == {24, 32} and set(df.images) == {20, 40}
    assert len(df) == 2*(len(THERE) + 2) + len(THERE) + 4
    r = ratios(df)
    assert r['epoch: --book'] == 4 and set(r.index) == {*(f'input: {o}' for o in THERE[1:]), 'step: --book', 'epoch: --book'}
    rates = df[(df['size'] == 32) & (df.images == 40)].set_index('what').rate
    assert r['input: --book'] == rates['input: this course']/rates['input: --book']

def call(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['rates.py', *map(str, args)])
    bench.main()

def test_command(tiny, tmp_path, monkeypatch, capsys):
    quick(monkeypatch)
    out = tmp_path/'a'
    args = ('--data', tiny, '--size', 32, '--bs', 8, '--out', out)
    call(monkeypatch, *args)
    text = capsys.readouterr().out
    assert 'input: torchvision v2' in text and 'times as quick as' in text and text.splitlines()[-1] == f'Written to {out}: rates.csv, rates.png'
    note,table = (out/'rates.csv').read_text().split('\n', 1)
    assert note.startswith('# ') and 'torch ' in note and 'cores' in note
    assert pd.read_csv(io.StringIO(table)).columns.tolist() == ['what', 'size', 'images', 'rate', 'share', 'seconds', 'gb']
    assert min(Image.open(out/'rates.png').size) > 300
    before = (out/'rates.csv').read_bytes()
    with pytest.raises(SystemExit) as e: call(monkeypatch, *args)
    err = capsys.readouterr().err
    assert e.value.code == 2 and len(err.splitlines()) == 1 and err.startswith('rates.py: ') and '--force' in err
    assert (out/'rates.csv').read_bytes() == before

@pytest.mark.parametrize('args,words', [
    (('--size', 4), '--size=4'), (('--bs', 1), '--bs=1'), (('--workers', -1), '--workers=-1'), (('--arch', 'vgg'), '--arch=vgg: it must be one of'),
    (('--data', 'nowhere'), "'nowhere' is neither"), (('--bs', 41), 'bs=41'), (('--bs', 21), 'a part of 20 images'), (('--bs', 8, '--size', 16), '16 px are too small')])
def test_refused_options(tiny, tmp_path, monkeypatch, capsys, args, words):
    with pytest.raises(SystemExit) as e: call(monkeypatch, '--data', tiny, '--out', tmp_path/'a', *args)
    err = capsys.readouterr().err
    assert e.value.code == 2 and words in err and len(err.splitlines()) == 1, err

def test_figure_of_one_size(tiny, monkeypatch):
    quick(monkeypatch)
    df = bench.measure(tiny, 8, 32, 'xresnet18', None)
    assert len(plot_rates(df).axes) == 2 and len(plot_rates(df[df['size'] == 32]).axes) == 1
