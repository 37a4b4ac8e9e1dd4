"What is read from a study: differences, intervals, figures, sentences. Tables here are made up, and only here."
import itertools, json, math, re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from imagenette_course.answers import *
from imagenette_course.core import BadInput
from imagenette_course.study import expand_plan, find_plan, read_plan, read_study, training_key

RESULTS = Path(__file__).parent.parent/'nbs/results'

def plan_of(name): return read_plan(find_plan(name))

def made_up(plan='cpu', seed=0, keep=lambda r: True, noise=.002):
    "Rows for a plan, with accuracies that are drawn."
    rng, rows = np.random.default_rng(seed), {}
    plan = plan_of(plan) if isinstance(plan, str) else plan
    for r in sorted(filter(keep, plan), key=lambda r: r['views']): # of a training of two parts, the one with views stays
        o = r['options']
        acc = .6 + .002*o.get('epochs', 6) - .002*o.get('noise', 0) - .05*('cutmix' in o) + rng.normal(0, noise)
        views = [acc] + [acc + .01]*8 if r['views'] else None
        rows[training_key(o, r['seed'])] = dict(
            options=training_key(o, r['seed']), seed=r['seed'], arch='sprintnet_small', size=64, epochs=o.get('epochs', 6), bs=64, lr=.003, accuracy=acc, accuracies=[acc], seconds=100.,
            wall_seconds=100., images_a_second=9., nll=1., ece=.1 - .03*('mixup' in o), pass_seconds=1., tta_mean=views, tta_max=views, corners_mean=acc, corners_max=acc, corner_seconds=5.,
            train_images=9469, data='made up', machine='a machine, x86_64 CPU, 1 threads', versions='none', date='2026-01-01')
    return study_table(plan, pd.DataFrame(rows.values()))

def blocks(a, names=None):
    "A table from accuracies (seeds, kinds)."
    names = names or ['base', *(f'k{i}' for i in range(1, a.shape[1]))]
    return pd.DataFrame([dict(kind=k, seed=s, accuracy=a[s,i]) for s in range(a.shape[0]) for i,k in enumerate(names)])

@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')

def one_line(ax): return ' '.join(ax.get_title().split())

# ---- differences

