"What is read from a study: differences, intervals, figures. Tables here are made up, and only here."
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

def made_up(plan='cpu', seed=0, keep=lambda r: True, noise=.006):
    "Rows for a plan, with accuracies that are drawn."
    rng, rows = np.random.default_rng(seed), []
    plan = plan_of(plan) if isinstance(plan, str) else plan
    for r in filter(keep, plan):
        o = r['options']
        acc = .6 + .002*o.get('epochs', 8) - .002*o.get('noise', 0) - .05*('cutmix' in o) + rng.normal(0, noise)
        views = [acc] + [acc + .01]*8 if r['views'] else None
        rows.append(dict(options=training_key(o, r['seed']), seed=r['seed'], arch='xresnet18', size=o.get('size', 64), epochs=o.get('epochs', 8), bs=64, lr=.003, accuracy=acc,
                         accuracies=[acc], seconds=100., wall_seconds=100., images_a_second=9., nll=1., ece=.1, pass_seconds=1., tta_mean=views, tta_max=views, corners_mean=acc,
                         corners_max=acc, corner_seconds=5., train_images=9, data='made up', machine='a machine, x86_64 CPU, 1 threads', versions='none', date='2026-01-01'))
    return study_table(plan, pd.DataFrame(rows))

def blocks(a, names=None):
    "A table from accuracies (seeds, kinds)."
    names = names or ['normalize', *(f'k{i}' for i in range(1, a.shape[1]))]
    return pd.DataFrame([dict(kind=k, seed=s, accuracy=a[s,i]) for s in range(a.shape[0]) for i,k in enumerate(names)])

@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')

# ---- differences

def test_gains_of_two_kinds_are_the_paired_t_test():
    a = np.random.default_rng(1).normal(size=(5, 2))
    ci = stats.ttest_rel(a[:,1], a[:,0]).confidence_interval(.95)
    g = gains(blocks(a)).loc['k1']
    assert (g.low, g.high) == pytest.approx((ci.low, ci.high))

def test_the_intervals_hold_together_in_95_of_100():
    "All of a ladder at once: Bonferroni is on the safe side. With the chance of a whole study they are narrower, and hold as often."
    rng, truth = np.random.default_rng(2), np.array([0, .5, 1, -1])
    held, widths = [], []
    for _ in range(500):
        study = pd.concat([blocks(rng.normal(size=(3, 4)) + rng.normal(size=(3, 1)) + truth).assign(part=p, noise=0, epochs=5, size=32) for p in 'ab'])
        study['options'] = range(len(study))
        for pool in (None, study):
            g = gains(study[study.part == 'a'], study=pool)
            held.append((g.low.values <= truth + 1e-9).all() and (truth - 1e-9 <= g.high.values).all())
            widths.append(g.high.iloc[1] - g.low.iloc[1])
    assert .94 <= np.mean(held[::2]) <= .985 and .94 <= np.mean(held[1::2]) <= .985
    assert np.mean(widths[1::2]) < .95*np.mean(widths[::2])

def test_chance_against_a_loop():
    "Residuals of the formula for whole blocks; a training of two parts counts once."
    rng = np.random.default_rng(4)
    tables, squares, df = [], 0, 0
    for i,(n,k) in enumerate([(2, 6), (3, 2), (2, 4)]):
        a = rng.normal(size=(n, k))
        squares += ((a - a.mean(0) - a.mean(1, keepdims=True) + a.mean())**2).sum(); df += (n-1)*(k-1)
        tables.append(blocks(a).assign(part=str(i), noise=5*i, epochs=5, size=64, options=[f'{i}/{j}' for j in range(n*k)]))
    twice = tables[0][tables[0].kind == 'normalize'].assign(part='z')
    var, got = chance(pd.concat([*tables, twice]))
    assert got == df and var == pytest.approx(squares/df)
    assert math.isnan(chance(tables[0][tables[0].seed == 0])[0])

def with_images(right):
    "A table of trainings from what they name rightly: {kind: (seeds, images)}."
    rows = [dict(kind=k, seed=s, accuracy=o.mean(), right=np.packbits(o).tobytes().hex(), val_images=len(o)) for k,a in right.items() for s,o in enumerate(a)]
    return pd.DataFrame(rows)

