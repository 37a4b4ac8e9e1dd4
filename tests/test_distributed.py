"Two processes on a CPU: what each sees, what they compute together, and what is left when one of them dies."
import json, multiprocessing, os, random, re, signal, socket, subprocess, sys, time
from pathlib import Path

import pandas as pd
import pytest
import torch
from fastai.vision.all import Callback, CrossEntropyLossFlat, DataLoaders, F, Learner, TfmdDL, accuracy, math, nn, rank_distrib
from fastai.vision.models.xresnet import xresnet18
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file

from imagenette_course import distributed as module
from imagenette_course.baseline import fit, get_learner
from imagenette_course.checkpoint import read_checkpoint
from imagenette_course.core import BadInput
from imagenette_course.dataset import get_dls
from imagenette_course.distributed import *
from imagenette_course.speed import cached_dls
from imagenette_course.train import train

# ---- who sees what

@settings(max_examples=300, deadline=None)
@given(n_images=st.integers(0, 70), share=st.integers(1, 9), n=st.integers(1, 5), drop_last=st.booleans())
def test_each_batch_is_split_and_nothing_is_lost(n_images, share, n, drop_last):
    idxs, bs = random.Random(n_images).sample(range(1000), n_images), share*n
    parts = [share_of_batches(idxs, bs, rank, n, drop_last) for rank in range(n)]
    assert len({len(o) for o in parts}) == 1
    whole = n_images - n_images%bs if drop_last else n_images
    together = []
    for start in range(0, whole, bs):
        size = min(bs, whole-start)
        each = math.ceil(size/n)
        batch = [i for o in parts for i in o[start//n:start//n+each]]
        assert batch[:size] == idxs[start:start+size] and set(batch) == set(batch[:size])
        together += batch[:size]
    assert together == idxs[:whole]

def pairs(n=44, bs=8, shuffle=False):
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(n, 3, 8, 8, generator=g), torch.randint(0, 3, (n,), generator=g)
    return TfmdDL([*zip(x, y)], bs=bs, shuffle=shuffle, drop_last=shuffle, num_workers=0, device='cpu', after_batch=[])

@pytest.mark.parametrize('shuffle', [False, True])
def test_split_loaders_give_the_batches_of_the_whole_one(shuffle):
    def loader(): o = pairs(shuffle=shuffle); o.rng.seed(3); return o
    whole, parts = loader(), [SplitDL(loader(), rank, 2) for rank in range(2)]
    for epoch in range(3):
        batches = [[[*o] for o in dl] for dl in (whole, *parts)]
        assert len(whole) == len(batches[0]) == len(batches[1]) == len(batches[2]) == len(parts[0]) == (5 if shuffle else 6)
        for a,b,c in zip(*batches):
            for k in range(2): assert torch.equal(torch.cat([b[k], c[k]])[:len(a[k])], a[k])

@pytest.mark.parametrize('make', [get_dls, cached_dls])
def test_loaders_of_the_course(tiny, make):
    dls = make(tiny, bs=8, size=32)
    for dl in dls.loaders:
        dl.rng.seed(1); whole = [*dl.get_idxs()]
        seen = []
        for rank in range(2): dl.rng.seed(1); seen.append(SplitDL(dl, rank, 2).get_idxs())
        assert sorted(sum(seen, [])) == sorted(whole)[:len(whole)] # 40 and 20, multiples of 2 and of 8 or not dropped
        x,y = next(iter(SplitDL(dl, 1, 2)))
        assert x.shape == (4, 3, 32, 32) and y.shape == (4,)

def test_a_batch_that_can_not_be_split():
    with pytest.raises(BadInput, match='bs=8 can not be split between 3 processes'): SplitDL(pairs(), 0, 3)

# ---- alone

def test_alone_nothing_changes(monkeypatch):
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    learn = Learner(DataLoaders(pairs(shuffle=True), pairs()), nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), loss_func=F.cross_entropy)
    before = list(learn.cbs)
    with distributed(learn) as o: assert o is learn and list(learn.cbs) == before
    join()
    assert is_first() and one_for_all(3) == 3 and from_all(3) == [3]
    with first_of_machine(), first_speaks(), told_to_stop(): pass
    with pytest.raises(RuntimeError, match='gloo'), told_to_stop(): raise RuntimeError('gloo')

def test_without_the_extra(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setattr(module, 'find_spec', lambda _: None)
    with pytest.raises(BadInput, match='pip install accelerate'): join()

def test_others_are_quiet(monkeypatch, capsys):
    monkeypatch.setenv('RANK', '1')
    with first_speaks(): print('a')
    monkeypatch.setenv('RANK', '0')
    with first_speaks(): print('b')
    assert capsys.readouterr().out == 'b\n'

# ---- two processes

def free_port():
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); return s.getsockname()[1]

def in_process(task, rank, n, port, args, out):
    torch.set_num_threads(1)
    os.environ.update(IN_TEST='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(n), LOCAL_WORLD_SIZE=str(n))
    join()
    torch.save(task(*args), out/f'{n}-{rank}')

def together(task, out, *args, n=2):
    "What each of `n` processes gives back."
    ctx, port = multiprocessing.get_context('forkserver'), free_port()
    ctx.set_forkserver_preload(['imagenette_course.train']) # imported once
    ps = [ctx.Process(target=in_process, args=(task, rank, n, port, args, out)) for rank in range(n)]
    for p in ps: p.start()
    for p in ps: p.join(300)
    assert [p.exitcode for p in ps] == [0]*n
    return [torch.load(out/f'{n}-{rank}', weights_only=False) for rank in range(n)]

class Draw(Callback):
    "Keeps the first random number of each fit."
    def before_fit(self): self.got = getattr(self, 'got', []) + [torch.rand(1).item()]

def toy_training():
    "A network without batch normalization: two processes compute what one does."
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    learn = Learner(DataLoaders(pairs(shuffle=True), pairs(n=43)), net, loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    learn.seed, learn.n_fits, draw = 5, 0, Draw()
    with distributed(learn):
        run = fit(learn, 3, 1e-2, show=False, cbs=draw)
        preds = learn.get_preds()
    return dict(rows=run.history, weights=learn.model.state_dict(), preds=preds, drawn=draw.got[0], wrapped=type(learn.model).__name__)

def test_two_processes_train_as_one(tmp_path):
    [one], (a, b) = together(toy_training, tmp_path, n=1), together(toy_training, tmp_path)
    for k,v in one['weights'].items():
        torch.testing.assert_close(a['weights'][k], v, rtol=1e-4, atol=1e-5)
        assert torch.equal(a['weights'][k], b['weights'][k])
    for x,y in zip(one['rows'], a['rows']):
        assert x['accuracy'] == pytest.approx(y['accuracy'], abs=1e-6) and x['valid_loss'] == pytest.approx(y['valid_loss'], rel=1e-4)
    assert all(torch.equal(x, y) for x,y in zip(a['preds'], b['preds']))
    assert a['drawn'] == one['drawn'] != b['drawn'] # each process augments by itself
    assert a['wrapped'] == 'Sequential'

def predictions(path, weights):
    learn = get_learner(get_dls(path, bs=8, size=32), xresnet18)
    learn.model.load_state_dict(weights)
    with distributed(learn): return [*learn.get_preds(), *learn.validate()]

def test_the_same_predictions_for_the_same_weights(tiny, tmp_path):
    "20 images in batches of 8: the last one is split into twos; and every process has the answer for all."
    torch.manual_seed(3)
    weights = xresnet18(n_out=10).state_dict()
    [one], (a, b) = together(predictions, tmp_path, tiny, weights, n=1), together(predictions, tmp_path, tiny, weights)
    assert one[0].shape == a[0].shape == (20, 10) and torch.equal(one[1], a[1])
    torch.testing.assert_close(a[0], one[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(a[0], b[0]) and a[2] == pytest.approx(one[2], rel=1e-4) and a[3] == pytest.approx(one[3], abs=1e-6)

def odd_number(): return [one_for_all(10 + rank_distrib()), from_all(rank_distrib()), gather(torch.arange(2) + 2*rank_distrib(), 3)]

def test_values_go_round(tmp_path):
    for o in together(odd_number, tmp_path): assert o[0] == 10 and o[1] == [0, 1] and o[2].tolist() == [0, 1, 2]

# ---- the command

TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '-m', 'imagenette_course.train']
ACCELERATE = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2', '--num_machines', '1', '--mixed_precision', 'no',
              '--dynamo_backend', 'no', '-m', 'imagenette_course.train'] # there are no GPUs here: what it starts finds that out

def launch(command, *args):
    env = {**os.environ, 'IN_TEST': '1', 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen([*command, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True)

def worker(parent, rank):
    "The process with this number below a launcher."
    for o in Path('/proc').glob('[0-9]*'):
        try: ppid, env = int(re.search(r'PPid:\s+(\d+)', (o/'status').read_text())[1]), (o/'environ').read_bytes().split(b'\0')
        except (OSError, TypeError): continue # gone
        if ppid == parent and f'RANK={rank}'.encode() in env: return int(o.name)
    raise LookupError(f'no process {rank} below {parent}')

@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/environ').exists(), reason='needs /proc to find the process to kill')
def test_a_worker_is_killed(tiny, tmp_path):
    "By both launchers: the run ends with a line that says how to go on, and goes on to the same end as one left alone."
    options = ('--data', tiny, '--size', 32, '--bs', 8, '--epochs', 12, '--mixup', .4, '--ema', .9, '--workers', 1)
    proc = launch(TORCHRUN, *options, '--out', tmp_path/'a')
    for line in proc.stdout:
        if line.startswith('epoch 2/'): break
    os.kill(worker(proc.pid, 1), signal.SIGKILL)
    _,err = proc.communicate(timeout=120)
    said = [o for o in err.splitlines() if o.startswith('imagenette_train: ')]
    assert proc.returncode and len(said) == 1 and 'of this run' in said[0] and f'--resume {tmp_path}/a goes on' in said[0], err
    done = len(read_checkpoint(tmp_path/'a/checkpoint.pt')['now']['history'])
    assert 2 <= done < 12
    assert {o.name for o in (tmp_path/'a').iterdir() if not o.name.startswith('.')} == {'checkpoint.pt', 'history.csv'}
    with pytest.raises(BadInput, match='was begun with processes=2, and these are 1: .*torchrun --nproc-per-node 2'): train(resume=tmp_path/'a')
    for args in (('--resume', tmp_path/'a'), (*options, '--out', tmp_path/'b')):
        proc = launch(ACCELERATE, *args)
        text,err = proc.communicate(timeout=300)
        assert proc.returncode == 0 and text.count('epoch 12/12') == 1, err
    a,b = (load_file(tmp_path/o/'model.safetensors') for o in 'ab')
    assert all(torch.equal(a[k], b[k]) for k in a)
    a,b = (pd.read_csv(tmp_path/o/'history.csv').drop(columns='seconds') for o in 'ab')
    assert a.equals(b) and len(a) == 12
    assert json.loads((tmp_path/'b/summary.json').read_text())['accuracy'] == b.accuracy.iloc[-1]

@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')
def test_two_gpus(sample, tmp_path):
    proc = launch(TORCHRUN, '--data', 'sample', '--epochs', 2, '--out', tmp_path/'a')
    _,err = proc.communicate(timeout=300)
    assert proc.returncode == 0 and len(pd.read_csv(tmp_path/'a/history.csv')) == 2, err
