"The command: its results, its refusals, and what it leaves when it is stopped."
import json, os, re, runpy, signal, subprocess, sys, weakref
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.vision.all import Adam, ranger
from fastai.vision.models.xresnet import xresnet18
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.v2 import functional as TF

from conftest import PROGRAM, command
from imagenette_course import options as options_module, train as train_module
from imagenette_course.checkpoint import Checkpoint, read_checkpoint
from imagenette_course.core import BadInput, OutOfMemory
from imagenette_course.files import image_files
from imagenette_course.dataset import CLASSES, make_sample
from imagenette_course.mixup import MixUp
from imagenette_course.models import load_model
from imagenette_course.options import Options, parse, resolve
from imagenette_course.smoothing import LabelSmoothingCrossEntropy
from imagenette_course.speed import CachedDL, cached_dls, fast_learner, fast_settings
from imagenette_course.mixing import CutMix, RandomMix, ResizeMix
from imagenette_course.techniques import EMA, BlurPool, RandomErasing, muon, use_blur_pool
from imagenette_course.train import *

FAST = ('--arch', 'xresnet18', '--epochs', 1, '--size', 32, '--bs', 8, '--workers', 0)
RESULT_FILES = {'summary.json', 'history.csv', 'loss.png', 'confusion.png', 'model.safetensors'}

@pytest.fixture(scope='module')
def result(tiny, tmp_path_factory):
    "One run of the real command, in a process of its own, as a user has it."
    out = tmp_path_factory.mktemp('out')/'a'
    return command('--data', tiny, '--out', out, *FAST, '--epochs', 2), out

def run_here(monkeypatch, *args):
    "Runs the installed script in this process."
    monkeypatch.setattr(sys, 'argv', [str(PROGRAM), *map(str, args)])
    runpy.run_path(str(PROGRAM), run_name='__main__')

@pytest.fixture
def refused(monkeypatch, capsys):
    "Checks that the command, run in this process to be quick, ends with one line and the exit status."
    def check(args, *words, status=2):
        with pytest.raises(SystemExit) as e: run_here(monkeypatch, *args)
        err = capsys.readouterr().err
        assert e.value.code == status and err.startswith('imagenette_train: ') and len(err.splitlines()) == 1, err
        for o in words: assert o in err, err
    return check

def test_all_results_are_there(result):
    proc,out = result
    assert proc.returncode == 0 and proc.stderr == '', proc.stderr
    assert {o.name for o in out.iterdir()} == RESULT_FILES

def test_terminal_output_is_a_line_an_epoch_and_a_table(result):
    lines = result[0].stdout.splitlines()
    assert lines[0].startswith('Drawn sample: 40 training and 20 validation')
    assert lines[1] == 'xresnet18: 32 px, 8 images a batch, 2 epochs, lr 0.003, seed 42'
    assert [o.split()[1] for o in lines[2:4]] == ['1/2', '2/2']
    assert 'accuracy %' in lines[4] and lines[-1].startswith('Written to ') and len(lines) == 8

def test_summary(result, tiny):
    s = json.loads((result[1]/'summary.json').read_text())
    assert s['accuracy'] == s['accuracies'][0] and s['accuracy_std'] is None and s['seconds'] > 0 and .1 < s['memory_gb'] < 8
    assert s['dataset'] == dict(path=str(tiny), drawn=True, train=40, val=20, classes=list(CLASSES.values()), left_out=0)
    asked = dict(data=str(tiny), arch='xresnet18', size=32, bs=8, epochs=2, workers=0)
    assert s['options'] == asked, 'what was asked for'
    assert s['plan'] == dict(arch='xresnet18', size=32, bs=8, epochs=2, lr=3e-3, opt='adamw', schedule='cycle', smooth=None, crop=.75, grow=None, stages=None), 'what was done'
    assert {'python', 'fastai', 'torch', 'torchvision', 'imagenette_course'} == set(s['versions']) and s['device']

def test_history(result):
    df = pd.read_csv(result[1]/'history.csv')
    assert df.columns.tolist() == ['seed', 'epoch', 'train_loss', 'valid_loss', 'accuracy', 'seconds']
    assert df.epoch.tolist() == [1, 2] and (df.seed == 42).all()

def test_figures(result):
    for o in ('loss.png', 'confusion.png'): assert min(Image.open(result[1]/o).size) > 300

def test_weights(result, tiny):
    clf = load_model(result[1]/'model.safetensors')
    facts = clf.facts
    assert facts['classes'] == list(CLASSES.values()) and facts['size'] == 32
    assert facts['accuracy'] == json.loads((result[1]/'summary.json').read_text())['accuracy']
    assert len(clf(TF.pil_to_tensor(Image.open(image_files(tiny)[0])))) == 10
    assert facts['mean'] == pytest.approx([.485, .456, .406]) and facts['std'] == pytest.approx([.229, .224, .225])