@given(n=st.integers(2, 6), k=st.integers(2, 6), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_gains_are_paired_t_tests_with_bonferroni(n, k, seed):
    a = np.random.default_rng(seed).normal(size=(n, k))
    g = gains(blocks(a))
    for i in range(1, k):
        ci = stats.ttest_rel(a[:,i], a[:,0]).confidence_interval(1 - .05/(k-1))
        assert g.loc[f'k{i}', ['gain', 'low', 'high', 'seeds']].tolist() == pytest.approx([(a[:,i] - a[:,0]).mean(), ci.low, ci.high, n])

def test_the_intervals_hold_together_in_95_of_100():
    rng, truth = np.random.default_rng(2), np.array([0, .5, 1, -1])
    held = [(lambda g: (g.low.values <= truth[1:]).all() and (truth[1:] <= g.high.values).all())(gains(blocks(rng.normal(size=(3, 4)) + rng.normal(size=(3, 1)) + truth))) for _ in range(500)]
    assert .94 <= np.mean(held) <= .985

def test_one_seed_has_no_interval():
    g = gains(blocks(np.array([[.5, .6, .7]])))
    assert g.gain.tolist() == pytest.approx([.1, .2]) and g.low.isna().all() and g.high.isna().all()

def test_kinds_that_lack_seeds():
    "Each difference is of the seeds that both have."
    t = blocks(np.array([.5, .6, .4]) + np.array([[0.], [.1], [-.2]]))
    some = t[~((t.kind == 'k2') & (t.seed == 1))]
    g = gains(pd.concat([some, pd.DataFrame([dict(kind='alone', seed=9, accuracy=.5), dict(kind='base', seed=8, accuracy=.5)])]))
    assert g.gain.to_dict() == pytest.approx(dict(k1=.1, k2=-.1)) and g.seeds.to_dict() == dict(k1=3, k2=2)

def test_differences_are_taken_within_a_machine():
    a, rng = np.array([[.5, .6], [.52, .63]]), np.random.default_rng(0)
    both = pd.concat([blocks(a).assign(machine='fast'), blocks(a + .2).assign(machine='slow')])
    assert gains(both)['gain'].item() == pytest.approx(.105) and gains(both).seeds.item() == 4
    apart = pd.concat([blocks(a)[lambda t: t.kind == 'base'].assign(machine='fast'), blocks(a)[lambda t: t.kind == 'k1'].assign(machine='slow')])
    assert not len(gains(apart)) # no machine has both

def test_two_trainings_of_one_kind_and_seed_are_refused():
    t = blocks(np.ones((2, 2)))
    with pytest.raises(BadInput, match='one length of training'): gains(pd.concat([t, t]))
    with pytest.raises(BadInput, match='one length of training'): plot_ladder(made_up())
    same = made_up(keep=lambda r: r['part'] in ('growing', 'stages') and r['kind'] in ('base', 'growing'))
    assert gains(same).seeds.to_dict() == dict(growing=5) # a training that is in two parts is one

@pytest.mark.parametrize('kinds', [['base'], ['mixup'], ['mixup', 'smooth']])
def test_nothing_to_compare(kinds):
    with pytest.raises(BadInput, match='there is nothing to compare'): gains(blocks(np.ones((2, len(kinds))), kinds))

def test_gains_by():
    t = made_up(noise=.0005)
    assert [v for _,v in gains_by('mixup', t)] == [5, 20, 80] and [v for _,v in gains_by('growing', t)] == [5, 20]
    assert [v for _,v in gains_by('smooth', t, by='noise')] == [0, 5, 25, 50]
    assert [v for _,v in gains_by('stages', t)] == [5] # six epochs against five, with as many pixels
    assert list(gains_by(('cutmix', 'mixup'), t, by='subset')) == [(k, n) for k in ('cutmix', 'mixup') for n in (50, 200, 0)]
    r, d = gains_by('cutmix', t)['cutmix',20]
    alone = gains(t[(t.part == 'twenty') & t.kind.isin(['base', 'cutmix'])]).loc['cutmix']
    assert r.tolist() == alone.tolist() and d.mean() == pytest.approx(r.gain) and len(d) == r.seeds == 3
    assert gains_by('mixup', t, value='ece')['mixup',5][0].gain == pytest.approx(-.03)

# ---- how many runs

@pytest.mark.parametrize('d,n', [(.2, 199), (.5, 34), (.8, 15), (1., 10)])
def test_runs_needed_against_a_printed_table(d, n):
    "What R's power.t.test(delta=d, sd=1, power=.8, type='paired') gives, rounded up."
    assert runs_needed(1, d) == n

@given(std=st.floats(.1, 5), d=st.floats(.2, 5))
@settings(max_examples=40, deadline=None)
def test_larger_differences_need_fewer_runs(std, d):
    assert 2 <= runs_needed(std, 2*d) <= runs_needed(std, d)
    assert runs_needed(std, d) == runs_needed(3*std, 3*d) and runs_needed(std, d, .9) >= runs_needed(std, d)

@pytest.mark.parametrize('bad', [dict(std=0), dict(difference=0), dict(std=-1), dict(difference=float('nan')), dict(power=1.)])
def test_runs_that_are_never_enough(bad):
    with pytest.raises(BadInput): runs_needed(**{**dict(std=1, difference=1), **bad})

def test_pair_std_against_a_loop():
    t = made_up(noise=.01)
    squares = n = 0
    for key in ((e, p, s) for e in (5, 20, 80) for p in (0, 5, 25, 50) for s in (0, 50, 200)):
        d = t[(t.length == key[0]) & (t.noise == key[1]) & (t.subset == key[2])].drop_duplicates(['kind', 'options'])
        base = {r.seed: r.accuracy for r in d[d.kind == 'base'].itertuples()}
        for _,own in d[d.kind != 'base'].groupby('kind'):
            x = np.array([r.accuracy - base[r.seed] for r in own.itertuples()])
            squares += ((x - x.mean())**2).sum(); n += len(x) - 1
    assert pair_std(t) == pytest.approx(math.sqrt(squares/n)) and .01 < pair_std(t) < .02
    assert math.isnan(pair_std(t[t.seed == 42]))

# ---- the frontier

@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(0, 1)), min_size=1, max_size=12))
def test_the_frontier(points):
    p = pd.DataFrame(points, columns=['seconds', 'accuracy'])
    best = frontier(p, within=0)
    for q in p.itertuples(): assert ((best.seconds <= q.seconds) & (best.accuracy >= q.accuracy)).any()
    assert best.accuracy.is_monotonic_increasing and best.seconds.is_monotonic_increasing
    assert p.accuracy.max() == best.accuracy.max()
    about = frontier(p) # those that cost a tenth more at the most cost the same
    assert about.accuracy.max() == p.accuracy.max() and set(about.index) <= set(best.index)
    for q in about.itertuples(): assert not ((p.seconds <= 1.1*q.seconds) & (p.accuracy > q.accuracy)).any()

