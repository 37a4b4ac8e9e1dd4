"Plans, tables and the study itself, also killed and gone on with."
import json, math, re, shutil, subprocess, sys, tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import Callback
from hypothesis import given, settings, strategies as st

from imagenette_course import study as module
from imagenette_course.record import no_output
from imagenette_course.core import BadInput, Diverged, OutOfMemory
from imagenette_course.dataset import make_sample
from imagenette_course.study import *
from imagenette_course.options import Options
from imagenette_course.sprint import epoch_sizes
from imagenette_course.train import train, trained_learner
from imagenette_course.tta import tta

SMALL = dict(arch='xresnet18', size=24, bs=8, epochs=1)

@pytest.fixture
def file(tmp_path):
    "Writes a plan."
    def write(text):
        (tmp_path/'plan.toml').write_text(text)
        return tmp_path/'plan.toml'
    return write

@pytest.fixture
def plan(tiny):
    return [dict(part='p', kind=k, options=dict(SMALL, data=str(tiny), **o), seed=s, views=0) for s in (42, 43) for k,o in dict(plain={}, mixup=dict(mixup=.4)).items()]

# ---- plans

@pytest.mark.smoke
def test_a_plan_is_a_grid():
    runs = expand_plan(tomllib.loads('[all]\nsize = 32\nruns = 2\n[parts.a]\nepochs = [1, 2]\nkinds.x = {}\nkinds.y = {mixup = 0.4, runs = 1}\n[parts.b]\nseed = 7\nviews = 3'))
    assert len(runs) == 2*2 + 2 + 2
    assert [r['kind'] for r in runs] == ['x', 'x', 'y', 'y', 'x', 'x', 'b', 'b']
    assert [r['seed'] for r in runs] == [42]*4 + [43]*2 + [7, 8]
    assert runs[3] == dict(part='a', kind='y', options=dict(size=32, epochs=2, mixup=.4), seed=42, views=0)
    assert runs[-1]['views'] == 3 and 'views' not in runs[-1]['options'] and 'runs' not in runs[-1]['options']

@given(epochs=st.lists(st.integers(1, 9), min_size=1, max_size=3), noise=st.lists(st.sampled_from([0, 5, 25]), min_size=1, max_size=3), runs=st.integers(0, 4), kinds=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_plan_has_each_combination_once(epochs, noise, runs, kinds):
    made = expand_plan(dict(parts=dict(a=dict(epochs=epochs, noise=noise, runs=runs, kinds={str(i): {} for i in range(kinds)}))))
    assert len(made) == len(epochs)*len(noise)*runs*kinds
    assert [r['seed'] for r in made] == sorted(r['seed'] for r in made)

@pytest.mark.smoke
def test_mistakes_in_a_plan(file):
    for text,why in [
        ('', 'has no parts'), ('[al]\n[parts.a]', 'there is no table al'), ('a = ', 'is not TOML'), ('all = 3\n[parts.a]', 'all must be a table'),
        ('[parts]\na = 3', 'parts.a must be a table'), ('[parts.a]\nkinds.x = 3', 'parts.a.kinds.x must be a table'),
        ('[parts.a]\nkind = 3', 'there is no option kind'), ('[parts.a]\nepochs = "3"', 'it must be of type int'), ('[parts.a]\nepochs = [1, 0]', '--epochs'),
        ('[parts.a]\nout = "x"', 'there is no option out'), ('[parts.a]\nruns = 0', 'plans no training'), ('[parts.a]\nruns = [1, 2]', 'part a: runs=[1, 2]: it must be a whole number'),
        ('[parts.a]\nkinds.x = {data = "160"}\nkinds.y = {data = "320"}', 'has several datasets'),
        ('[parts.a]\nepochs = 3\nprogressive = "1:24"', '--epochs and --progressive'), ('[parts.a]\nkinds.x = {noise = 7}', 'part a, kind x: --noise=7')]:
        with pytest.raises(BadInput, match=re.escape(why)): read_plan(file(text))

def test_a_plan_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='cpu, cpu-xresnet18, gpu, leaderboard, sample'): find_plan('nothing')
    with pytest.raises(BadInput, match='is not TOML'):
        (tmp_path/'p.toml').write_bytes(b'a = "\xff"')
        read_plan(tmp_path/'p.toml')
    assert find_plan(tmp_path/'p.toml') == tmp_path/'p.toml'

