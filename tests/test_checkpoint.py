"A training that is killed and resumed against one that nobody disturbed; files that are damaged or bite."
import io, math, multiprocessing, os, pickle, random, signal, time, zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import (Adam, Callback, CancelFitException, CrossEntropyLossFlat, DataLoaders, L, Learner, OptimWrapper, accuracy, nn,
                               partial, ranger, set_seed)
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file

from imagenette_course import normalize, record, store
from imagenette_course import train as train_module
from imagenette_course.baseline import fit, get_learner
from imagenette_course.checkpoint import *
from imagenette_course.core import BadInput, Diverged
from imagenette_course.mixup import MixUp
from imagenette_course.resize import progressive_fit
from imagenette_course.speed import cached_dls, fast_learner
from imagenette_course.techniques import EMA, muon
from imagenette_course.train import train

def dls(bs=10):
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    data = list(zip(x, (x[:,0]*x[:,1] > 0).long()))
    res = DataLoaders.from_dsets(data[:40], data[40:], bs=bs, device='cpu')
    res.c = 2
    return res

def net(n_out): return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(.3), nn.Linear(8, n_out))

class Stop(Callback):
    "Ends a training after so many new epochs, as Ctrl-C does."
    order = 90
    def __init__(self, n): self.n = n
    def after_epoch(self):
        if self.learn.checkpoint.n <= len(self.learn.checkpoint.done): return
        self.n -= 1
        if self.n == 0: raise KeyboardInterrupt

def through_a_file(o):
    buf = io.BytesIO(); torch.save(o, buf); buf.seek(0)
    return torch.load(buf, weights_only=True)

def run(make, epochs=4, stop=None, state=None, fit=fit, cbs=(), show=False):
    kept, learn = [], make()
    cbs = [Checkpoint(lambda o: kept.append(through_a_file(o)), state), *[o() for o in cbs], *([Stop(stop)] if stop else [])]
    try: fit(learn, epochs, 1e-2, cbs=cbs, show=show)
    except KeyboardInterrupt: pass
    return learn, kept[-1] if kept else state

def same(a, b):
    assert all(torch.equal(p, q) for p,q in zip(a[0].model.state_dict().values(), b[0].model.state_dict().values()))
    rows = [[{k: v for k,v in row.items() if k != 'seconds'} for row in o[1]['history']] for o in (a, b)]
    assert rows[0] == rows[1]

OPTIMIZERS = dict(adam=Adam, ranger=ranger, adamw=partial(OptimWrapper, opt=torch.optim.AdamW), fused=partial(OptimWrapper, opt=torch.optim.AdamW, fused=True),
                  sgd=partial(OptimWrapper, opt=torch.optim.SGD, momentum=.9))

@pytest.mark.parametrize('name', OPTIMIZERS)
@pytest.mark.parametrize('stop', [1, 3])
def test_resumed_as_undisturbed(name, stop):
    make = lambda: get_learner(dls(), net, seed=3, opt_func=OPTIMIZERS[name])
    first = run(make, stop=stop)
    assert len(first[1]['history']) == stop
    same(run(make), run(make, state=first[1]))

@pytest.mark.parametrize('stop', [1, 2, 4])
def test_with_a_progress_bar(monkeypatch, capsys, stop):
    monkeypatch.setattr(record, 'show_bar', lambda: True)
    make = lambda: get_learner(dls(), net, seed=3)
    same(run(make), run(make, state=run(make, stop=stop, show=True)[1], show=True))
    assert 'epoch 1/4' not in capsys.readouterr().out # the lines that are there without a bar

@pytest.mark.parametrize('stop', [1, 4])
def test_muon_and_averaged_weights(stop):
    def deep(n_out): return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_out))
    make = lambda: get_learner(dls(), deep, seed=3, opt_func=muon, cbs=EMA(.9))
    same(run(make), run(make, state=run(make, stop=stop)[1]))

def test_killed_after_each_epoch():
    make = lambda: get_learner(dls(), net, seed=3)
    state = None
    for _ in range(4): last = run(make, stop=1, state=state); state = last[1]
    same(run(make), run(make, state=state))
    assert len(state['history']) == 4

