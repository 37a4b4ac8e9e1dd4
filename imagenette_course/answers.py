"""What a study found: differences seed by seed, their intervals, figures, and sentences. Chapter 14 explains them.

>>> import pandas as pd
>>> from imagenette_course.answers import gains
>>> rows = [('base', 1, .80), ('mixup', 1, .82), ('base', 2, .79), ('mixup', 2, .80)]
>>> gains(pd.DataFrame(rows, columns=['kind', 'seed', 'accuracy'])).round(3).to_dict('index')
{'mixup': {'gain': 0.015, 'low': -0.049, 'high': 0.079, 'seeds': 2}}
"""

__all__ = ['study_table', 'recorded', 'train_command', 'gains', 'plot_ladder', 'gains_by', 'plot_gains', 'frontier',
           'plot_frontier', 'views_table', 'plot_views', 'pair_std', 'runs_needed', 'plot_runs', 'use_it_when', 'quote',
           'not_measured']

import itertools, math, textwrap
from bisect import bisect_left
from scipy import stats
from .core import BadInput, check_range
from .study import find_plan, read_plan, read_study, training_key
from fastai.vision.all import *

def _setting(options):
    "The options of a training without its seed."
    return json.dumps({k: v for k,v in json.loads(options).items() if k != 'seed'})

def study_table(
    plan:list, # of trainings, as from `read_plan`
    rows:pd.DataFrame, # as from `read_study`
) -> pd.DataFrame: # part, kind, noise (%), subset (images per class, 0: all), length, setting, columns of `rows`
    """Return the trainings that were made, with the names that the plan gives them; one of two parts is in both.
    `length` is epochs; of stages, which may have more, those of the kind that the plan compares them with.
    Raises BadInput for a table of another plan."""
    first = {r['part']: r['options'].get('epochs') for r in reversed(plan)}
    names = pd.DataFrame([dict({k: r['options'].get(k, 0) for k in ('noise', 'subset')}, part=r['part'], kind=r['kind'],
                               length=r['options'].get('epochs', first[r['part']]),
                               options=training_key(r['options'], r['seed'])) for r in plan])
    res = names.merge(rows.assign(setting=rows.options.map(_setting)), on='options')
    if res.empty: raise BadInput('no training of this plan is in the table')
    return res.assign(length=res.length.fillna(res.epochs).astype(int))

def recorded(
    name:str='cpu', # of a plan in the package, or PLAN-MACHINE for what was recorded on another machine
    folder:Path=None, # that holds `name`.csv, None: the package's own, `nbs/results` in the repository
) -> pd.DataFrame: # as from `study_table`
    """Return the results that were recorded for a plan.
    Raises what `read_plan` and `read_study` raise; FileNotFoundError where there are none."""
    plans = find_plan('cpu').parent
    results = next(o for o in (plans.parent/'results', plans.parent.parent/'nbs/results') if o.exists())
    file = Path(ifnone(folder, results))/f'{name}.csv'
    if not file.exists(): raise FileNotFoundError(f'{file} is missing: no results were recorded for the plan {name}')
    plan = max((f.stem for f in plans.glob('*.toml') if f'{name}-'.startswith(f'{f.stem}-')), key=len, default=name)
    return study_table(read_plan(find_plan(plan)), read_study(file))

def train_command(
    row, # of the table
) -> str: # a shell command
    "Return the command that makes a training of the study again."
    return ' '.join(['imagenette_train --data FOLDER', *(f'--{k}' if v is True else f'--{k} {v}'
                                                         for k,v in json.loads(row['options']).items())])

def _differences(table, baseline, value):
    "Each training minus the baseline of its seed (and machine): a row for each seed, a column for each kind."
    seeds = [c for c in ('machine', 'seed') if c in table]
    if 'options' in table: table = table.drop_duplicates(['kind', 'options', *seeds])
    if baseline not in set(table.kind) or table.kind.nunique() < 2:
        raise BadInput(f"there is nothing to compare: {baseline} and another kind are needed, "
                       f"and there are {', '.join(dict.fromkeys(table.kind)) or 'none'}")
    if table.duplicated(['kind', *seeds]).any():
        raise BadInput('several trainings have one kind and seed: '
                       'choose one length of training, and one value of all else')
    wide = table.pivot(index=seeds, columns='kind', values=value)[list(dict.fromkeys(table.kind))]
    return wide.sub(wide[baseline], axis=0).drop(columns=baseline)