def test_plans_of_the_package():
    for name in ('sample', 'cpu', 'gpu', 'leaderboard', 'sprint'):
        runs = read_plan(find_plan(name))
        assert len({(r['part'], training_key(r['options'], r['seed'])) for r in runs}) == len(runs), f'a part of {name} has the same training twice'

def test_the_leaderboard_keeps_its_rules():
    runs = read_plan(find_plan('leaderboard'))
    assert all(not r['views'] and not r['options'].get('noise') for r in runs)
    lengths = pd.DataFrame([dict(r['options'], seed=r['seed']) for r in runs]).groupby(['size', 'epochs']).seed.nunique()
    assert lengths.to_dict() == {(128, 5): 5, (128, 20): 5, (128, 80): 5, (192, 5): 5, (192, 20): 5}

@pytest.mark.parametrize('name', ['cpu', 'gpu'])
def test_growing_images_have_equal_compute(name):
    "Pixels of all epochs are those of the one size that they are compared with, or up to a fifth fewer."
    def pixels(o): return sum(s**2 for s in epoch_sizes(o['epochs'], o['grow'], o['size'])) if o.get('grow') else sum(epoch_costs(o))/1000
    ratios = []
    for part in ('stages', 'growing', 'growing20', 'progressive', 'progressive20', 'progressive80'):
        kinds = {r['kind']: pixels(r['options']) for r in read_plan(find_plan(name)) if r['part'] == part}
        ratios += [v/kinds['base'] for k,v in kinds.items() if k != 'base']
    assert len(ratios) == 3 and all(.8 < r < 1.1 for r in ratios)

# ---- keys, costs, the table

def test_the_key_leaves_out_what_is_usual():
    assert training_key(dict(seed=7, data='x', mixup=1, noise=0), 3) == '{"mixup": 1.0, "seed": 3}'
    assert training_key(dict(mixup=1., smooth=.1), 3) == training_key(dict(smooth=.1, mixup=1), 3) != training_key(dict(smooth=.1, mixup=1), 4)

def test_costs():
    assert epoch_costs(dict(size=32, epochs=2, subset=10)) == [10*32**2]*2
    assert epoch_costs(dict(progressive='2:32,1:64', subset=1)) == [32**2]*2 + [64**2]*2 # a later stage trains one more
    assert len(epoch_costs({})) == 5

def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = [dict(options='{"a": 1}', seed=1, accuracy=.5, accuracies=[.1, .5], tta_mean=[.5, .6]), dict(options='b', seed=2, accuracy=.25, accuracies=[.25])]
    (tmp_path/'s.csv').write_bytes(module._csv(rows))
    got = read_study(tmp_path/'s.csv').to_dict('records')
    assert got[0]['accuracies'] == [.1, .5] and got[0]['tta_mean'] == [.5, .6] and got[1]['tta_mean'] is None and got[0]['options'] == '{"a": 1}'
    assert module._csv(got) == (tmp_path/'s.csv').read_bytes()

def test_rows_from_before_images_were_recorded(tmp_path):
    "They stay, and the others can be read beside them."
    rows = [dict(options='a', seed=1, accuracy=.5, accuracies=[.5]), dict(options='b', seed=2, accuracy=.25, accuracies=[.25], val_images=4, right='40')]
    (tmp_path/'s.csv').write_bytes(module._csv(rows))
    df = read_study(tmp_path/'s.csv')
    assert right_images(df.iloc[1]).tolist() == [False, True, False, False] and not isinstance(df.right[0], str)