def test_nothing_is_overwritten(result, tiny, refused):
    _,out = result
    before = {o.name: o.read_bytes() for o in out.iterdir()}
    refused(['--data', tiny, '--out', out, *FAST], 'exists already', '--force')
    assert before == {o.name: o.read_bytes() for o in out.iterdir()}

def test_force_replaces_results_and_nothing_else(tiny, tmp_path):
    mine = ['notes.txt', 'model-backup.safetensors']
    for o in mine: (tmp_path/o).write_text('mine')
    for o in ('summary.json', 'model-seed7.safetensors'): (tmp_path/o).write_text('old')
    train(data=tiny, out=tmp_path, force=True, epochs=1, size=32, bs=8, workers=0)
    assert json.loads((tmp_path/'summary.json').read_text())['accuracy'] >= 0
    assert {o.name for o in tmp_path.iterdir()} == {*RESULT_FILES, *mine}
    assert [(tmp_path/o).read_text() for o in mine] == ['mine']*2

def test_a_forced_run_that_fails_leaves_the_old_results(own, tmp_path):
    (tmp_path/'summary.json').write_text('old')
    bad = image_files(own)[5]
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(ValueError): train(data=own, out=tmp_path, force=True, epochs=1, size=32, bs=2, workers=0)
    assert (tmp_path/'summary.json').read_text() == 'old'