@given(n=st.integers(20, 300), seeds=st.integers(1, 3), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_error_of_other_images_is_that_of_a_paired_test(n, seeds, seed):
    "McNemar's, as the t-test of each image's difference."
    rng = np.random.default_rng(seed)
    right = {k: rng.random((seeds, n)) < p for k,p in dict(normalize=.6, mixup=.7).items()}
    t = with_images(right)
    a, b = (right[k].mean(0) for k in ('mixup', 'normalize'))
    want = np.std(a - b, ddof=1)/math.sqrt(n)
    assert image_error(t, 'mixup') == pytest.approx(want)
    g = gains(t).loc['mixup']
    assert math.isnan(g.low_images) if seeds == 1 else g.high_images - g.gain == pytest.approx(math.hypot(g.high - g.gain, stats.norm.ppf(.975)*want))
    assert image_error(t, 'normalize') == 0 and math.isnan(image_error(t.drop(columns='right'), 'mixup'))
    t.loc[0, 'right'] = math.nan
    assert math.isnan(image_error(t, 'mixup'))

def test_other_images_move_a_gain_as_far_as_is_said():
    "The same two networks, asked about other images of the same kind."
    rng = np.random.default_rng(5)
    def ask(): # images differ in how hard they are, for both
        hard = rng.random(400)
        return with_images({k: (rng.random((2, 400)) < np.clip(hard + d, 0, 1)) for k,d in dict(normalize=.1, mixup=.15).items()})
    tables = [ask() for _ in range(200)]
    moved = np.std([gains(t)['gain']['mixup'] for t in tables])
    assert np.mean([image_error(t, 'mixup') for t in tables]) == pytest.approx(moved, rel=.15)

def test_one_seed_has_no_interval():
    g = gains(blocks(np.array([[.5, .6, .7]])))
    assert g.gain.tolist() == pytest.approx([0, .1, .2]) and g.low.iloc[1:].isna().all()

def test_kinds_that_lack_seeds():
    "Noiseless, with effects of kinds and seeds: whatever cells are there, the gains are exact."
    a = np.array([.5, .6, .4, .7]) + np.array([[0.], [.1], [-.2]])
    t = blocks(a)
    some = t[~((t.kind == 'k2') & (t.seed == 1)) & ~((t.kind == 'normalize') & (t.seed == 0))]
    assert gains(some)['gain'][['k1', 'k2', 'k3']].tolist() == pytest.approx([.1, -.1, .2]) and gains(some).seeds.to_dict() == dict(normalize=2, k1=3, k2=2, k3=3)
    apart = pd.concat([t, pd.DataFrame([dict(kind='alone', seed=9, accuracy=.5)])])
    assert 'alone' not in gains(apart).index
    ahead = pd.concat([t, pd.DataFrame([dict(kind='normalize', seed=9, accuracy=.5)])])
    assert gains(ahead)['gain'].tolist() == pytest.approx([0, .1, -.1, .2])

@given(n=st.integers(2, 5), k=st.integers(2, 5), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_gains_against_the_formula_of_whole_blocks(n, k, seed):
    a = np.random.default_rng(seed).normal(size=(n, k))
    rest = a - a.mean(0) - a.mean(1, keepdims=True) + a.mean()
    half = stats.t.ppf(1 - .025/(k-1), (k-1)*(n-1))*math.sqrt(2/n*(rest**2).sum()/((k-1)*(n-1)))
    g = gains(blocks(a)).loc['k1']
    assert (g.gain, g.high - g.gain) == pytest.approx((a[:,1].mean() - a[:,0].mean(), half))

def test_two_trainings_of_one_kind_and_seed_are_refused():
    t = blocks(np.ones((2, 2)))
    with pytest.raises(BadInput, match='one size, one length'): gains(pd.concat([t, t]))
    with pytest.raises(BadInput, match='one size, one length'): plot_ladder(made_up())

@pytest.mark.parametrize('kinds', [['normalize'], ['mixup'], ['mixup', 'smooth']])
def test_nothing_to_compare(kinds):
    with pytest.raises(BadInput, match='there is nothing to compare'): gains(blocks(np.ones((2, len(kinds))), kinds))

# ---- how many runs

@pytest.mark.parametrize('d,n', [(.5, 64), (.8, 26), (1., 17), (2., 6)])
def test_runs_needed_against_a_printed_table(d, n):
    "Cohen 1988, table 2.4.1, for a two-sided level of 5% and a power of 80%."
    assert abs(runs_needed(1, d) - n) <= (1 if n > 30 else 0)

@given(std=st.floats(.1, 5), d=st.floats(.2, 5))
@settings(max_examples=40, deadline=None)
def test_larger_differences_need_fewer_runs(std, d):
    assert 2 <= runs_needed(std, 2*d) <= runs_needed(std, d)
    assert runs_needed(std, d) == runs_needed(3*std, 3*d) and runs_needed(std, d, .9) >= runs_needed(std, d)

@pytest.mark.parametrize('bad', [dict(std=0), dict(difference=0), dict(std=-1), dict(difference=float('nan')), dict(power=1.)])
def test_runs_that_are_never_enough(bad):
    with pytest.raises(BadInput): runs_needed(**{**dict(std=1, difference=1), **bad})

def test_more_runs_than_needed_are_not_asked_for():
    "The smallest number of runs, also where it is large."
    for d in (.2, .15): assert stats.nct.cdf(stats.t.ppf(.975, 2*(n := runs_needed(1, d))-4), 2*n-4, d*math.sqrt((n-1)/2)) > .2

def test_seed_std():
    t = made_up(noise=.01)
    std, low, high, df = seed_std(t)
    t = t.drop_duplicates('options')
    assert df == len(t) - t.setting.nunique()
    assert .007 < std < .013 and low < std < high
    assert math.isnan(seed_std(t[t.seed == 42])[0])

def test_settings_are_not_mixed():
    "Trainings of one kind that differ in an option are no seeds of one another."
    t = made_up(keep=lambda r: r['part'] == 'ladder' and r['kind'] in ('normalize', 'mixup'), noise=1e-5)
    other = t.assign(accuracy=t.accuracy + .1, options=t.options.str.replace('0.003', '0.1'), setting=t.setting.str.replace('0.003', '0.1'))
    both = pd.concat([t, other])
    assert seed_std(both)[0] < 1e-4
    with pytest.raises(BadInput, match='one value of all else'): gains(both)
    assert len({round(p, 1) for p in plot_frontier(both).collections[0].get_offsets()[:,1].tolist()}) > 1

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
    t = made_up(keep=lambda r: r['part'] == 'ladder')
    assert {'ladder', 'longer'} - set(t.part) == {'longer'} and len(t[t.part == 'ladder']) == 18
    open_ = not_measured(plan, t)
    assert 'ladder' not in open_.index.get_level_values(0) and open_.planned.sum() - open_.made.sum() == len(plan) - len(t)
    assert not_measured(plan, pd.DataFrame()).planned.sum() == len(plan)
    assert len(not_measured(plan, made_up())) == 0

def test_the_command_of_a_row():
    assert train_command(dict(options='{"epochs": 5, "no_normalize": true, "mixup": 0.4, "seed": 42}')) == 'imagenette_train --data FOLDER --epochs 5 --no_normalize --mixup 0.4 --seed 42'

def test_use_it_when():
    t = made_up()
    res = use_it_when(t[t.part.isin(['ladder', 'longer'])])
    assert list(res) == ['32 px, 5 epochs', '32 px, 15 epochs'] and res.loc['CutMix', '32 px, 15 epochs'] == 'not measured'
    assert list(res.index) == ['no normalization', 'label smoothing', 'mixup', 'smoothing and mixup', 'CutMix']
    rng = np.random.default_rng(0)
    wide = t[t.part == 'ladder'].assign(val_images=100, right=[np.packbits(rng.random(100) < .6).tobytes().hex() for _ in range(18)])
    r = gains(wide, study=wide).loc['cutmix']*100
    assert use_it_when(wide).loc['CutMix', '32 px, 5 epochs'] == f'{r.gain:+.1f} ({r.low_images:+.1f} to {r.high_images:+.1f})'
    assert list(use_it_when(t[t.part.isin(['ladder', 'ladder64'])])) == ['32 px, 5 epochs', '64 px, 5 epochs']
    g = gains(t[t.part == 'ladder'], study=t[t.part.isin(['ladder', 'longer'])]).loc['cutmix']*100
    assert res.loc['CutMix', '32 px, 5 epochs'] == f'{g.gain:+.1f} ({g.low:+.1f} to {g.high:+.1f})'

@pytest.mark.parametrize('kind', ['nothing', 'smooth', 'mixup', 'both', 'cutmix', 'growing'])
def test_quotes(kind):
    baseline = 'fixed' if kind == 'growing' else 'normalize'
    t = made_up()
    *lines, where = quote(kind, t, baseline).splitlines()
    assert 'made up' in where and 'x86_64 CPU' in where and '2026-01-01' in where
    parts = [p for p,d in t.groupby('part', sort=False) if {kind, baseline} <= set(d.kind)]
    assert len(lines) == sum(t[t.part == p].noise.nunique() for p in parts)
    g = gains(t[(t.part == parts[0]) & (t.noise == 0)], baseline, study=t).loc[kind]*100
    assert f'{g.gain:+.2f} points ({g.low:+.1f} to {g.high:+.1f} with other seeds' in lines[0]
    assert ('at 4:32,3:64 (epochs:px), 1.00 times the seconds' in lines[0]) == (kind == 'growing')
    assert quote(kind, made_up(keep=lambda r: r['part'] == 'noise' and r['kind'] == 'normalize' and r['options']['noise'] == 5), 'normalize').endswith('not measured on photographs yet')

def test_quotes_of_a_plan_of_ones_own():
    "Its kinds have other names, and a part holds several lengths and sizes."
    runs = expand_plan(dict(parts=dict(p=dict(epochs=[1, 2], size=[32, 64], runs=2, kinds=dict(plain={}, mixup=dict(mixup=.4))))))
    t = made_up(runs)
    assert quote('mixup', t, 'plain').count(' px, ') == 4 and quote('mixup', t).endswith('not measured on photographs yet')

def test_quotes_of_views():
    t = made_up()
    assert 'plain 6' in quote('tta', t) and quote('tta', t).count('4 views +1.0 points (each training: +1.0, +1.0') == t[t.tta_mean.notna()].drop_duplicates('options').groupby(['size', 'epochs']).ngroups

def test_a_table_with_more_views_for_some():
    t = made_up()
    i = t[t.tta_mean.notna()].index[0]
    for c in ('tta_mean', 'tta_max'): t.at[i, c] = t.at[i, c][:4]
    assert '3 views gain' in plot_tta(t).get_title() and '3 views +1.0' in quote('tta', t)

def test_a_baseline_that_is_a_seed_ahead():
    "As in every study that was stopped."
    t = made_up(); t = t[(t.seed == 42) | (t.seed == 43) & t.kind.isin(['normalize', 'fixed'])]
    both = t[t.part.isin(['ladder', 'longer'])]
    assert 'points (one seed, so no interval; 1 and 2 seeds)' in quote('mixup', t) and len(use_it_when(both)) == 5
    assert 'mixup +0' in plot_crossover(both).get_title() and 'may be chance' in plot_crossover(both).get_title() and 'One seed' in plot_ladder(t[t.part == 'ladder']).get_title()
    plot_noise(t[t.part.isin(['ladder', 'noise'])])

def test_a_quote_of_one_seed():
    t = made_up(); t = t[t.seed == 42]
    assert 'one seed, so no interval' in quote('mixup', t)

# ---- figures

@pytest.mark.parametrize('seeds', [[42], [42, 43]])
def test_figures(seeds):
    t = made_up(); t = t[t.seed.isin(seeds)]
    both = t[t.part.isin(['ladder', 'longer'])]
    ax = plot_ladder(t[t.part == 'ladder'])
    assert [o.get_text() for o in ax.get_yticklabels()] == ['no normalization', 'label smoothing', 'mixup', 'smoothing and mixup', 'CutMix']
    assert ('One seed' in ax.get_title()) == (len(seeds) == 1) and '32 px, 5 epochs' in ax.get_title()
    assert 'After 15 epochs: label smoothing' in plot_crossover(both).get_title()
    assert 'minutes' in plot_frontier(t).get_title()
    n = t.drop_duplicates('options').tta_mean.notna().sum()
    assert f'4 views gain in {n} of {n} trainings (+1.0 to +1.0 points), for 5 times the work' in ' '.join(plot_tta(t).get_title().split())
    assert '50%' in plot_noise(t[t.part.isin(['ladder', 'noise'])]).get_title()
    if len(seeds) > 1: assert 'One point needs' in plot_spread(t)[1].get_title()
    else:
        with pytest.raises(BadInput, match='degrees of freedom'): plot_spread(t)

def test_titles_say_what_the_intervals_say():
    t = made_up(noise=.0005)
    assert 'CutMix loses 5.' in plot_ladder(t[t.part == 'ladder']).get_title()
    t.loc[t.kind.isin(['mixup']) & (t.epochs == 15), 'accuracy'] += .03
    title = ' '.join(plot_crossover(t[t.part.isin(['ladder', 'longer'])]).get_title().split())
    assert title.startswith('After 15 epochs: label smoothing') and 'mixup +3.0; smoothing' in title and 'mixup +3.0 (may' not in title

def bars(ax): return [tuple(map(tuple, c[2][0].get_segments()[0].tolist())) for c in ax.containers]

def test_bars_are_where_the_intervals_are():
    "Those of the seeds, and thinner ones of images, too, where these were recorded; what these hold is not said to be found."
    t = made_up(noise=.0005); t = t[t.part == 'ladder']
    g = 100*gains(t).drop('normalize')
    assert np.array(bars(plot_ladder(t)))[:,:,0] == pytest.approx(g[['low', 'high']].values)
    rng = np.random.default_rng(0)
    t = t.assign(val_images=100, right=[np.packbits(rng.random(100) < .6).tobytes().hex() for _ in range(len(t))])
    ax, g = plot_ladder(t), 100*gains(t).drop('normalize')
    assert np.array(bars(ax))[::2,:,0] == pytest.approx(g[['low', 'high']].values) and np.array(bars(ax))[1::2,:,0] == pytest.approx(g[['low_images', 'high_images']].values)
    assert (g.high_images - g.gain).values == pytest.approx([math.hypot(r.high - r.gain, 100*stats.norm.ppf(1 - .025/5)*image_error(t, k)) for k,r in g.iterrows()])
    assert 'No difference' in ax.get_title() and 'CutMix loses' in plot_ladder(t.drop(columns='right')).get_title()

def test_figures_of_what_was_not_measured():
    t = made_up(keep=lambda r: r['part'] == 'noise')
    with pytest.raises(BadInput, match='no training of this plan'): study_table(plan_of('sample'), t)
    with pytest.raises(BadInput, match='two numbers of epochs'): plot_crossover(t[(t.noise == 5) & (t.kind == 'normalize')])
    with pytest.raises(BadInput, match='two numbers of epochs'): plot_crossover(made_up(keep=lambda r: r['part'] == 'ladder'))
    with pytest.raises(BadInput, match='with wrong labels'): plot_noise(t[t.noise == 5])
    t['tta_mean'] = None
    with pytest.raises(BadInput, match='with views'): plot_tta(t)

# ---- what is recorded

def test_something_is_recorded(tmp_path, monkeypatch):
    "Also for a program that runs elsewhere."
    monkeypatch.chdir(tmp_path)
    assert len(recorded()) and quote('mixup') == quote('mixup', recorded('cpu', RESULTS))
    with pytest.raises(FileNotFoundError, match='no results were recorded for the plan sample'): recorded('sample')
    assert 'twenty' in set(recorded('sprint-epyc').part) # what another machine made of the plan

@pytest.mark.parametrize('file', sorted(RESULTS.glob('*.csv')), ids=lambda f: f'results_{f.stem}')
def test_recorded_rows_can_be_believed(file):
    "Each is of the plan, whole, and consistent with itself."
    rows = read_study(file)
    assert len(rows) and rows.options.is_unique
    planned = {training_key(r['options'], r['seed']) for r in plan_of(file.stem.split('-')[0])}
    assert set(rows.options) <= planned
    for r in rows.itertuples():
        assert json.loads(r.options)['seed'] == r.seed and len(r.accuracies) == r.epochs and r.accuracies[-1] == pytest.approx(r.accuracy, abs=1e-5)
        assert 0 < r.accuracy < 1 and 0 <= r.ece <= 1 and r.nll > 0 and r.seconds > 0 and r.data.endswith('9469 + 3925 images')
        assert round(r.accuracy*3925) == pytest.approx(r.accuracy*3925, abs=1e-3) # a whole number of validation images
        if isinstance(r.tta_mean, list): assert r.tta_mean[0] == pytest.approx(r.accuracy, abs=2/3925)
    assert (Path(file).parent/'README.md').read_text().count(file.name) >= 1

def test_the_readme_quotes_the_record():
    "Its table is `use_it_when` of the recorded rows."
    lines = (RESULTS.parent.parent/'README.md').read_text().splitlines()
    i = next(i for i,l in enumerate(lines) if l.startswith('| points over normalization only |'))
    rows = [[c.strip() for c in l.strip('|').split('|')] for l in itertools.takewhile(bool, lines[i:])]
    want = use_it_when(recorded())
    assert [r[0] for r in rows[2:]] == list(want.index)
    assert {(r[0], c): v for r in rows[2:] for c,v in zip(rows[0][1:], r[1:])} == {(k, c): want.loc[k, c] for k in want.index for c in rows[0][1:]}