def test_with_mixup_and_the_quick_step(tiny):
    make = lambda: fast_learner(cached_dls(tiny, 8, 24), partial(Pool), cbs=MixUp(.4))
    same(run(make, 3), run(make, 3, state=run(make, 3, stop=2)[1]))

class Pool(nn.Sequential):
    "A network of milliseconds."
    def __init__(self, n_out): super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, n_out))

@pytest.mark.smoke
@pytest.mark.parametrize('stop', [1, 2, 3, 5])
def test_in_stages(tiny, stop):
    "Two epochs, then fine_tune's one and two at a larger size."
    make = lambda: get_learner(cached_dls(tiny, 8, 32), Pool, cbs=MixUp(.4))
    def stages(learn, epochs, lr, cbs, show): return progressive_fit(learn, [(2, 24, 8, lr), (2, 32, 8, lr/2)], cbs=cbs, show=show)
    same(run(make, fit=stages), run(make, fit=stages, state=run(make, fit=stages, stop=stop)[1]))

def test_seconds_go_on():
    make = lambda: get_learner(dls(), net)
    state = run(make, stop=2)[1]
    state['history'][-1]['seconds'] = 1000.
    rows = run(make, state=state)[1]['history']
    assert rows[1]['seconds'] == 1000 and 1000 < rows[2]['seconds'] < rows[3]['seconds'] < 1100

@pytest.mark.smoke
def test_seldom_saved():
    "Between two saves the state is kept in memory: Ctrl-C writes it, and the end of the training."
    def fit_with(stop=None, state=None):
        kept, learn = [], get_learner(dls(), net, seed=3)
        cbs = [Checkpoint(lambda o: kept.append(through_a_file(o)), state, every=1e9), *([Stop(stop)] if stop else [])]
        try: fit(learn, 4, 1e-2, cbs=cbs, show=False)
        except KeyboardInterrupt: pass
        return learn, kept
    stopped = fit_with(stop=2)[1]
    assert [len(o['history']) for o in stopped] == [2]
    learn,ended = fit_with(state=stopped[0])
    assert [len(o['history']) for o in ended] == [4]
    same(run(lambda: get_learner(dls(), net, seed=3)), (learn, ended[0]))

def test_saving_is_not_training():
    learn, began = get_learner(dls(), net), time.perf_counter()
    run = fit(learn, 3, 1e-2, cbs=Checkpoint(lambda o: time.sleep(.5)), show=False)
    assert 0 < run.seconds <= time.perf_counter() - began - 3*.5

class Memory(Callback):
    "Has a state of its own."
    def __init__(self): self.sum = torch.zeros(())
    def after_batch(self): self.sum += self.learn.loss.detach().cpu()
    def state_dict(self): return dict(sum=self.sum.clone())
    def load_state_dict(self, o): self.sum = o['sum']

def test_callbacks_with_a_state():
    make = lambda: get_learner(dls(), net, cbs=Memory())
    whole = run(make)
    again = run(make, state=run(make, stop=2)[1])
    assert torch.equal(whole[0].memory.sum, again[0].memory.sum)
    with pytest.raises(BadInput, match="callbacks .'memory'., the learner .."): run(lambda: get_learner(dls(), net), state=whole[1])

def test_another_network_is_refused():
    state = run(lambda: get_learner(dls(), net), stop=1)[1]
    with pytest.raises(BadInput, match='another network'): run(lambda: get_learner(dls(), lambda n_out: nn.Linear(6, n_out)), state=state)

def test_random_states():
    d = dls()
    def draw(): return random.random(), np.random.rand(), torch.rand(2).tolist(), d.train.get_idxs()[:9], d.valid.rng.random()
    s = through_a_file(plain_values(random_states(d)))
    want = draw()
    assert draw() != want
    set_random_states(s, d)
    assert draw() == want

# ---- files

json_like = st.recursive(st.none() | st.booleans() | st.integers(-2**40, 2**40) | st.floats(allow_nan=False) | st.text(max_size=9),
                         lambda o: st.lists(o, max_size=3) | st.dictionaries(st.text(max_size=4), o, max_size=3), max_leaves=8)