def test_two_runs_in_one_second(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train_module._new_folder(None) != train_module._new_folder(None)

def test_out_of_gpu_memory(tiny, refused, monkeypatch):
    def full(*args, **kwargs): raise torch.OutOfMemoryError('CUDA out of memory')
    monkeypatch.setattr(train_module, 'train', full)
    refused(['--data', tiny], 'a smaller --bs', status=1)

def test_a_new_folder_by_default(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(data=tiny, epochs=1, size=32, bs=8, workers=0)
    [out] = (tmp_path/'runs').iterdir()
    assert {o.name for o in out.iterdir()} == RESULT_FILES

@pytest.mark.smoke
def test_several_runs(tiny, tmp_path):
    s = train(data=tiny, epochs=1, size=32, bs=8, workers=0, runs=2, seed=5, out=tmp_path/'a')
    assert len(s['accuracies']) == 2 and s['accuracy_std'] is not None
    assert pd.read_csv(tmp_path/'a/history.csv').seed.tolist() == [5, 6]
    assert {o.name for o in (tmp_path/'a').glob('model*')} == {'model-seed5.safetensors', 'model-seed6.safetensors'}
    assert train(data=tiny, epochs=1, size=32, bs=8, workers=0, seed=6, out=tmp_path/'b')['accuracies'] == s['accuracies'][1:]

def test_techniques(tiny, tmp_path, monkeypatch, capsys):
    "All options at once, by the command: what is recorded, and that each has been at work."
    with pytest.raises(SystemExit) as e:
        run_here(monkeypatch, '--data', tiny, '--out', tmp_path/'a', '--bs', 8, '--workers', 0, '--mixup', .4, '--smooth', .1, '--tta', 2, '--noise', 25,
                 '--progressive', '1:32,1:48')
    assert not e.value.code
    s = json.loads((tmp_path/'a/summary.json').read_text())
    assert {k: s['options'][k] for k in ('mixup', 'smooth', 'tta', 'noise', 'progressive')} == dict(mixup=.4, smooth=.1, tta=2, noise=25, progressive='1:32,1:48')
    assert s['plan']['epochs'] == 3 and s['plan']['size'] == 48 # 1, then fine_tune's 1 + 1
    assert s['tta_accuracies'] == [s['tta_accuracy']] and 0 <= s['tta_accuracy'] <= 1 and s['tta_seconds'] > 0 and s['tta_accuracy_std'] is None
    assert pd.read_csv(tmp_path/'a/history.csv').epoch.tolist() == [1, 2, 3]
    assert 'with 2 augmented views beside the plain one: ' in capsys.readouterr().out
    assert load_model(tmp_path/'a/model.safetensors').size == 48

def spied(monkeypatch, tiny, tmp_path, **options):
    "The learner and the loaders that `train` makes for these options."
    got, options = {}, dict(arch='xresnet18') | options
    def no_fit(learn, *args, **kwargs): got['learn'], learn.spied_name = learn, kwargs['name']; raise BadInput('seen')
    for o in ('fit', 'progressive_fit'): monkeypatch.setattr(train_module, o, no_fit)
    with pytest.raises(BadInput, match='seen'): train(data=tiny, out=tmp_path/'a', force=True, size=None if 'progressive' in options else 32, bs=8, workers=0, **options)
    return got['learn']

def test_each_technique_reaches_the_learner(tiny, tmp_path, monkeypatch):
    plain = spied(monkeypatch, tiny, tmp_path)
    assert type(plain.loss_func).__name__ == 'CrossEntropyLossFlat' and not any(type(o).__name__ == 'MixUp' for o in plain.cbs)
    loss_func = spied(monkeypatch, tiny, tmp_path, smooth=.2).loss_func
    assert isinstance(loss_func, LabelSmoothingCrossEntropy) and loss_func.eps == .2 # ours, and not fastai's of the same name
    [mix] = [o for o in spied(monkeypatch, tiny, tmp_path, mixup=.3).cbs if isinstance(o, MixUp)]
    assert mix.alpha == .3
    labels = lambda learn: [int(y) for _,y in learn.dls.train_ds]
    noisy = spied(monkeypatch, tiny, tmp_path, noise=50)
    assert sum(a != b for a,b in zip(labels(plain), labels(noisy))) == 20 # of 40

def of(kind, learn): return [o for o in learn.cbs if type(o) is kind]

def test_each_technique_of_the_leaderboard_reaches_the_learner(tiny, tmp_path, monkeypatch):
    plain = spied(monkeypatch, tiny, tmp_path)
    assert not any(of(o, plain) for o in (CutMix, ResizeMix, RandomMix, RandomErasing, EMA)) and not any(type(m) is BlurPool for m in plain.model.modules())
    [cut] = of(CutMix, spied(monkeypatch, tiny, tmp_path, cutmix=.7)); assert cut.alpha == .7
    assert of(ResizeMix, spied(monkeypatch, tiny, tmp_path, resizemix=True))
    [mix] = of(RandomMix, spied(monkeypatch, tiny, tmp_path, mixup=.2, cutmix=1.)); assert mix.p == [.5, .5] and [type(o) for o in mix.each] == [MixUp, CutMix]
    [mix] = of(RandomMix, spied(monkeypatch, tiny, tmp_path, cutmix=1., mix_p='.5')); assert mix.p == [.5]
    [mix] = of(RandomMix, spied(monkeypatch, tiny, tmp_path, mixup=.2, cutmix=1., resizemix=True, mix_p='0.1,0.2,0.3')); assert mix.p == [.1, .2, .3]
    [erase] = of(RandomErasing, spied(monkeypatch, tiny, tmp_path, erase=.4)); assert erase.p == .4
    [ema] = of(EMA, spied(monkeypatch, tiny, tmp_path, ema=.99)); assert ema.decay == .99
    for book in (False, True):
        assert spied(monkeypatch, tiny, tmp_path, opt='muon', book=book).opt_func is muon
        assert spied(monkeypatch, tiny, tmp_path, opt='ranger', book=book).opt_func is ranger
    assert any(type(m) is BlurPool for m in spied(monkeypatch, tiny, tmp_path, blur=True).model.modules())
    assert run_name(spied(monkeypatch, tiny, tmp_path, opt='muon', blur=True, ema=.99, mixup=.4)) == 'xresnet18, mixup 0.4, ema 0.99, opt muon, blur'

def run_name(learn): return learn.spied_name

def test_a_blurred_network_is_saved_as_one(tiny, tmp_path):
    train(data=tiny, out=tmp_path/'a', **{**SMALL, 'epochs': 1}, blur=True, ema=.9, erase=.5, cutmix=1., resizemix=True, mix_p='.3,.3')
    clf = load_model(tmp_path/'a/model.safetensors')
    assert clf.facts['blur'] is True and any(type(m) is BlurPool for m in clf.model.modules())
    assert len(clf(Image.open(image_files(tiny)[0]))) == 10
    s = json.loads((tmp_path/'a/summary.json').read_text())
    learn = fast_learner(cached_dls(tiny, 8, 32), xresnet18)
    use_blur_pool(learn.model).load_state_dict(load_file(tmp_path/'a/model.safetensors'))
    with learn.no_bar(), learn.no_logging(): assert learn.validate()[1] == pytest.approx(s['accuracy']) # of the average

def test_what_tensorboard_shows(tiny, tmp_path, refused, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    train(data=tiny, out=tmp_path/'a', **SMALL, tensorboard=True, mixup=.4)
    events = EventAccumulator(str(tmp_path/'a/tensorboard/seed42')).Reload()
    assert [o.step for o in events.Scalars('loss/step')] == list(range(1, 16)) and [o.step for o in events.Images('training images')] == [1, 6, 11]
    df = pd.read_csv(tmp_path/'a/history.csv')
    for k in ('train_loss', 'valid_loss', 'accuracy'): assert [o.value for o in events.Scalars(f'epoch/{k}')] == pytest.approx(df[k].tolist())
    train(data=tiny, out=tmp_path/'a', **{**SMALL, 'epochs': 1}, force=True)
    assert not list(tmp_path.rglob('events.out*'))
    monkeypatch.setattr(options_module, 'find_spec', lambda _: None)
    refused(['--data', tiny, '--out', tmp_path/'b', *FAST, '--tensorboard'], 'pip install tensorboard')

def test_quick_by_default_and_as_the_chapter_does(tiny, tmp_path, monkeypatch):
    quick, book = (spied(monkeypatch, tiny, tmp_path, book=o) for o in (False, True))
    assert any(isinstance(o, ChannelsLast) for o in quick.cbs) == fast_settings(quick.dls.device).channels_last
    assert isinstance(quick.dls.train, CachedDL) and not isinstance(book.dls.train, CachedDL)
    assert quick.opt_func.keywords['opt'] is torch.optim.AdamW and book.opt_func is Adam
    assert book.dls.settings['presize'] == 2*32 and not any(isinstance(o, ChannelsLast) for o in book.cbs) and 'forward' not in vars(book.model)

def test_book_by_the_command(tiny, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as e: run_here(monkeypatch, '--data', tiny, '--out', tmp_path/'a', *FAST, '--book')
    assert not e.value.code and 'xresnet18, book: 32 px' in capsys.readouterr().out
    assert json.loads((tmp_path/'a/summary.json').read_text())['options']['book']

def test_peak_memory_is_of_this_process_alone():
    "Started by a process that has held two gigabytes."
    held = bytearray(b'1'*10**9)
    code = 'from imagenette_course.train import *; a = peak_memory(); b = bytearray(b"1"*10**9); print(a, peak_memory())'
    before,after = map(int, subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                                            env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''}).stdout.split())
    del held
    assert .1e9 < before < 1.7e9 and 1e9 <= after - before < 2.1e9 # the literal and its copy

def test_module_can_be_run(tiny, tmp_path):
    proc = subprocess.run([sys.executable, '-m', 'imagenette_course.train', '--help'], capture_output=True, text=True)
    assert proc.returncode == 0 and '--skip' in proc.stdout and proc.stderr == ''

# ---- resumed, and from files

class Killed(BaseException): pass

def stop_after(monkeypatch, n, data, out, **options):
    "Trains in `out`, and is killed when `n` epochs have been saved."
    real = Checkpoint.after_epoch
    def after_epoch(self):
        real(self)
        if self.n == n and len(self.done) < n: raise Killed
    with monkeypatch.context() as m:
        m.setattr(Checkpoint, 'after_epoch', after_epoch)
        with pytest.raises(Killed): begin_or_go_on(data, out, **options)

def begin_or_go_on(data, out, **options):
    return train(resume=out) if (out/'checkpoint.pt').exists() else train(data=data, out=out, **options)

@pytest.mark.parametrize('options', [dict(opt='ranger', ema=.99, cutmix=1., resizemix=True, mix_p='.4,.4'),
    dict(ema=.9, erase=.5, blur=True, progressive='2:24,1:32', epochs=None, size=None)], ids=str)
def test_techniques_go_on_where_they_stopped(tiny, tmp_path, monkeypatch, options):
    "Killed after each of the epochs, also the last one: the end is the same, bit for bit."
    options = {**SMALL, **options}
    n = train(data=tiny, out=tmp_path/'whole', **options)['plan']['epochs']
    for i in range(1, n+1): stop_after(monkeypatch, i, tiny, tmp_path/'a', **options)
    train(resume=tmp_path/'a')
    a,b = weights(tmp_path/'whole'), weights(tmp_path/'a')
    assert all(torch.equal(a[k], b[k]) for k in a)
    a,b = (pd.read_csv(tmp_path/o/'history.csv').drop(columns='seconds') for o in ('whole', 'a'))
    assert a.equals(b) and len(a) == n

@pytest.fixture
def stopped(tiny, tmp_path, monkeypatch):
    "A folder with two of three epochs."
    stop_after(monkeypatch, 2, tiny, tmp_path/'a', **SMALL, mixup=.2)
    return tmp_path/'a'

SMALL = dict(arch='xresnet18', epochs=3, size=32, bs=8, workers=0)

def ok(monkeypatch, *args):
    with pytest.raises(SystemExit) as e: run_here(monkeypatch, *args)
    assert not e.value.code

def weights(out): return load_file(out/'model.safetensors')

def test_resume_takes_the_folder_alone(stopped, tiny, tmp_path, monkeypatch, capsys):
    ok(monkeypatch, '--resume', stopped)
    text = capsys.readouterr().out
    assert [o.split()[1] for o in text.splitlines() if o.startswith('epoch ')] == ['1/3', '2/3', '3/3'] and 'mixup 0.2' in text
    assert 'goes on after 0 finished runs and 2 epochs of the next' in text
    train(data=tiny, out=tmp_path/'b', **SMALL, mixup=.2)
    a,b = weights(stopped), weights(tmp_path/'b')
    assert all(torch.equal(a[k], b[k]) for k in a) and {o.name for o in stopped.iterdir()} == RESULT_FILES

def test_resume_takes_no_other_option(stopped, tmp_path, refused):
    before = {o.name: o.read_bytes() for o in stopped.iterdir()}
    for args,word in ((('--mixup', .2), 'mixup'), (('--force',), 'force'), (('--out', 'x'), 'out')):
        refused(['--resume', stopped, *args], f'leave --{word} away')
    (tmp_path/'c.toml').write_text('lr = 0.5')
    refused(['--resume', stopped, '--config', tmp_path/'c.toml'], 'leave --lr away')
    assert before == {o.name: o.read_bytes() for o in stopped.iterdir()}

def test_resumed_with_other_images(own, stopped):
    with pytest.raises(BadInput, match='begun with other images than those in'): train(resume=stopped, data=own)

def test_images_that_were_moved(own, tmp_path, monkeypatch, refused):
    "The run goes on with the same images, wherever they lie, and ends as it would have."
    train(data=own, out=tmp_path/'whole', **SMALL)
    stop_after(monkeypatch, 1, own, tmp_path/'a', **SMALL)
    own.rename(tmp_path/'moved')
    refused(['--resume', tmp_path/'a'], f"--resume {tmp_path/'a'} --data FOLDER")
    ok(monkeypatch, '--resume', tmp_path/'a', '--data', tmp_path/'moved')
    a,b = weights(tmp_path/'whole'), weights(tmp_path/'a')
    assert all(torch.equal(a[k], b[k]) for k in a)

def test_resume_of_a_complete_run(result, tiny, monkeypatch, capsys):
    before = {o.name: o.read_bytes() for o in result[1].iterdir()}
    ok(monkeypatch, '--resume', result[1])
    assert 'is complete' in capsys.readouterr().out
    assert before == {o.name: o.read_bytes() for o in result[1].iterdir()}

def test_resumed_before_an_epoch_was_finished(tiny, tmp_path, monkeypatch, refused):
    def stop(*args, **kwargs): raise Killed
    with monkeypatch.context() as m:
        m.setattr(train_module, 'fit', stop)
        with pytest.raises(Killed): train(data=tiny, out=tmp_path/'a', **SMALL, mixup=.2)
    ok(monkeypatch, '--resume', tmp_path/'a')
    assert json.loads((tmp_path/'a/summary.json').read_text())['options']['mixup'] == .2
    refused(['--resume', tmp_path/'nothere'], 'there is no run in it')

def test_runs_that_were_resumed_on_another_machine(tiny, tmp_path, monkeypatch):
    options = dict(SMALL, epochs=1, runs=2)
    stop_after(monkeypatch, 1, tiny, tmp_path/'a', **options)
    train_module.torch.set_num_threads(torch.get_num_threads() + 1)
    try: s = train(resume=tmp_path/'a')
    finally: train_module.torch.set_num_threads(torch.get_num_threads() - 1)
    assert len(s['accuracies']) == 2 and 'threads' in s['device']

def test_a_run_keeps_its_plan(tiny, tmp_path, monkeypatch):
    "What suits the machine that it is resumed on does not count, nor where its learner is taken up again."
    options = {k: v for k,v in SMALL.items() if k != 'bs'}
    stop_after(monkeypatch, 1, tiny, tmp_path/'a', **options)
    real = options_module.baseline_recipe
    monkeypatch.setattr(options_module, 'baseline_recipe', lambda path: real(path) | dict(bs=4, lr=1.))
    plan = train(resume=tmp_path/'a')['plan']
    assert (plan['bs'], plan['lr']) == (16, 3e-3) and trained_learner(tmp_path/'a').dls.bs == 16

def test_numbers_of_numpy(): assert type(Options(seed=np.int64(3), lr=np.float32(.5)).seed) is int

def test_tensorboard_is_remembered(tiny, tmp_path, monkeypatch):
    stop_after(monkeypatch, 1, tiny, tmp_path/'a', **SMALL, tensorboard=True)
    ok(monkeypatch, '--resume', tmp_path/'a')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path/'a/tensorboard/seed42')).Reload()
    assert [o.step for o in events.Scalars('epoch/accuracy')] == [5, 10, 15]