# ---- tables

def test_a_table_holds_what_was_made():
    plan = plan_of('cpu')
    t = made_up(keep=lambda r: r['part'] == 'techniques')
    assert len(t[t.part == 'techniques']) == 40 and {'growing', 'stages'} <= set(t.part) and 'twenty' not in set(t.part) # which share the base
    assert t.kind.iloc[:8].tolist() == ['base', 'mixup', 'smooth', 'cutmix', 'both', 'raw', 'ema', 'erase']
    open_ = not_measured(plan, t)
    assert 'techniques' not in open_.index.get_level_values(0) and open_.planned.sum() - open_.made.sum() == len(plan) - len(t)
    assert not_measured(plan, pd.DataFrame()).planned.sum() == len(plan)
    assert len(not_measured(plan, made_up())) == 0
    with pytest.raises(BadInput, match='no training of this plan'): study_table(plan_of('sample'), t[list(read_study(RESULTS/'sprint.csv'))[:3]])

def test_the_command_of_a_row():
    assert train_command(dict(options='{"epochs": 5, "no_normalize": true, "mixup": 0.4, "seed": 42}')) == 'imagenette_train --data FOLDER --epochs 5 --no_normalize --mixup 0.4 --seed 42'

def test_use_it_when():
    t = made_up()
    res = use_it_when(t)
    assert list(res) == ['5 epochs', '20 epochs', '80 epochs'] and res.loc['averaged weights', '20 epochs'] == 'not measured'
    assert res.index[-1] == 'four more views' and res.loc['four more views', '5 epochs'] == '+1.0 (+1.0 to +1.0)'
    assert 'four more views' not in use_it_when(t.assign(tta_mean=None)).index
    g = gains(t[(t.part == 'twenty') & t.kind.isin(['base', 'cutmix'])]).loc['cutmix']*100
    assert res.loc['CutMix', '20 epochs'] == f'{g.gain:+.1f} ({g.low:+.1f} to {g.high:+.1f})'.replace('-', '−')
    some = t[t.part == 'techniques']
    assert use_it_when(some.assign(subset=20)).equals(use_it_when(some)) # a study of a part of the images
    assert use_it_when(t[t.seed == 42]).loc['CutMix', '5 epochs'].startswith('−') and '(' not in use_it_when(t[t.seed == 42]).loc['CutMix', '5 epochs']

def test_views_are_kinds_like_any_other():
    t = made_up()
    v = views_table(t[(t.kind == 'base') & (t.epochs == 5)])
    assert v.passes[v.kind == '4 views'].tolist() == [5]*5 == v.passes[v.kind == 'corners'].tolist() and set(v.passes[v.kind == '8 views, maximum']) == {9}
    g = gains(v, 'plain')
    assert g.gain['4 views'] == pytest.approx(.01) and g.gain['corners'] == pytest.approx(0) and len(g) == 17
    with pytest.raises(BadInput, match='measured with views'): views_table(t.assign(tta_mean=None))