@settings(max_examples=40, deadline=None)
@given(o=st.dictionaries(st.text(max_size=4), json_like, max_size=4))
def test_what_is_plain_stays(o, tmp_path_factory):
    file = tmp_path_factory.getbasetemp()/'round.pt'
    save_checkpoint(file, plain_values(o))
    assert read_checkpoint(file) == o == plain_values(o)

def test_plain():
    o = plain_values(dict(a=L(np.float64(.5), np.int64(3)), t=(np.float32(1.), None), x=nn.Parameter(torch.ones(2))))
    assert o['a'] == [.5, 3] and type(o['a']) is list and type(o['a'][0]) is float and type(o['t'][0]) is float
    assert type(o['x']) is torch.Tensor and not o['x'].requires_grad

@pytest.fixture
def file(tmp_path):
    save_checkpoint(tmp_path/'c.pt', dict(x=torch.arange(1000.), n=[1, 2]))
    return tmp_path/'c.pt'

@pytest.mark.smoke
@settings(max_examples=100, deadline=None)
@given(where=st.floats(0, .999), bit=st.integers(0, 7), cut=st.booleans())
def test_damaged_or_whole_and_nothing_between(where, bit, cut, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    save_checkpoint(folder/'d.pt', dict(x=torch.arange(1000.), n=[1, 2]))
    data = bytearray((folder/'d.pt').read_bytes())
    i = int(where*len(data))
    if cut: data = data[:i]
    else: data[i] ^= 1 << bit
    (folder/'d.pt').write_bytes(data)
    try: got = read_checkpoint(folder/'d.pt')
    except BadInput as e: assert 'damaged' in str(e) and str(folder/'d.pt') in str(e)
    else: assert torch.equal(got['x'], torch.arange(1000.)) and got['n'] == [1, 2] and not cut

@pytest.mark.parametrize('content', [b'', b'abc', b'\x80\x02}.', bytes(5000), pickle.dumps(dict(a=1))])
def test_no_checkpoint_at_all(tmp_path, content):
    (tmp_path/'x.pt').write_bytes(content)
    with pytest.raises(BadInput, match='not a checkpoint'): read_checkpoint(tmp_path/'x.pt')

def test_another_zip_or_another_content(tmp_path):
    with zipfile.ZipFile(tmp_path/'x.pt', 'w') as z: z.writestr('../../outside', 'x'); z.writestr('data.pkl', 'x')
    with pytest.raises(BadInput): read_checkpoint(tmp_path/'x.pt')
    assert {o.name for o in tmp_path.iterdir()} == {'x.pt'}
    torch.save([1], tmp_path/'y.pt')
    with pytest.raises(BadInput): read_checkpoint(tmp_path/'y.pt')
    with pytest.raises(FileNotFoundError): read_checkpoint(tmp_path/'z.pt')

class Bite:
    def __init__(self, file): self.file = str(file)
    def __reduce__(self): return os.mkdir, (self.file,)

class BiteBySystem(Bite):
    def __reduce__(self): return os.system, (f'mkdir {self.file}',)

class BiteByEval(Bite):
    def __reduce__(self): return eval, (f'__import__("os").mkdir({self.file!r})',)

@pytest.mark.parametrize('kind', [Bite, BiteBySystem, BiteByEval])
def test_a_file_that_bites(tmp_path, kind):
    torch.save(dict(done=[], now=kind(tmp_path/'bitten')), tmp_path/'checkpoint.pt')
    with pytest.raises(BadInput, match='not a checkpoint'): read_checkpoint(tmp_path/'checkpoint.pt')
    assert not (tmp_path/'bitten').exists()
    torch.load(tmp_path/'checkpoint.pt', weights_only=False)
    assert (tmp_path/'bitten').exists() # it would have

def test_the_old_one_stays_when_there_is_no_room(file, monkeypatch):
    before = file.read_bytes()
    def full(_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(normalize.os, 'fsync', full)
    with pytest.raises(OSError, match='could not be written'): save_checkpoint(file, dict(a=1))
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]

# ---- not a number

@pytest.mark.parametrize('value', [math.nan, math.inf])
@pytest.mark.parametrize('step', [1, 7])
def test_stop_at_nan(value, step):
    class Spoil(Callback):
        run_valid = False
        def after_loss(self):
            if self.train_iter == step-1: self.learn.loss_grad = self.learn.loss_grad*value; self.learn.loss = self.learn.loss_grad.clone()
    learn = get_learner(dls(), net)
    kept = []
    with pytest.raises(Diverged, match=f'at step {(step-1)%4+1} of 4 in epoch {(step-1)//4+1}'):
        fit(learn, 3, 1e-2, cbs=[Spoil(), StopAtNaN(), Checkpoint(kept.append)], show=False)
    assert len(kept) == (step-1)//4

def test_a_training_without_nan_is_left_alone():
    same(run(lambda: get_learner(dls(), net)), run(lambda: get_learner(dls(), net), cbs=[StopAtNaN]))

# ---- the command, killed

OPTIONS = dict(arch='sprintnet_small', bs=8, size=32, epochs=4, runs=2, mixup=.4, tta=1, workers=0)

def work(data, out, stores, options, moment):
    "In a process of its own: trains or resumes, and is killed at a moment, in seconds; None: is left alone."
    torch.set_num_threads(1)
    os.environ['IN_TEST'] = '1'
    store.fastai_path = lambda _: Path(stores)
    if moment == 'writing': # in the middle of the second file that it writes
        real, n = os.fsync, [0]
        def fsync(fd):
            n[0] += 1
            if n[0] == 2: os.ftruncate(fd, 100); os.kill(os.getpid(), signal.SIGKILL)
            real(fd)
        os.fsync = fsync
    elif moment is not None: signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL)); signal.setitimer(signal.ITIMER_REAL, moment)
    begun = (Path(out)/'checkpoint.pt').exists() or (Path(out)/'summary.json').exists()
    train(resume=out) if begun else train(data=data, out=out, force=True, **options)