def gains(
    table:pd.DataFrame, # as from `study_table`, one length of training; or columns kind, seed, and what `value` names
    baseline:str='base', # kind that the others are compared with
    value:str='accuracy', # column
) -> pd.DataFrame: # by kind: gain, its 95% interval low and high (NaN for one seed), seeds
    """Return each kind's mean difference from the baseline, seed by seed, with Student's t interval;
    for several kinds the intervals hold together (Bonferroni). A kind without a seed of the baseline is left out.
    Raises BadInput without the baseline or a second kind, and for several trainings of one kind and seed."""
    d = _differences(table, baseline, value).dropna(axis=1, how='all')
    n = d.notna().sum()
    half = stats.t.ppf(1 - .025/max(1, len(n)), n - 1)*d.std()/n**.5
    return pd.DataFrame(dict(gain=d.mean(), low=d.mean() - half, high=d.mean() + half, seeds=n))

_NAMES = dict(base='the base', raw='no normalization', smooth='label smoothing', mixup='mixup', cutmix='CutMix',
              both='smoothing and mixup', ema='averaged weights', erase='random erasing', growing='growing images',
              stages='two stages')

_PLURAL = {'averaged weights', 'growing images', 'two stages'}

def _name(kind): return _NAMES.get(kind, kind)

def _upper(text): return text[:1].upper() + text[1:]

def _signed(x, digits=1): return f'{round(100*x, digits) + 0:+.{digits}f}'.replace('-', '−') # never -0.0

def _sure(r): return r.low > 0 or r.high < 0

def _brief(r):
    "A gain in points, with a word of caution where it needs one."
    return _signed(r.gain) + ('' if _sure(r) else ' (one seed)' if math.isnan(r.low) else ' (may be chance)')

def _title(ax, *lines, width=72): ax.set_title('\n'.join(textwrap.fill(o, width) for o in lines), size=10)

def _scale(table):
    "What was trained, in words."
    columns = ('arch', 'size', 'length' if 'length' in table else 'epochs')
    arch,px,n = ('/'.join(map(str, sorted(set(table[c])))) for c in columns)
    return f'{arch}, {px} px, {n} epochs'

def _dots(ax, at, d, r, color, flip=False):
    "One gain: a small dot for each seed, a large one for the mean, a bar for the interval."
    def xy(a, b): return (b, a) if flip else (a, b)
    if not math.isnan(r.low): ax.plot(*xy([at, at], [100*r.low, 100*r.high]), color=color, lw=4, alpha=.35, zorder=2)
    ax.scatter(*xy([at]*len(d), 100*d), s=12, color=color, zorder=3)
    ax.plot(*xy(at, 100*r.gain), 'o', ms=9, mfc='w', mec=color, mew=2, zorder=4)

def plot_ladder(
    table:pd.DataFrame, # as from `study_table`, one length of training
    baseline:str='base', # kind that the others are compared with
    ax=None, # axes to draw on
):
    "Draw what each kind adds to the baseline: seeds, mean, and the intervals of `gains`, which hold together."
    if ax is None: _,ax = plt.subplots(figsize=(7, 3.6), layout='constrained')
    g,d = gains(table, baseline),_differences(table, baseline, 'accuracy')
    for y,(k,r) in enumerate(g.iterrows()):
        _dots(ax, y, d[k].dropna(), r, 'C0' if r.low > 0 else 'C3' if r.high < 0 else '0.4', flip=True)
    ax.axvline(0, color='k', lw=1)
    ax.set_yticks(range(len(g)), map(_name, g.index)); ax.set_ylim(len(g) - .5, -.5); ax.grid(axis='x', alpha=.3)
    ax.set_xlabel(f'points over {_name(baseline)}, {100*table[table.kind == baseline].accuracy.mean():.1f}%')
    told = [f'{_name(k)} {_signed(r.gain)}' for k,r in g.iterrows() if _sure(r)]
    _title(ax, _upper('; '.join(told) + ('; the rest may be chance' if len(told) < len(g) else '')) if told else
           'No difference is larger than chance' if g.seeds.max() > 1 else 'One seed: a hint, no more',
           f'{_scale(table)}, {g.seeds.max()} seed{"s" if g.seeds.max() > 1 else ""}')
    return ax