# ---- sentences

def test_quotes():
    t = made_up(noise=.0005)
    *lines, scale = quote('cutmix', t).splitlines()
    assert [o.split(',')[0] for o in lines] == ['After 5 epochs', 'After 20 epochs', 'After 80 epochs']
    r = gains_by('cutmix', t)['cutmix',5][0]*100
    assert lines[0] == f'After 5 epochs, CutMix loses {-r.gain:.1f} points (95% interval −{-r.low:.1f} to −{-r.high:.1f}, 5 seeds).'
    assert scale == 'Trained: sprintnet_small at 64 px, on photographs; the base: 61.0% (5 epochs), 64.0% (20 epochs), 76.0% (80 epochs).'
    assert [o.split(',')[0] for o in quote('smooth', t, by='noise').splitlines()[:4]] == [f'With {n}% wrong labels' for n in (0, 5, 25, 50)]
    assert quote('smooth', t[t.part == 'techniques'], by='noise') == 'Label smoothing: not measured on photographs yet.'
    assert 'no difference is found' in quote('smooth', made_up()) and quote('nope', t) == 'Nope: not measured on photographs yet.'
    assert len(quote('growing', t).splitlines()) == 3 and 'growing images gain' in quote('growing', t.assign(accuracy=t.accuracy + .1*(t.kind == 'growing')))
    assert 'in the one pair of runs that was made' in quote('mixup', t[t.seed == 42])

def test_quotes_of_views():
    assert 'After 5 epochs, averaging four more views gains 1.0 points (95% interval +1.0 to +1.0, 5 seeds).' in quote('tta', made_up())

def test_quotes_of_a_plan_of_ones_own():
    runs = expand_plan(dict(parts=dict(p=dict(epochs=[1, 2], size=32, runs=2, kinds=dict(plain={}, mixup=dict(mixup=.4))))))
    t = made_up(runs)
    assert quote('mixup', t, 'plain').count('After ') == 2 and quote('mixup', t).endswith('not measured on photographs yet.')

# ---- figures

@pytest.mark.parametrize('seeds', [[42], [42, 43]])
def test_figures(seeds):
    t = made_up(); t = t[t.seed.isin(seeds)]
    ax = plot_ladder(t[t.part == 'techniques'])
    assert [o.get_text() for o in ax.get_yticklabels()] == ['mixup', 'label smoothing', 'CutMix', 'smoothing and mixup', 'no normalization', 'averaged weights', 'random erasing']
    assert '64 px, 5 epochs' in one_line(ax)
    assert ('(one seed)' in one_line(plot_gains('mixup', t))) == (len(seeds) == 1)
    assert re.match(r'80 epochs: mixup .*; CutMix ', one_line(plot_gains(['mixup', 'cutmix'], t)))
    assert '50% wrong labels: label smoothing' in one_line(plot_gains(('smooth', 'mixup'), t, by='noise'))
    assert [o.get_text() for o in plot_gains('mixup', t, by='subset').get_xticklabels()] == ['50 per class', '200 per class', 'all images']
    assert 'calibration' in plot_gains('mixup', t, value='ece').get_ylabel()
    assert re.fullmatch(r'.+: 77\.\d% in 104 s', one_line(plot_frontier(t)))
    assert 'Four views: 5 epochs +1.0' in one_line(plot_views(t))
    if len(seeds) > 1: assert 'To find one point takes' in plot_runs(t).get_title()
    else:
        with pytest.raises(BadInput, match='two seeds'): plot_runs(t)