def test_what_is_no_table(tmp_path):
    for data in (b'', b'a,b\n1,2\n', b'\xff\xfe\x00', b'a\n1,2,3\n4\n"'):
        (tmp_path/'s.csv').write_bytes(data)
        with pytest.raises(BadInput, match='is no table of imagenette_study'): read_study(tmp_path/'s.csv')

# ---- the study

def test_a_study(plan, tmp_path, capsys):
    df = run_study(plan, tmp_path/'o')
    assert len(df) == 4 and [f.name for f in (tmp_path/'o').iterdir()] == ['study.csv']
    assert capsys.readouterr().out.count('accuracy') == 4
    want = train(**plan[1]['options'], seed=42, out=tmp_path/'alone', show=False)
    row = df.iloc[1]
    assert row.accuracy == want['accuracy'] == pytest.approx(row.accuracies[-1], abs=1e-5) and row.seed == 42 and row.train_images == 40
    assert row.seconds > 0 and row.images_a_second == pytest.approx(40/row.seconds)
    assert capsys.readouterr().out == '', 'show=False printed something'
    learn = trained_learner(tmp_path/'alone')
    with no_output(learn): probs,targs = learn.get_preds()
    assert right_images(row).tolist() == (probs.argmax(1) == targs).tolist() and right_images(row).mean() == pytest.approx(row.accuracy)
    capsys.readouterr()
    before = (tmp_path/'o/study.csv').read_bytes()
    run_study(plan, tmp_path/'o')
    assert (tmp_path/'o/study.csv').read_bytes() == before and '0 are left' in capsys.readouterr().out

def test_a_study_that_was_stopped(plan, tmp_path, monkeypatch):
    plan = [dict(r, options=dict(r['options'], epochs=3)) for r in plan[:2]]
    whole = run_study(plan, tmp_path/'whole')
    real, n = EpochSeconds.after_epoch, [0]
    def after_epoch(self):
        n[0] += 1
        if n[0] == 6: raise KeyboardInterrupt # in the second training
        real(self)
    monkeypatch.setattr(EpochSeconds, 'after_epoch', after_epoch)
    with pytest.raises(KeyboardInterrupt): run_study(plan, tmp_path/'o')
    assert len(read_study(tmp_path/'o/study.csv')) == 1
    [folder] = (tmp_path/'o').glob('run-*')
    assert (folder/'checkpoint.pt').exists() and (pd.read_csv(folder/'history.csv', comment='#').clock_seconds > 0).all()
    df = run_study(plan, tmp_path/'o')
    timed = [c for c in df if 'second' in c]
    assert df.drop(columns=timed).equals(whole.drop(columns=timed)) and (df.seconds > 0).all()

def test_a_training_is_not_gone_on_with_other_images(plan, tmp_path, monkeypatch):
    plan = [dict(plan[0], options={k: v for k,v in plan[0]['options'].items() if k != 'data'} | dict(epochs=2))]
    for name in 'ab': make_sample(tmp_path/name, 4, 2, seed=ord(name))
    real = EpochSeconds.before_epoch
    def stop(self):
        if self.epoch == 1: raise KeyboardInterrupt
        real(self)
    with monkeypatch.context() as m:
        m.setenv('IMAGENETTE', str(tmp_path/'a')); m.setattr(EpochSeconds, 'before_epoch', stop)
        with pytest.raises(KeyboardInterrupt): run_study(plan, tmp_path/'o')
    monkeypatch.setenv('IMAGENETTE', str(tmp_path/'b'))
    with pytest.raises(BadInput, match='begun with other images'): run_study(plan, tmp_path/'o')

def test_the_same_training_in_two_parts_is_made_once(plan, tmp_path):
    other = [dict(r, part='q', kind='again', views=1) for r in plan[:1]]
    df = run_study(plan[:1] + other, tmp_path)
    assert len(df) == 1 and len(df.tta_mean[0]) == 2