_BY = dict(length='{} epochs', noise='{}% wrong labels', subset='{} per class')

def _compared(table, by):
    "The rows, of one length, that differ in their kind and in what `by` names; none where that has one value."
    usual = dict(noise=0, subset=0 if 0 in set(table.subset) else table.subset.max()) # right labels, all images
    t = table[np.logical_and.reduce([table[c] == v for c,v in usual.items() if c != by])]
    if by == 'length': return t
    several = [e for e,d in t.groupby('length') if d[by].nunique() > 1]
    return t[t.length == min(several)] if several else t[:0]

def _where(v, by): return 'all images' if by == 'subset' and not v else _BY[by].format(v)

def gains_by(
    kinds, # technique, such as 'mixup', or several
    table:pd.DataFrame=None, # as from `study_table`, None: what was recorded for the plan cpu
    baseline:str='base', # kind that they are compared with
    by:str='length', # of training, or noise, or subset: what the comparisons differ in
    value:str='accuracy', # or ece
) -> dict: # by (kind, value of `by`): a row of `gains`, and the seeds' differences
    "Return the gains of each technique by itself at each length of training, share of wrong labels, or size of data."
    t,res = _compared(recorded() if table is None else table, by),{}
    at = sorted(set(t[by]), key=lambda v: v or (math.inf if by == 'subset' else 0)) # all images come last
    for kind,v in itertools.product(listify(kinds), at):
        d = t[(t[by] == v) & t.kind.isin([kind, baseline])]
        if d.kind.nunique() < 2 or not len(g := gains(d, baseline, value)): continue
        res[kind,v] = g.loc[kind], _differences(d, baseline, value)[kind].dropna()
    return res

def plot_gains(
    kinds, # technique, such as 'mixup', or several
    table:pd.DataFrame=None, # as from `study_table`, None: what was recorded for the plan cpu
    baseline:str='base', # kind that they are compared with
    by:str='length', # of training, or noise, or subset: what the comparisons differ in
    value:str='accuracy', # or ece
    ax=None, # axes to draw on
):
    "Draw what each technique adds to the baseline (`gains_by`): a dot for each seed, the mean, its 95% interval."
    table,kinds = recorded() if table is None else table,listify(kinds)
    res = gains_by(kinds, table, baseline, by, value)
    if not res: raise BadInput(f"{', '.join(map(str, kinds))}: not measured against {baseline}")
    if ax is None: _,ax = plt.subplots(figsize=(7.5, 3.4), layout='constrained')
    at = list(dict.fromkeys(v for _,v in res))
    for (k,v),(r,d) in res.items():
        i = kinds.index(k)
        _dots(ax, at.index(v) + (i - (len(kinds)-1)/2)*.15, d, r, f'C{i}')
    if len(kinds) > 1: # each has dots
        ax.legend([plt.Line2D([], [], marker='o', ls='', color=f'C{i}') for i in range(len(kinds))], map(_name, kinds),
                  loc='upper left', bbox_to_anchor=(1, 1), frameon=False)
    ax.axhline(0, color='k', lw=1); ax.grid(axis='y', alpha=.3); ax.set_xlim(-.5, len(at) - .5)
    ax.set_xticks(range(len(at)), [_where(v, by).replace(' labels', '') for v in at])
    ax.set_ylabel('points of calibration error' if value == 'ece' else f'points over {_name(baseline)}')
    _title(ax, _found(res, by), _scale(_compared(table[table.kind.isin([*kinds, baseline])], by)))
    return ax

def _found(res, by):
    "What `gains_by` says, as a title: of one technique all that is there, of several the last."
    kinds,last = list(dict.fromkeys(k for k,_ in res)),list(res)[-1][1]
    if len(kinds) == 1:
        return _upper(f'{_name(kinds[0])}: ' + '; '.join(f'{_where(v, by)} {_brief(r)}' for (_,v),(r,_) in res.items()))
    told = [f'{_name(k)} {_brief(r)}' for (k,v),(r,_) in res.items() if v == last]
    return _upper(f'{_where(last, by)}: {"; ".join(told)}')

# seconds, accuracy: the chapter's numbers for xresnet50 at 224 px
_BOOK = [(5*63, .825), (4*63*(128/224)**2 + 6*63, .863)]