def test_batches_for_two_processes(tiny, tmp_path, refused, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setattr(train_module, 'join', lambda: None)
    monkeypatch.setattr(train_module, 'first_of_machine', nullcontext)
    for bs,words in ((9, '9 images a batch can not be shared by 2 processes'), (2, '4 or more')): refused(['--data', tiny, '--out', tmp_path/'a', *FAST, '--bs', bs], words)
    refused(['--data', tiny, '--out', tmp_path/'a', '--workers', 0, '--progressive', '9:24:8,1:32:7'], '7 images a batch')
    assert list(tmp_path.iterdir()) == []

def test_force_forgets_what_was_stopped(stopped, tiny):
    assert train(data=tiny, out=stopped, force=True, **{**SMALL, 'epochs': 1})['options']['epochs'] == 1
    assert not (stopped/'checkpoint.pt').exists()

def test_a_checkpoint_of_somebody_else(tmp_path, refused):
    (tmp_path/'checkpoint.pt').write_bytes(b'x')
    refused(['--resume', tmp_path], 'checkpoint.pt is not a checkpoint')
    for options in (3, None, dict(foo=1)):
        torch.save(dict(options=options, plan={}, images='', processes=1, done=[], now=None), tmp_path/'checkpoint.pt')
        refused(['--resume', tmp_path], 'is no checkpoint of this version')

def test_the_folder_repeats_the_run(result, tmp_path, monkeypatch):
    ok(monkeypatch, '--config', result[1]/'summary.json', '--out', tmp_path/'again')
    a,b = weights(result[1]), weights(tmp_path/'again')
    assert all(torch.equal(a[k], b[k]) for k in a)
    a,b = (json.loads((o/'summary.json').read_text())['options'] for o in (result[1], tmp_path/'again'))
    assert a == b

def test_the_command_line_wins(result, tmp_path, monkeypatch):
    ok(monkeypatch, '--config', result[1]/'summary.json', '--out', tmp_path/'a', '--epochs', 1, '--seed', 42, '--noise', 0)
    s = json.loads((tmp_path/'a/summary.json').read_text())['plan']
    assert (s['epochs'], s['size'], s['bs']) == (1, 32, 8)

def test_refused_files(tiny, tmp_path, refused):
    args = ['--data', tiny, '--config', tmp_path/'c.toml', '--out', tmp_path/'a']
    for text,words in (('epoch = 1', 'no option epoch'), ('epochs = "1"', 'must be of type int'), ('config = "a"', 'no option config'), ('=', 'not TOML')):
        (tmp_path/'c.toml').write_text(text)
        refused(args, 'c.toml', words)
    (tmp_path/'c.json').write_text('{"options": []}')
    refused(['--config', tmp_path/'c.json'], 'not JSON with options')
    (tmp_path/'c.toml').unlink()
    refused(args, 'c.toml')

def test_a_loss_that_is_no_number(tiny, tmp_path, refused, monkeypatch):
    def spoil(self): self.learn.loss_grad = self.learn.loss_grad*float('nan'); self.learn.loss = self.learn.loss_grad.clone()
    class Spoil(MixUp):
        def after_loss(self):
            super().after_loss()
            if self.epoch == 1 and self.iter == 2: spoil(self)
    monkeypatch.setitem(options_module.TECHNIQUES, 'mixup', Spoil)
    refused(['--data', tiny, '--out', tmp_path/'a', *FAST, '--epochs', 3, '--mixup', .2], 'the loss is nan at step 3 of 5 in epoch 2', 'checkpoint.pt holds the epochs before', status=1)
    assert {o.name for o in (tmp_path/'a').iterdir()} == {'history.csv', 'checkpoint.pt'}

def test_a_batch_too_large_for_the_memory(tiny, tmp_path, refused, monkeypatch):
    "Before the first epoch and after it; the checkpoint stays, and the run goes on from it."
    def full(*args, **kwargs): raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate ...')
    line = 'too little memory for --bs 20 at 32 px: begin another run with a smaller --bs or --size; stopped'
    args = ['--data', tiny, '--out', tmp_path/'a', *FAST, '--bs', 20, '--epochs', 2]
    class Full(MixUp):
        def before_batch(self): (full if self.epoch == self.at else super().before_batch)()
    monkeypatch.setitem(options_module.TECHNIQUES, 'mixup', Full)
    for at,left in ((0, 'before an epoch was finished'), (1, 'holds 1 of 2 epochs')):
        Full.at = at
        refused(['--resume', tmp_path/'a'] if at else [*args, '--mixup', .2], line, left, f"--resume {tmp_path/'a'}", status=1)
        assert (tmp_path/'a/checkpoint.pt').exists()
    Full.at = None
    ok(monkeypatch, '--resume', tmp_path/'a')
    assert {o.name for o in (tmp_path/'a').iterdir()} == RESULT_FILES

def test_the_memory_of_a_training_that_failed_is_free(tiny, tmp_path, monkeypatch):
    "A study goes on with its next training."
    nets = []
    def full(learn, *args, **kwargs):
        nets.append(weakref.ref(learn.model))
        raise torch.OutOfMemoryError
    monkeypatch.setattr(train_module, 'fit', full)
    with pytest.raises(OutOfMemory) as e: train(data=tiny, out=tmp_path/'a', **SMALL)
    assert nets[0]() is None and e.value.__context__ is None

def test_a_stage_too_large_for_the_memory(tiny, tmp_path, refused, monkeypatch):
    def full(*args, **kwargs): raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate ...')
    monkeypatch.setattr(train_module, 'progressive_fit', full)
    refused(['--data', tiny, '--out', tmp_path/'a', '--bs', 4, '--progressive', '1:24:30,1:32'],
            'too little memory for --progressive 1:24:30,1:32: give its larger stages a smaller batch, as in epochs:size:bs; stopped', status=1)

# ---- bad input

def test_refused_options(tiny):
    "What can't work with any images."
    for o,words in (
        (dict(size=4), '--size=4'), (dict(lr=float('nan')), '--lr=nan'), (dict(seed=2**32-1, runs=2), '--runs 2'), (dict(arch='vgg'), '--arch=vgg: it must be one of xresnet101'),
        (dict(noise=3), 'noise=3: it must be one of 0, 1, 5'), (dict(mixup=-1), '--mixup: alpha=-1'), (dict(smooth=1), '--smooth: eps=1'), (dict(epochs='1'), 'must be of type int'), (dict(bs=True), 'must be of type int'),
        (dict(mix_p='.5'), 'a number for each'), (dict(mix_p='a'), 'a number for each'), (dict(mixup=.4, mix_p='a'), '--mix_p a: it must be a number for each'), (dict(mixup=.4, cutmix=1, mix_p='.9,.9'), 'sum(p)=1.8'),
        (dict(opt='ranger', progressive='1:32'), '--opt ranger and --progressive'), (dict(progressive='1:32', epochs=2), '--epochs and --progressive'),
        (dict(book=True, crop=.5), '--crop and --book'), (dict(arch='xresnet18', no_whiten=True), 'can be whitened')):
        with pytest.raises(BadInput, match=re.escape(words)): Options(**o)

def test_options_that_these_images_refuse(tiny):
    for o,words in (
        (dict(subset=5), 'has only 4 images'), (dict(bs=41), '--bs=41: it must be a whole number between 2 and 40'), (dict(progressive='1:x'), "'1:x'"), (dict(progressive='1:32,1:32'), 'must grow'),
        (dict(progressive='1:8,1:32'), 'sprintnet needs images of 18 px or more'), (dict(size=16), '16 px are too small'), (dict(progressive='1:32:41'), 'bs=41')):
        with pytest.raises(BadInput, match=re.escape(words)): resolve(Options(**o), tiny)

def test_a_refusal_leaves_no_folder(tiny, tmp_path, refused):
    for args,words in ((('--erase', 2), '--erase: p=2'), (('--bs', 41), '--bs=41')): refused(['--data', tiny, '--out', tmp_path/'a', *args], words)
    refused(['--data', 'nowhere', '--out', tmp_path/'a'], "'nowhere' is neither")
    assert list(tmp_path.iterdir()) == []

@pytest.mark.smoke
def test_both_spellings():
    for arg in ('--mix_p=.5', '--mix-p=.5'): assert parse([arg, '--skip_bad']) == parse([arg, '--skip-bad']) == (dict(mix_p='.5', skip_bad=True), None)

def test_a_word_where_a_number_belongs(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as e: run_here(monkeypatch, '--epochs', 'five', '--out', tmp_path/'a')
    assert e.value.code == 2 and "invalid int value: 'five'" in capsys.readouterr().err and list(tmp_path.iterdir()) == []

def test_a_class_is_missing(own, tmp_path, refused):
    for o in (own/'val/n03028079').iterdir(): o.unlink()
    refused(['--data', own, '--out', tmp_path/'a', *FAST], 'n03028079')

def test_no_network(tmp_path):
    "fastai's own folder is moved to an empty one, and the proxy is one where nothing listens."
    nowhere = 'http://127.0.0.1:9'
    env = dict(FASTAI_HOME=str(tmp_path/'fastai'), http_proxy=nowhere, https_proxy=nowhere, HTTPS_PROXY=nowhere, HTTP_PROXY=nowhere)
    proc = command('--data', '160', '--out', tmp_path/'a', env=env)
    assert proc.returncode == 2 and 'Three ways out' in proc.stderr.splitlines()[-1], proc
    assert len(proc.stderr.splitlines()) == 1 and not (tmp_path/'a').exists()

def test_out_is_a_file(tiny, tmp_path, refused):
    (tmp_path/'a').write_text('mine')
    refused(['--data', tiny, '--out', tmp_path/'a', *FAST], 'is a file: name a folder')
    assert (tmp_path/'a').read_text() == 'mine'

def test_a_folder_that_can_not_be_made(tiny, tmp_path, refused):
    (tmp_path/'file').write_text('mine')
    refused(['--data', tiny, '--out', tmp_path/'file/a', *FAST], f"{tmp_path/'file/a'} could not be made", 'name another --out')

def test_too_little_shared_memory(tiny, tmp_path, refused, monkeypatch):
    def full(*args, **kwargs): raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ...')
    monkeypatch.setattr(train_module, 'fit', full)
    refused(['--data', tiny, '--out', tmp_path/'a', *FAST, '--book'], 'too little shared memory', '--workers 0', status=1)

def test_an_unreadable_image(own, tmp_path, refused):
    bad = image_files(own)[5]
    bad.write_bytes(bad.read_bytes()[:300])
    for workers in (0, 2): refused(['--data', own, *FAST, '--bs', 2, '--workers', workers, '--out', tmp_path/'a'], bad.name, '--skip_bad')

def test_skip_bad(own, tmp_path, capsys):
    bad = image_files(own)[5]
    bad.write_bytes(bad.read_bytes()[:300])
    s = train(data=own, epochs=1, size=32, bs=2, workers=0, skip_bad=True, out=tmp_path/'b')
    assert f'--skip_bad leaves out 1: {bad.name} (damaged' in capsys.readouterr().out
    assert s['dataset']['left_out'] == 1 and s['dataset']['train'] + s['dataset']['val'] == 39
    assert train(data=own, epochs=1, size=32, bs=2, workers=0, skip_bad=True, subset=2, out=tmp_path/'c')['dataset']['train'] == 20

def test_the_disk_is_full(tiny, tmp_path):
    "No file of this process may grow past 1 MB: the checkpoint doesn't fit."
    resource = pytest.importorskip('resource') # not on Windows
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
    proc = command('--data', tiny, '--out', tmp_path/'a', *FAST, preexec_fn=limit)
    assert proc.returncode == 2 and len(proc.stderr.splitlines()) == 1, proc.stderr
    assert 'checkpoint.pt could not be written' in proc.stderr and 'make room' in proc.stderr
    assert [o.name for o in (tmp_path/'a').iterdir()] == ['checkpoint.pt'] and read_checkpoint(tmp_path/'a/checkpoint.pt')['now'] is None # of the beginning

def test_ctrl_c_of_a_forced_run_says_nothing_of_the_old_one(result, tiny, tmp_path, monkeypatch, capsys):
    (tmp_path/'history.csv').write_bytes((result[1]/'history.csv').read_bytes())
    (tmp_path/'summary.json').write_text('{}')
    def stop(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr(train_module, 'fit', stop)
    with pytest.raises(SystemExit) as e: imagenette_train(data=str(tiny), out=str(tmp_path), force=True)
    assert e.value.code == 130 and 'stopped before an epoch was finished' in capsys.readouterr().err
    assert {o.name for o in tmp_path.iterdir()} == {'checkpoint.pt', 'history.csv'}

def test_the_batch_fits_a_small_set(own):
    plan = resolve(Options(workers=0, subset=1), own)
    assert plan.bs == 10 and sum(o.parts[-3] == 'train' for o in plan.files) == 10

@pytest.mark.slow
def test_ctrl_c(tiny, tmp_path):
    out = tmp_path/'a'
    proc = subprocess.Popen([PROGRAM, '--data', tiny, '--epochs', '500', '--size', '32', '--bs', '8', '--out', out, '--workers', '0'],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, 'IN_TEST': '1'},
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) # a shell's background job would ignore it
    for line in proc.stdout:
        if line.startswith('epoch 2/'): break
    proc.send_signal(signal.SIGINT)
    _,err = proc.communicate(timeout=60)
    assert proc.returncode == 130 and len(err.splitlines()) == 1 and 'history.csv holds ' in err and ' of 500 epochs' in err, err
    first = (out/'history.csv').read_text().splitlines()[0]
    assert first.startswith('# partial: ') and first.endswith('of 500 epochs')
    df = pd.read_csv(out/'history.csv', comment='#')
    assert len(df) >= 2 and first == f'# partial: {len(df)} of 500 epochs'
    assert {o.name for o in out.iterdir()} == {'history.csv', 'checkpoint.pt'} and f'--resume {out} goes on' in err

def test_a_mistake_of_ours_is_not_hidden(tiny, tmp_path, monkeypatch):
    def broken(*args, **kwargs): raise KeyError('a bug')
    monkeypatch.setattr(train_module, 'train', broken)
    with pytest.raises(KeyError): imagenette_train(data=str(tiny))
    def inside(*args, **kwargs): raise ValueError('a bug')
    monkeypatch.setattr(train_module, 'train', inside)
    with pytest.raises(ValueError): imagenette_train(data=str(tiny))

@pytest.mark.real
@pytest.mark.slow
def test_photographs(photos, tmp_path):
    s = train(data=photos, arch='xresnet18', subset=60, epochs=2, size=32, bs=16, lr=1e-2, out=tmp_path/'a')
    assert s['dataset']['train'] == 600 and s['dataset']['val'] == 3925 and not s['dataset']['drawn']
    assert s['accuracy'] > .15 # chance is .1

@pytest.mark.gpu
def test_command_on_the_gpu(sample, tmp_path):
    s = train(data='sample', out=tmp_path/'a')
    assert .8 <= s['accuracy'] and s['device'] == torch.cuda.get_device_name()

# ---- what a command says

def test_version(monkeypatch, capsys):
    for prog in ('imagenette_train', 'imagenette_predict', 'imagenette_study'):
        with pytest.raises(SystemExit) as e:
            monkeypatch.setattr(sys, 'argv', [prog, '--version'])
            runpy.run_path(str(PROGRAM.with_name(prog)), run_name='__main__')
        assert not e.value.code and re.fullmatch(r'imagenette_course \d+\.\d+\.\d+\n', capsys.readouterr().out)

def test_errors_of_callbacks_have_no_stray_sign(capsys):
    with pytest.raises(SystemExit), train_module.in_one_line('p'): raise BadInput('Exception occured in `X` when calling event `before_fit`:\n\tsize=16: too small')
    assert capsys.readouterr().err == 'p: size=16: too small\n'

def test_each_command_advises_what_it_has(capsys):
    for smaller in ('set CUDA_VISIBLE_DEVICES=', 'try a smaller --bs or --size'):
        with pytest.raises(SystemExit), train_module.in_one_line('p', smaller=smaller): raise torch.OutOfMemoryError
        assert capsys.readouterr().err.rstrip().endswith(smaller)