def process(target, *args):
    ctx = multiprocessing.get_context('forkserver')
    ctx.set_forkserver_preload(['imagenette_course.train']) # imported once
    p = ctx.Process(target=target, args=args)
    p.start(); p.join(300)
    return p

def start(*args):
    p = process(work, *args)
    assert p.exitcode in (0, -signal.SIGKILL)
    return p.exitcode == 0

@pytest.mark.slow
@pytest.mark.parametrize('kind', ['quick', 'book', 'stages', 'techniques', 'while writing'])
def test_killed_at_random_moments(tiny, tmp_path, own_folder, kind):
    "Four times each, twenty in all: results, weights and history end as if nothing had happened."
    options = dict(OPTIONS, **dict(quick={}, book=dict(book=True), stages=dict(progressive='2:24,1:32', epochs=None, size=None),
                                    techniques=dict(arch='xresnet18', mixup=None, runs=1, cutmix=1., resizemix=True, mix_p='.5,.3', ema=.9, opt='ranger', erase=.5, blur=True)).get(kind, {}))
    process(int) # so that what follows begins with everything imported
    began = time.perf_counter()
    assert start(tiny, tmp_path/'a', own_folder, options, None)
    whole, rng = time.perf_counter() - began, random.Random(kind)
    for _ in range(4): # each within a fifth of the whole: it can't be done before the last
        assert not start(tiny, tmp_path/'b', own_folder, options, 'writing' if kind == 'while writing' else rng.uniform(.05, .2)*whole)
    assert start(tiny, tmp_path/'b', own_folder, options, None)
    models = [o.name for o in (tmp_path/'a').glob('*.safetensors')]
    assert len(models) == options['runs']
    for f in models:
        a, b = load_file(tmp_path/'a'/f), load_file(tmp_path/'b'/f)
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    a, b = (pd.read_csv(tmp_path/o/'history.csv').drop(columns='seconds') for o in 'ab')
    assert a.equals(b) and len(a) == 4*options['runs']
    left = lambda o: {f.name for f in (tmp_path/o).iterdir()}
    assert left('a') == left('b') and 'checkpoint.pt' not in left('a')