def frontier(
    points:pd.DataFrame, # columns seconds and accuracy
    within:float=.1, # share of the seconds by which two are taken to cost the same
) -> pd.DataFrame: # those that no other one beats in both, by seconds
    "Return the best accuracies for their seconds: each point is better than all that cost less, or about the same."
    p = points.sort_values('seconds')
    return p[[not ((p.seconds <= r.seconds*(1 + within)) & (p.accuracy > r.accuracy)).any() for r in p.itertuples()]]

def _points(table):
    "Mean seconds and accuracy of each setting, and of those that have views with four of them."
    t = _compared(table, 'length').drop_duplicates(['options', 'machine'])
    t = t[t.machine == t.machine.mode()[0]] # seconds of one machine
    t = t.assign(what=t.kind.map(_name))
    v = t[t.tta_mean.map(lambda o: isinstance(o, list) and len(o) > 4)]
    more = v.assign(what=v.what + ', 4 views', accuracy=v.tta_mean.str[4], seconds=v.seconds + 4*v.pass_seconds)
    return pd.concat([t, more]).groupby(['setting', 'what', 'epochs'], sort=False)[['seconds', 'accuracy']].mean(
        ).reset_index()

def plot_frontier(
    table:pd.DataFrame, # as from `study_table`
    ax=None, # axes to draw on
):
    "Draw mean accuracy against mean seconds of each setting, also with four views, and the frontier."
    if ax is None: _,ax = plt.subplots(figsize=(7.5, 4), layout='constrained')
    p = _points(table)
    best = frontier(p)
    for i,(n,d) in enumerate(p.groupby('epochs')):
        ax.scatter(d.seconds, 100*d.accuracy, s=26, color=f'C{i}', label=f'{n} epochs', zorder=2)
    ax.plot(best.seconds, 100*best.accuracy, color='k', lw=1, zorder=1)
    ax.scatter(*zip(*((s, 100*a) for s,a in _BOOK)), marker='D', fc='none', ec='0.4', label='the book, on its GPU')
    for i,r in enumerate(best.itertuples(), 1):
        ax.annotate(i, (r.seconds, 100*r.accuracy), xytext=(-4, 4), textcoords='offset points', ha='right', size=9)
        ax.plot([], [], ' ', label=f'{i}  {r.what}')
    ax.set_xscale('log'); ax.xaxis.set_major_formatter('{x:.0f}'); ax.xaxis.set_minor_formatter(plt.NullFormatter())
    ax.xaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    ax.set_xlabel(f'seconds, {table.machine.mode()[0]}'); ax.set_ylabel('accuracy, %'); ax.grid(alpha=.3)
    ax.legend(loc='upper left', bbox_to_anchor=(1, 1), frameon=False)
    ends = best.iloc[[0, -1]].drop_duplicates().itertuples()
    _title(ax, _upper('; '.join(f'{r.what}: {100*r.accuracy:.1f}% in {r.seconds:.0f} s' for r in ends)))
    return ax

def views_table(
    table:pd.DataFrame, # as from `study_table`; rows without views are left out
) -> pd.DataFrame: # kind (plain, 1 view, 4 views, maximum, corners), passes, accuracy, seed, and the like
    """Return a row for each network and way to predict with it: plain, 1, 2, ... random views by mean or maximum,
    or four corners and the centre. Raises BadInput where nothing was measured with views."""
    rows = []
    for r in table[table.tta_mean.notna()].drop_duplicates(['options', 'machine']).to_dict('records'):
        own = {k: r[k] for k in ('machine', 'seed', 'epochs', 'arch', 'size', 'options')}
        ways = {'plain': (1, r['tta_mean'][0]), 'corners': (5, r['corners_mean'])}
        for rule,word in (('mean', ''), ('max', ', maximum')):
            ways |= {f'{k} view{"s"*(k > 1)}{word}': (k+1, a) for k,a in enumerate(r[f'tta_{rule}']) if k}
        rows += [own | dict(kind=k, passes=n, accuracy=a) for k,(n,a) in ways.items()]
    if not rows: raise BadInput('no training of the table was measured with views')
    return pd.DataFrame(rows)