def test_titles_say_what_the_intervals_say():
    t = made_up(noise=.0005)
    assert one_line(plot_ladder(t[t.part == 'techniques'])).startswith('CutMix −5.0; the rest may be chance')
    t.loc[(t.kind == 'mixup') & (t.epochs == 80), 'accuracy'] += .03
    assert one_line(plot_gains('mixup', t)).endswith('; 80 epochs +3.0 sprintnet_small, 64 px, 5/20/80 epochs')
    none = t[t.part == 'techniques'].assign(accuracy=.5)
    none.loc[none.seed == 42, 'accuracy'] = .6 # of all kinds: no difference
    assert one_line(plot_ladder(none)).startswith('No difference')

def test_bars_and_dots_are_where_the_numbers_are():
    t = made_up(); t = t[t.part == 'techniques']
    ax, g = plot_ladder(t), 100*gains(t)
    lines = [o.get_xdata() for o in ax.lines[:-1]]
    assert np.array(lines[::2]) == pytest.approx(g[['low', 'high']].values) and np.array(lines[1::2])[:,0] == pytest.approx(g.gain.values)
    wide = t.pivot(index='seed', columns='kind', values='accuracy')
    assert ax.collections[0].get_offsets()[:,0].tolist() == pytest.approx(100*(wide.mixup - wide.base).values)

def test_figures_of_what_was_not_measured():
    t = made_up(keep=lambda r: r['part'] == 'techniques')
    with pytest.raises(BadInput, match='mixup: not measured against base'): plot_gains('mixup', t, by='noise')
    assert quote('tta', t.assign(tta_mean=None)) == 'Averaging four more views: not measured on photographs yet.'
    with pytest.raises(BadInput, match='nope: not measured against base'): plot_gains('nope', t)

# ---- what is recorded

def test_something_is_recorded(tmp_path, monkeypatch):
    "Also for a program that runs elsewhere."
    monkeypatch.chdir(tmp_path)
    assert len(recorded()) and quote('mixup') == quote('mixup', recorded('cpu', RESULTS))
    with pytest.raises(FileNotFoundError, match='no results were recorded for the plan sample'): recorded('sample')
    assert 'twenty' in set(recorded('sprint-epyc').part) # what another machine made of the plan
    assert set(recorded('cpu-xresnet18-xeon').arch) == {'xresnet18'} # the longest name that is a plan's

@pytest.mark.parametrize('file', sorted(RESULTS.glob('*.csv')), ids=lambda f: f'results_{f.stem}')
def test_recorded_rows_can_be_believed(file):
    "Each is of its plan, whole, and consistent with itself."
    rows = read_study(file)
    assert len(rows) and not rows.duplicated(['options', 'machine']).any()
    assert len(recorded(file.stem).drop_duplicates(['options', 'machine'])) == len(rows) # all are of the plan
    for r in rows.itertuples():
        assert json.loads(r.options)['seed'] == r.seed and len(r.accuracies) == r.epochs and r.accuracies[-1] == pytest.approx(r.accuracy, abs=1e-5)
        assert 0 < r.accuracy < 1 and 0 <= r.ece <= 1 and r.nll > 0 and r.seconds > 0 and r.data.endswith('9469 + 3925 images')
        n = 944 if json.loads(r.options).get('holdout') else 3925 # the held-out tenth, or val/
        right = r.accuracy*n
        assert getattr(r, 'val_images', n) in (n, None) or math.isnan(r.val_images)
        assert round(right) == pytest.approx(right, abs=1e-3) # a whole number of validation images
        if isinstance(r.tta_mean, list): assert r.tta_mean[0] == pytest.approx(r.accuracy, abs=2/3925)
    assert (Path(file).parent/'README.md').read_text().count(file.name) >= 1

def test_the_readme_quotes_the_record():
    "Each row of its table is one of `use_it_when`."
    lines = (RESULTS.parent.parent/'README.md').read_text().splitlines()
    i = next(i for i,l in enumerate(lines) if l.startswith('| points over the same training without it |'))
    head, _, *rows = [[c.strip() for c in l.strip('|').split('|')] for l in itertools.takewhile(bool, lines[i:])]
    want = use_it_when(recorded())
    assert len(rows) > 2 and all(want.loc[k, c] == v for k,*values in rows for c,v in zip(head[1:], values))