def test_two_studies_in_one_folder(plan, tmp_path, monkeypatch):
    "The second one is refused while the first one trains, and takes nothing from it."
    real, said = EpochSeconds.after_epoch, []
    def after_epoch(self):
        with pytest.raises(BadInput, match='another study is writing into .*name another --out') as e: run_study(plan[1:2], tmp_path)
        said.append(e)
        real(self)
    monkeypatch.setattr(EpochSeconds, 'after_epoch', after_epoch)
    assert set(run_study(plan[:1], tmp_path).options) == {training_key(plan[0]['options'], 42)} and said
    monkeypatch.setattr(EpochSeconds, 'after_epoch', real)
    assert len(run_study(plan[:2], tmp_path)) == 2

def test_a_stop_before_the_row_was_written(plan, tmp_path, monkeypatch):
    "The training is whole: it is measured, and not made again."
    def stop(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(module, 'measure_model', stop)
        with pytest.raises(KeyboardInterrupt): run_study(plan[:1], tmp_path)
    monkeypatch.setattr(EpochSeconds, 'after_epoch', stop)
    assert len(run_study(plan[:1], tmp_path)) == 1

def test_views_that_are_missing_are_measured(plan, tmp_path):
    "What a stop left behind after its row was written goes."
    run_study(plan[:1], tmp_path)
    folder = module._folder(tmp_path, plan[0])
    folder.mkdir(); (folder/'loss.png').write_text('left behind')
    df = run_study([dict(plan[0], views=2)], tmp_path)
    assert not folder.exists() and len(df) == 1 and len(df.tta_mean[0]) == len(df.tta_max[0]) == 3 and 0 <= df.corners_mean[0] <= 1

def test_another_dataset_is_refused(plan, tmp_path):
    run_study(plan[:1], tmp_path/'o')
    other = make_sample(tmp_path/'other', 3, 2)
    before = (tmp_path/'o/study.csv').read_bytes()
    with pytest.raises(BadInput, match='name another --out'): run_study([dict(r, options=dict(r['options'], data=str(other))) for r in plan], tmp_path/'o')
    assert (tmp_path/'o/study.csv').read_bytes() == before

def test_all_is_checked_before_the_first_training(plan, tiny, tmp_path):
    "There are 40 training images; and without its table there are no wrong labels."
    here = shutil.copytree(tiny, tmp_path/'data')
    (here/'noisy_imagenette.csv').unlink()
    for options,why in ((dict(size=8), '8 px are too small'), (dict(bs=41), '--bs'), (dict(noise=5), 'noise=5')):
        other = dict(plan[1], options=dict(plan[1]['options'], **options))
        runs = [dict(r, options=dict(r['options'], data=str(here))) for r in (plan[0], other)]
        with pytest.raises((BadInput, FileNotFoundError), match=f'part p, kind mixup: {why}'): run_study(runs, tmp_path/'o')
        assert not (tmp_path/'o').exists()

def test_what_a_plan_leaves_open_must_stay_the_same(plan, tmp_path, monkeypatch):
    "The recipe depends on the device; a table that was begun on another one is not gone on with."
    plan = [dict(r, options={k: v for k,v in r['options'].items() if k != 'lr'}) for r in plan]
    run_study(plan[:1], tmp_path)
    before = (tmp_path/'study.csv').read_bytes()
    real = module.resolve
    monkeypatch.setattr(module, 'resolve', lambda *args: replace(real(*args), lr=.1))
    with pytest.raises(BadInput, match='seed 42 was trained with lr 0.003, and lr 0.1 is what suits this machine: say lr in the plan, or name another --out'): run_study(plan, tmp_path)
    assert (tmp_path/'study.csv').read_bytes() == before

def test_a_training_that_fails_does_not_keep_the_others(plan, tmp_path, monkeypatch, capsys):
    real = module._row
    def row(run, *args):
        if run['kind'] == 'mixup': raise Diverged('the loss is no number') if run['seed'] == 42 else OutOfMemory('too little memory')
        return real(run, *args)
    monkeypatch.setattr(module, '_row', row)
    with pytest.raises(Diverged, match=r'2 of 4 trainings failed and have no row; the first: p, mixup, .*seed 42: the loss is no number'): run_study(plan, tmp_path)
    assert set(read_study(tmp_path/'study.csv').options) == {training_key(r['options'], r['seed']) for r in plan if r['kind'] == 'plain'}
    out = capsys.readouterr().out
    assert '2 of 4: p, mixup, size 24, epochs 1, seed 42: the loss is no number' in out and 'seed 43: too little memory' in out
    monkeypatch.setattr(module, '_row', real)
    assert len(run_study(plan, tmp_path)) == 4 and [f.name for f in tmp_path.iterdir()] == ['study.csv']

def test_measures_against_other_ways(plan, tmp_path):
    "The plain numbers against a loop, the views against `tta`."
    train(**plan[0]['options'], out=tmp_path/'o', show=False)
    learn = trained_learner(tmp_path/'o')
    m = measure_model(learn, 3)
    with no_output(learn): probs,targs = learn.get_preds()
    assert m['nll'] == pytest.approx(torch.nn.functional.nll_loss(probs.log(), targs).item(), abs=1e-5)
    assert m['tta_mean'][0] == m['tta_max'][0] == pytest.approx((probs.argmax(1) == targs).float().mean().item())
    torch.manual_seed(0)
    module.set_seed(learn.seed)
    with no_output(learn), learn.dls.valid.dataset.set_split_idx(1): learn.get_preds(dl=learn.dls.valid)
    with no_output(learn), learn.dls.valid.dataset.set_split_idx(0): view = learn.get_preds(dl=learn.dls.valid)[0]
    assert m['tta_mean'][1] == pytest.approx(((.25*probs + .75*view).argmax(1) == targs).float().mean().item())
    assert set(measure_model(learn)) == {'right', 'nll', 'ece', 'pass_seconds'}

def test_the_learner_of_a_run(plan, tmp_path):
    s = train(**dict(plan[0]['options'], no_normalize=True, ema=.9, smooth=.1, cutmix=1.), runs=2, out=tmp_path/'o', show=False)
    for seed,acc in zip((42, 43), s['accuracies']):
        learn = trained_learner(tmp_path/'o', seed)
        with no_output(learn): assert learn.validate()[1] == pytest.approx(acc)
        assert learn.dls.settings['stats'] is None
    with pytest.raises(FileNotFoundError): trained_learner(tmp_path/'o', 7)
    with pytest.raises(BadInput, match='holds no finished run'): trained_learner(tmp_path/'no')

def test_callbacks_of_a_program(plan, tmp_path):
    class Count(Callback):
        n = 0
        def after_epoch(self): Count.n += 1
    train(**plan[0]['options'], out=tmp_path/'o', show=False, cbs=Count())
    assert Count.n == 1 and 'cbs' not in json.loads((tmp_path/'o/summary.json').read_text())['options']

def test_the_command(tiny, tmp_path, file, monkeypatch, capsys):
    p = file(f'[parts.a]\ndata = "{tiny}"\narch = "xresnet18"\nsize = 24\nbs = 8\nepochs = 1')
    done = subprocess.run([sys.executable, '-c', 'from imagenette_course.study import main; main()', p, '--out', tmp_path/'o'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read_study(tmp_path/'o/study.csv')) == 1 and '1 of 1' in done.stdout
    for args,why in (([str(p)], 'name a folder with --out'), (['nothing', '--out', str(tmp_path/'o')], 'there is no plan nothing')):
        monkeypatch.setattr(sys, 'argv', ['imagenette_study', *args])
        with pytest.raises(SystemExit) as e: module.main()
        err = capsys.readouterr().err
        assert e.value.code == 2 and err.count('\n') == 1 and why in err