def plot_views(
    table:pd.DataFrame=None, # as from `study_table`, None: what was recorded for the plan cpu
    baseline:str='base', # kind of the trainings
    ax=None, # axes to draw on
):
    "Draw the gain of test time augmentation against its passes, for each length of training."
    table = recorded() if table is None else table
    own = table[table.kind == baseline]
    t = views_table(own)
    if ax is None: _,ax = plt.subplots(figsize=(7, 3.6), layout='constrained')
    for i,(n,d) in enumerate(t.groupby('epochs')): _plot_views(ax, d, f'C{i}', f'{n} epochs')
    for style,label in (('ko-', 'mean of views'), ('k:', 'maximum'), ('ks', 'corners, centre')):
        ax.plot([], [], style, ms=5, mfc='none' if label[0] == 'c' else 'k', label=label)
    ax.axhline(0, color='k', lw=1); ax.grid(alpha=.3)
    ax.set_xlabel('passes over the images'); ax.set_ylabel('points over one pass')
    ax.legend(loc='upper left', bbox_to_anchor=(1, 1), frameon=False)
    _title(ax, 'Four views: ' + '; '.join(f'{n} epochs {_brief(r)}' for n,r in _four_views(own).items()), _scale(t))
    return ax

def _plot_views(ax, t, color, label):
    "One length of training: mean with its intervals, maximum dotted, corners as a square."
    passes = t.drop_duplicates('kind').set_index('kind').passes
    g = pd.concat([gains(t[t.kind.isin(['plain', k])], 'plain') for k in passes.index if k != 'plain'])
    for rule,style in ((False, 'o-'), (True, ':')):
        own = g[(g.index.str.endswith('maximum') == rule) & (g.index != 'corners')]
        x = passes[own.index]
        ax.plot([1, *x], [0, *100*own.gain], style, ms=4, color=color, label=None if rule else label)
        if not rule: ax.fill_between(x, 100*own.low, 100*own.high, color=color, alpha=.15, lw=0)
    ax.plot(5, 100*g.gain['corners'], 's', ms=8, mfc='none', color=color)

def _four_views(table):
    "The gain of four views at each length of training; none where they were not measured."
    if table.tta_mean.isna().all(): return {}
    t = views_table(table)
    some = t[t.kind.isin(['plain', '4 views'])]
    return {n: gains(d, 'plain').loc['4 views'] for n,d in some.groupby('epochs') if d.kind.nunique() > 1}

def pair_std(
    table:pd.DataFrame, # as from `study_table`
    baseline:str='base', # kind that the others are compared with
) -> float: # NaN where no comparison has two seeds
    "Return the standard deviation over seeds of a difference from the baseline, pooled over all comparisons."
    squares = n = 0
    for _,t in table.groupby(['length', 'noise', 'subset']):
        if baseline not in set(t.kind) or t.kind.nunique() < 2: continue
        d = _differences(t, baseline, 'accuracy')
        squares,n = squares + ((d - d.mean())**2).sum().sum(),n + (d.notna().sum() - 1).clip(lower=0).sum()
    return math.sqrt(squares/n) if n else math.nan

def runs_needed(
    std:float, # standard deviation of the differences over seeds
    difference:float, # to be found, in the unit of `std`
    power:float=.8, # probability that it is found, 0..1
) -> int: # seeds, each of which trains both kinds
    """Return how many seeds the paired t-test needs to find a difference, at a level of 5%. Raises BadInput.
    Cohen 1988, chapter 2: the distribution of t is not central where there is a difference."""
    check_range('std', std, 1e-12, math.inf, float); check_range('difference', difference, 1e-12, math.inf, float)
    check_range('power', power, .06, .999, float)
    def found(n): return 1 - stats.nct.cdf(stats.t.ppf(.975, n-1), n-1, difference/std*math.sqrt(n))
    most = next(n for n in (2**i for i in range(1, 60)) if found(n) >= power)
    return bisect_left(range(most), power, lo=max(2, most//2), key=found)

def plot_runs(
    table:pd.DataFrame, # as from `study_table`
    baseline:str='base', # kind that the others are compared with
    ax=None, # axes to draw on
):
    "Draw how many seeds a difference needs to be found four times in five."
    std = pair_std(table, baseline)
    if not std > 0: raise BadInput('no comparison of the table has two seeds: how far they differ is not known')
    if ax is None: _,ax = plt.subplots(figsize=(7, 3.2), layout='constrained')
    x = np.geomspace(.2, 3, 25)
    ax.plot(x, [runs_needed(100*std, d) for d in x], drawstyle='steps-mid')
    half,one = (runs_needed(100*std, d) for d in (.5, 1))
    ax.plot([.5, 1], [half, one], 'o')
    ax.set_xscale('log'); ax.set_yscale('log')
    for axis,ticks in ((ax.xaxis, [.2, .5, 1, 2, 3]), (ax.yaxis, [2, 3, 5, 10, 20, 50, 100])):
        axis.set_ticks([v for v in ticks if axis is ax.xaxis or v <= ax.get_ylim()[1]])
        axis.set_major_formatter('{x:g}'); axis.set_minor_locator(plt.NullLocator())
    ax.set_xlabel('difference, points'); ax.set_ylabel('seeds'); ax.grid(alpha=.3)
    _title(ax, f'To find one point takes {one} seeds, half a point {half}',
           f'differences vary by {100*std:.2f} points from seed to seed')
    return ax

def use_it_when(
    table:pd.DataFrame, # as from `study_table`
    baseline:str='base', # kind that the others are compared with
) -> pd.DataFrame: # by technique: gain in points with its 95% interval, at each length of training
    "Return what the study found of each technique by itself, on all images with their right labels."
    t = _compared(table, 'length')
    kinds = [k for k in dict.fromkeys(t.kind) if k != baseline]
    found = {(_name(k), n): r for (k,n),(r,_) in gains_by(kinds, t, baseline).items()}
    found |= {('four more views', n): r for n,r in _four_views(t[t.kind == baseline]).items()}
    def words(r): return _signed(r.gain) + ('' if math.isnan(r.low) else f' ({_signed(r.low)} to {_signed(r.high)})')
    names,epochs = dict.fromkeys(k for k,_ in found),sorted({n for _,n in found})
    return pd.DataFrame({f'{n} epochs': [words(found[k,n]) if (k,n) in found else 'not measured' for k in names]
                         for n in epochs}, index=list(names))

def _sentence(r, name, when):
    "What a comparison found, as one says it."
    verb = ('gain' if r.gain >= 0 else 'lose') + 's'*(name not in _PLURAL)
    much = f'{name} {verb} {_signed(abs(r.gain))[1:]} points'
    if math.isnan(r.low): return f'{when}, {much} in the one pair of runs that was made.'
    interval = f'(95% interval {_signed(r.low)} to {_signed(r.high)}, {r.seeds:.0f} seeds)'
    return f'{when}, {much} {interval}.' if _sure(r) else (
        f'{when}, no difference is found: {name} {_signed(r.gain)} points {interval}.')

def quote(
    kind:str, # technique, such as 'mixup', or 'tta'
    table:pd.DataFrame=None, # as from `study_table`, None: what was recorded for the plan cpu
    baseline:str='base', # what it is compared with
    by:str='length', # of training, or noise, or subset: what the comparisons differ in
) -> str: # a sentence for each comparison, and one on what was trained
    "Return what a study found of one technique."
    t = _compared(recorded() if table is None else table, by)
    if kind == 'tta': found,name = _four_views(t[t.kind == baseline]),'averaging four more views'
    else: found,name = {n: r for (_,n),(r,_) in gains_by(kind, t, baseline, by).items()},_name(kind)
    if not found: return f'{_upper(name)}: not measured on photographs yet.'
    base = t[(t.kind == baseline) & t[by].isin(found)].drop_duplicates(['options', 'machine'])
    plain = ', '.join(f'{100*base[base[by] == v].accuracy.mean():.1f}% ({_where(v, by)})' for v in found)
    r,when = base.iloc[0],dict(length='After {}', noise='With {}', subset='With {}')[by]
    return '\n'.join([*(_sentence(r, name, when.format(_where(v, by))) for v,r in found.items()),
                      f"Trained: {r.arch} at {r['size']} px, on photographs; {_name(baseline)}: {plain}."])

def not_measured(
    plan:list, # of trainings, as from `read_plan`
    table:pd.DataFrame, # as from `study_table`
) -> pd.DataFrame: # a row for each part and kind: trainings that are planned, and those that were made
    "Return what is missing of a plan, by part and kind."
    planned = pd.DataFrame([dict(part=r['part'], kind=r['kind']) for r in plan]
                           ).value_counts(sort=False).rename('planned')
    made = (table[['part', 'kind']] if len(table) else pd.DataFrame(columns=['part', 'kind'])
            ).value_counts().rename('made')
    res = pd.concat([planned, made], axis=1).fillna(0).astype(int)
    return res[res.made < res.planned].sort_index()
