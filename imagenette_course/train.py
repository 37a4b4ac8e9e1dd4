"""`imagenette_train`: a whole experiment in one line, with everything that you need to believe it afterwards."""

__all__ = ['LIMITS', 'TECHNIQUES', 'OPTS', 'RATES', 'SCHEDULES', 'PLAIN', 'NOT_OPTIONS', 'make_out', 'history_csv',
           'WriteHistory', 'check_options', 'check_training', 'train', 'peak_memory', 'imagenette_train',
           'option_types', 'option_defaults', 'trained_learner']

import gc, inspect, io, itertools, time
from importlib.util import find_spec
from argparse import Namespace
from dataclasses import asdict, replace
from functools import lru_cache
from .core import (BadInput, Diverged, OutOfMemory, Stopped, check_range, in_one_line, one_line, png, show_version,
                   write_aside)
from .dataset import NOISE, NoisyLabel, check_images, get_dls, held_out, image_files, imagenette, is_sample, subset
from .baseline import (ARCHS, Run, baseline_recipe, compare, confusion, fit, get_learner,
                       plot_confusion, plot_history, versions)
from fastai.vision.all import *
# after fastai, which has a save_model, a MixUp and a LabelSmoothingCrossEntropy of its own
from .models import load_model, named_network, save_model
from .resize import n_epochs, parse_stages, progressive_fit, smallest_size
from .tta import tta
from .mixup import MixUp
from .smoothing import LabelSmoothingCrossEntropy
from .speed import cached_dls, fast_learner
from .mixing import CutMix, RandomMix, ResizeMix
from .techniques import EMA, RandomErasing, fit_flat, muon, use_blur_pool
from .sprint import SPRINT_NETS, GrowImages, fit_linear, recipe, sprint_opt, whitened
from .distributed import (distributed, first_of_machine, first_speaks, from_all, is_first, join, leave, one_for_all,
                          told_to_stop)
from .checkpoint import (Checkpoint, StopAtNaN, TensorBoard, options_toml, plain_values, read_checkpoint,
                         read_options, save_checkpoint)
from contextlib import nullcontext, redirect_stdout
from fastcore.script import anno_parser, store_true

RESULTS = (r'summary\.json|options\.toml|checkpoint\.pt|history\.csv|loss\.png|confusion\.png|'
           r'model(-seed\d+)?\.safetensors|rates\.(csv|png)') # the last of tests/benchmarks/rates.py

def results_in(
    folder:Path, # may not exist
) -> list: # of Paths, sorted
    "The files in `folder` that have the name of a result."
    return sorted(f for f in folder.glob('*') if re.fullmatch(RESULTS, f.name))

def make_out(
    out:str, # folder for the results, None: a new one below `runs/`
    force:bool, # whether results that are in it may be replaced
) -> Path: # the folder, made
    "Makes the folder for the results. Raises FileExistsError when it holds results and `force` is not set."
    if out is None:
        stem = Path('runs')/time.strftime('%Y-%m-%d-%H%M%S')
        names = (stem if i == 1 else stem.with_name(f'{stem.name}-{i}') for i in itertools.count(1))
        return next(o for o in names if _made(o))
    out = Path(out).expanduser()
    _check_out(out, force)
    out.mkdir(parents=True, exist_ok=True)
    return out

def _check_out(out, force):
    "Raises FileExistsError where no results may be written."
    if out.exists() and not out.is_dir(): raise FileExistsError(f'--out {out} is a file: name a folder')
    if (there := results_in(out)) and not force:
        go_on = f', or go on with the run in it: --resume {out}' if out/'checkpoint.pt' in there else ''
        raise FileExistsError(f'{there[0]} exists already: name another --out, '
                              f'or replace what is there with --force{go_on}')

def _made(folder):
    "Makes `folder`; False when another run was there first."
    folder.parent.mkdir(parents=True, exist_ok=True)
    try: folder.mkdir()
    except FileExistsError: return False
    return True

def history_csv(
    runs:list, # of Run
    planned:int, # epochs of all runs together
) -> bytes: # CSV: seed, epoch, train_loss, valid_loss, accuracy, seconds
    "The epochs of all runs as a table; its first line says so when some are missing."
    rows = [dict(seed=o.seed, **row) for o in runs for row in o.history]
    cols = ['seed', 'epoch', 'train_loss', 'valid_loss', 'accuracy', 'seconds']
    note = f'# partial: {len(rows)} of {planned} epochs\n' if len(rows) < planned else ''
    return (note + pd.DataFrame(rows, columns=cols).to_csv(index=False)).encode()

class WriteHistory(Callback):
    "Writes the history of all runs so far to a file after each epoch; of several processes, the first one does."
    order = Checkpoint.order + 1 # what it has skipped is in the record by then
    def __init__(self,
        file:Path, # the CSV file
        runs:list, # of Run, finished ones
        planned:int, # epochs of all runs together
    ):
        store_attr()
        self.n = 0 # epochs in the file
    def after_epoch(self):
        runs = [*self.runs, self.learn.record_run.record]
        self.n = sum(len(o.history) for o in runs)
        if is_first(): write_aside(self.file, history_csv(runs, self.planned))

LIMITS = dict(size=(8,2048), bs=(2,None), epochs=(1,None), lr=(1e-8,10,float), seed=(0,2**32-1), runs=(1,None),
              workers=(0,None), subset=(1,None), crop=(.01,1,float), grow=(0,2048)) # least, most, type

def check_options(
    o:dict, # options of a command, without the dashes; None: not given
):
    "Raises BadInput for the first option that is out of range; batch normalization needs two images."
    for k,v in LIMITS.items():
        if o.get(k) is not None: check_range(f'--{k}', o[k], *v)
    if o['arch'] not in [None, *ARCHS]: raise BadInput(f"--arch {o['arch']}: it must be one of {', '.join(ARCHS)}")

def _check_seeds(o):
    "Raises BadInput for seeds that there are not."
    for k in ('seed', 'runs'): check_range(f'--{k}', o[k], *LIMITS[k]) # None is not allowed
    if o.seed + o.runs > 2**32: raise BadInput(f'--runs {o.runs}: the seeds would count up past {2**32-1}')

TECHNIQUES = dict(mixup=MixUp, cutmix=CutMix, resizemix=lambda _: ResizeMix(), smooth=LabelSmoothingCrossEntropy,
                  ema=EMA, erase=RandomErasing) # what each option makes of its value
OPTS = dict(adamw='cycle', ranger='flat', muon='cycle', sprint='linear') # and the schedule that each is used with
RATES = dict(adamw=3e-3, ranger=3e-3, muon=3e-3, sprint=.17) # for an optimizer that is not the recipe's
SCHEDULES = 'cycle', 'flat', 'linear'
PLAIN = dict(opt='adamw', smooth=None, crop=.75, grow=None) # beside `baseline_recipe`

def _chosen(o, *options):
    "What those of the options make that are given."
    return [TECHNIQUES[k](o[k]) for k in options if o[k] is not None and o[k] is not False]

def _mix(o):
    "A callback, or several that take turns; none without an option that mixes."
    each = _chosen(o, 'mixup', 'cutmix', 'resizemix')
    if o.mix_p is None: p = [1/len(each)]*len(each) if each else []
    else:
        try: p = [float(v) for v in str(o.mix_p).split(',')]
        except ValueError:
            raise BadInput('it must be a number for each of --mixup, --cutmix and --resizemix that is given, '
                           'with commas between') from None
        if each and len(p) != len(each):
            raise BadInput(f'it holds {len(p)} numbers, and {len(each)} of --mixup, --cutmix and --resizemix '
                           'are given: it must be one for each')
        if not each:
            raise BadInput('it says how often to mix, and nothing is mixed: add --mixup, --cutmix or --resizemix')
    return each if p == [1.] else [RandomMix(each, p)] if each else []

def _check_techniques(o):
    "Raises BadInput for a technique that can't be used as the options say."
    for option in TECHNIQUES:
        try: _chosen(o, option)
        except BadInput as e: raise BadInput(f'--{option}: {e}') from e
    try: _mix(o)
    except BadInput as e: raise BadInput(f'--mix_p {o.mix_p}: {e}') from e
    for k,known in dict(opt=OPTS, schedule=SCHEDULES).items():
        if o[k] not in (None, *known): raise BadInput(f"--{k} {o[k]}: it must be one of {', '.join(known)}")
    check_range('--tta', o.tta, 0)
    if o.noise not in NOISE: raise BadInput(f'--noise={o.noise}: it must be one of {str(NOISE)[1:-1]}, in percent')
    if o.progressive is not None:
        both = [k for k in ('epochs', 'size') if o[k] is not None]
        if both:
            raise BadInput(f'--{both[0]} and --progressive: say it in one of them, '
                           '--progressive names epochs and sizes')
        if o.grow: raise BadInput('--grow and --progressive: both let images grow; say one of them')
        if o.opt == 'ranger':
            raise BadInput('--opt ranger and --progressive: ranger has a schedule of its own, flat and then a cosine; '
                           'say one of them')
        if o.schedule:
            raise BadInput('--schedule and --progressive: each stage has a schedule of its own; leave --schedule away')
        try: parse_stages(o.progressive, ifnone(o.bs, 2), ifnone(o.lr, 1e-3))
        except BadInput as e: raise BadInput(f'--progressive {o.progressive}: {e}') from e

def _stages(o): return parse_stages(o.progressive, o.bs, o.lr)

def _use_stages(o):
    "Sets epochs and size as --progressive has them."
    stages = _stages(o)
    for stage in stages: check_range(f'--progressive {o.progressive}: bs', stage.bs, 2, o.n_train)
    o.size,o.epochs = stages[-1].size,sum(n_epochs(stages))

def _network(o, **kwargs):
    "The network that the options choose, which `get_learner` calls with the number of classes."
    model = named_network(o.arch)(**kwargs)
    return use_blur_pool(model) if o.blur else model

@lru_cache
def _smallest(arch, blur): return smallest_size(_network(AttrDict(arch=arch, blur=blur)))

def _check_smallest(o):
    "Raises BadInput for images so small that a layer of the network has nothing left to halve."
    size,low = (o.grow or o.size) if o.progressive is None else _stages(o)[0].size, _smallest(o.arch, o.blur)
    if size < low: raise BadInput(f'{size} px are too small: {o.arch} needs images of {low} px or more')

def _processes(): return max(1, num_distrib())

def _check_share(bs):
    "Raises BadInput for a batch that can't be shared by all processes; batch normalization needs two images in each."
    n = _processes()
    if bs % n or bs < 2*n:
        raise BadInput(f'{bs} images a batch can not be shared by {n} processes: '
                       f'it must be a multiple of {n}, and {2*n} or more')

def _check_filled(o):
    "Raises BadInput for images that would shrink, and for options that would do nothing."
    if o.grow: check_range('--grow', o.grow, LIMITS['size'][0], o.size)
    if o.book and o.grow:
        raise BadInput(f'--grow {o.grow} and --book: the chapter lets images grow in stages, with --progressive; '
                       'say one of them')
    if o.book and o.crop != PLAIN['crop']:
        raise BadInput(f"--crop {o.crop} and --book: the chapter's crops have {PLAIN['crop']} of the area or more; "
                       'leave one away')
    if o.no_whiten and o.arch not in SPRINT_NETS:
        raise BadInput(f"--no_whiten and --arch {o.arch}: only {', '.join(SPRINT_NETS)} can be whitened; leave it away")

def _usual(o, path):
    "What the options are that were not given: the sprint's, or chapter 01's with `--book` and for other networks."
    r = {**baseline_recipe(path), **PLAIN} if o.book or o.arch not in (None, *SPRINT_NETS) else recipe(path)
    opt = o.opt or r['opt']
    r = AttrDict(r, arch=r['arch'].__name__, lr=r['lr'] if opt == r['opt'] else RATES[opt], schedule=OPTS[opt])
    if o.progressive: r.schedule = r.grow = None
    elif r.grow: r.grow = min(r.grow, ifnone(o.size, r.size))
    return r

def _fill_in(o, path, files):
    "Sets the options that were not given. Raises BadInput for what can't be trained with these images."
    o.usual = r = _usual(o, path)
    o.n_train = len(held_out(files)[0]) if o.holdout else sum(f.parts[-3] == 'train' for f in files)
    r.bs = min(r.bs, o.n_train)
    r.bs -= r.bs % _processes()
    o.update({k: ifnone(o[k], v) for k,v in r.items()})
    if o.progressive is not None: _use_stages(o)
    _check_filled(o)
    for bs in [o.bs] if o.progressive is None else [stage.bs for stage in _stages(o)]: _check_share(bs)
    _check_smallest(o)

def _choose_files(path, o):
    "The image files that the options select, and how many unreadable ones were left out."
    files = image_files(path)
    faults = check_images(path) if o.skip_bad else {}
    bad = {f: faults[f] for f in files if f in faults}
    if bad: print(f'--skip_bad leaves out {len(bad)}:', ', '.join(f'{f.name} ({why})' for f,why in bad.items()))
    good = files.filter(lambda f: f not in bad)
    return good if o.subset is None else subset(path, o.subset, seed=o.seed, files=good), len(bad)

def _checkpoint(o): return Path(o.out).expanduser()/'checkpoint.pt'

NOT_OPTIONS = ('n_train', 'usual', 'cbs', 'show') # of those that a run is begun with

def _same_again(o, path):
    "The options that make a run what it is, so that the command would take them again."
    named = o.data is not None and Path(o.data).expanduser() != path # 'sample' or '160'
    left_out = {'out', 'force', 'resume', *NOT_OPTIONS, *(('epochs', 'size') if o.progressive is not None else ())}
    return {**{k: v for k,v in o.items() if k not in left_out}, 'data': str(o.data) if named else str(path.resolve())}

def _word(v): return 'not given' if v is None else v

def _check_same(o, before, now):
    "Raises BadInput when a run would be resumed with other options than it was begun with."
    defaults = option_defaults()
    before,now = ({**defaults, **o, 'tensorboard': None} for o in (before, now)) # which changes nothing in the run
    other = [f"{'' if ' ' in k else '--'}{k} was {_word(before.get(k))} and is {_word(now.get(k))}"
             for k in {**before, **now} if before.get(k) != now.get(k)]
    if before.get('processes') != now.get('processes'):
        raise BadInput(f"--resume: the run in {o.out} was begun with processes={before['processes']}, "
                       f"and these are {now['processes']}: start as many as then, "
                       f"such as torchrun --nproc-per-node {before['processes']}")
    if other:
        raise BadInput(f'--resume: {o.out} holds another run: {", ".join(other)}; '
                       'leave them as they were, or name another --out')

def _check_processes(o):
    "Raises BadInput where something is missing for what was asked for."
    if o.tensorboard and not find_spec('tensorboard'):
        raise BadInput('--tensorboard needs the package tensorboard: '
                       'pip install tensorboard, or uv run --extra tensorboard')

def _check_resume(o):
    if not o.resume and o.out is not None: _check_out(Path(o.out).expanduser(), o.force) # before the data is looked for
    if not o.resume: return
    if o.force:
        raise BadInput('--resume and --force: one goes on with what is there, the other replaces it; say one of them')
    if o.out is None: raise BadInput('resume: name the folder of the run as out')

def _complete(o, path):
    "The summary of a run that has come to its end; None for one that has not."
    out = Path(o.out).expanduser()
    if _checkpoint(o).exists() or not (out/'summary.json').exists(): return
    _check_same(o, read_options(out/'options.toml', option_types()), _same_again(o, path))
    print(f'{out} is complete: there is nothing to resume')
    return json.loads((out/'summary.json').read_text())

def _facts(o): return {'training images': o.n_train, 'processes': _processes()}

def _past(o, path):
    "What is known of the run that is resumed: finished runs, and the state of the one that was stopped."
    if not (o.resume and _checkpoint(o).exists()): return dict(done=[], now=None)
    past = read_checkpoint(_checkpoint(o))
    if not {'options', 'facts', 'done', 'now'} <= past.keys():
        raise BadInput(f'{_checkpoint(o)} is no checkpoint of imagenette_train: name another --out')
    _check_same(o, {**past['options'], **past['facts']}, {**_same_again(o, path), **_facts(o)})
    return past

def _before(o, path):
    "The summary of a run that is complete, or None; and what is known of one that is not."
    if o.resume and (summary := _complete(o, path)): return summary, None
    return None, _past(o, path)

def _start(o):
    "The folder for the results, made; what another run left half-written, or saved to be resumed, is gone."
    out = Path(o.out).expanduser() if o.resume and _checkpoint(o).exists() else make_out(o.out, o.force)
    if not o.resume:
        for f in (out/'checkpoint.pt', *out.glob('tensorboard/seed*/events.out.tfevents.*')): f.unlink(missing_ok=True)
    for f in out.glob('.*'):
        if re.fullmatch(rf'\.({RESULTS})\.\d+', f.name): f.unlink() # of a process that was killed
    return out

def _check_all(o):
    for check in (check_options, _check_seeds, _check_techniques, _check_resume, _check_processes): check(o)

def check_training(
    options:dict, # of `imagenette_train`, by name; those that are missing have their default
    path:Path=None, # folder with the images, None: check what can be said without them
) -> AttrDict: # the options; with `path` also those that were not given
    "Raises BadInput or OSError for options that `train` would refuse, without training."
    o = AttrDict({**option_defaults(), **options})
    _check_all(o)
    if path is None: return o
    _fill_in(o, path, _choose_files(path, o)[0])
    if o.progressive is None: check_range('--bs', o.bs, LIMITS['bs'][0], o.n_train)
    if o.noise: NoisyLabel(path, o.noise)
    return o

def train(
    data:str=None, # 'sample', '160', '320', 'full' or a folder with train/ and val/
    arch:str=None, # network, one of ARCHS
    size:int=None, # side of the training images, pixels
    bs:int=None, # images a batch
    epochs:int=None, # passes over the training images
    lr:float=None, # largest learning rate
    seed:int=42, # of the first run; the others count up from it
    runs:int=1, # runs with different seeds
    workers:int=None, # threads that decode once, or processes that read for `book`; None: what suits the machine
    subset:int=None, # training images a class
    out:str=None, # folder for the results
    force:bool=False, # replace results in `out`
    skip_bad:bool=False, # leave unreadable images out
    mixup:float=None, # alpha of mixup's Beta distribution, None: no mixup
    cutmix:float=None, # alpha of CutMix's Beta distribution, None: no CutMix
    resizemix:bool=False, # ResizeMix
    mix_p:str=None, # probability of each of the three used, 'p,...'; other batches stay plain; None: equal, always one
    smooth:float=None, # eps of label smoothing, None: as in the recipe
    progressive:str=None, # stages of growing images, 'epochs:size,...', in place of `epochs` and `size`
    tta:int=0, # augmented views for test time augmentation at the end, 0: none
    erase:float=None, # share of the training images that lose a box, None: none
    ema:float=None, # largest decay of the weights' moving average, None: no average
    opt:str=None, # optimizer, one of OPTS: 'sprint' and 'muon' are Muon with AdamW for some weights
    schedule:str=None, # of the rate, one of SCHEDULES; None: what the optimizer is used with
    crop:float=None, # smallest part of an image's area in a training view, 0..1
    grow:int=None, # side of the images in the first epoch, pixels, from which they grow to `size`; 0: all have `size`
    no_whiten:bool=False, # let the first layer of sprintnet begin at random, and train it
    blur:bool=False, # blur before the network's max pooling leaves out pixels
    noise:int=0, # percent of wrong training labels, one of NOISE
    holdout:bool=False, # validate on a tenth of the training images, and leave `val/` alone
    no_normalize:bool=False, # leave the pixels in 0..1
    book:bool=False, # the chapter's own pipeline and training step, in float32
    resume:bool=False, # go on with the run in `out` that was stopped, with the same options
    tensorboard:bool=False, # write what TensorBoard shows, into `out`/tensorboard
    cbs:list=None, # further callbacks, for each run
    show:bool=True, # False: print nothing
) -> dict: # what summary.json holds
    """Trains, and writes the record, the figures and the weights. Options that are None come from `recipe`.
    Raises BadInput or OSError for what you can mend, before training where that can be known;
    Diverged, and OutOfMemory."""
    o = AttrDict(locals())
    _check_all(o)
    with nullcontext() if show else redirect_stdout(io.StringIO()): return _train(o)

def _train(o):
    "What `train` does once its options are known to be good."
    if torch.cuda.is_available(): torch.cuda.reset_peak_memory_stats() # of an earlier run of this process
    join()
    with first_speaks():
        with first_of_machine():
            path = imagenette(o.data)
            files,n_bad = _choose_files(path, o)
            _fill_in(o, path, files)
        summary,past = one_for_all(_before(o, path) if is_first() else None)
        if summary: return summary
        with first_of_machine(): dls = _loaders(o, path, files)
        o.out = one_for_all(_start(o) if is_first() else None)
        return _run_all(o, path, dls, n_bad, past)

def _what_is_left(history):
    "What a stopped run leaves, in words."
    if not history.n:
        return f'stopped before an epoch was finished; --resume {history.file.parent} begins it again'
    return (f'stopped; {history.file} holds {history.n} of {history.planned} epochs; '
            f'--resume {history.file.parent} goes on')

def _loaders(o, path, files):
    "The batches that the options choose."
    stats = None if o.no_normalize else imagenet_stats
    common = dict(files=files, workers=o.workers, noise=o.noise, holdout=o.holdout)
    return (get_dls(path, o.bs, o.size, stats, **common) if o.book else
            cached_dls(path, o.bs, o.size, stats, min_scale=o.crop, **common))

def _learner(o, dls, seed):
    "A learner with the network, the loss, the optimizer and the callbacks that the options choose."
    loss_func = first(_chosen(o, 'smooth'))
    opt = {k: dict(opt_func=v) for k,v in dict(ranger=ranger, muon=muon, sprint=sprint_opt).items()}.get(o.opt, {})
    make = get_learner if o.book else fast_learner
    arch = partial(_network, o)
    if o.arch in SPRINT_NETS and not o.no_whiten: arch = whitened(arch, dls)
    learn = make(dls, arch, loss_func=loss_func, cbs=_chosen(o, 'erase') + _mix(o) + _chosen(o, 'ema'),
                 seed=seed, **opt)
    learn.arch = o.arch # not the name of `_network`
    if not o.show: learn.remove_cb(ProgressCallback); learn.logger = noop
    return learn

def _title(o):
    "The network and the techniques in words: what the table and the figures are called."
    told = ('book', 'progressive', *TECHNIQUES, 'mix_p', 'opt', 'schedule', 'crop', 'grow', 'no_whiten', 'blur',
            'noise', 'no_normalize', 'holdout')
    other = [k for k in told if o[k] is not None and o[k] is not False and o[k] != o.usual.get(k, 0)]
    words = [k if o[k] is True else f'{k} {o[k]}' for k in other]
    return ', '.join([o.arch, *words])

def _fit(o, learn, cbs):
    "Trains in one stage or several."
    if o.progressive is not None: return progressive_fit(learn, _stages(o), name=_title(o), cbs=cbs)
    if o.grow and o.grow < o.size: cbs = [*cbs, GrowImages(o.grow)]
    how = dict(cycle=fit, flat=fit_flat, linear=fit_linear)[o.schedule]
    return how(learn, o.epochs, o.lr, name=_title(o), cbs=cbs)

def _tta_accuracy(o, learn):
    "The accuracy on the validation set over `o.tta` views, and the seconds it took."
    start = time.perf_counter()
    preds,targs = tta(learn, n=o.tta)
    return (preds.argmax(1) == targs).float().mean().item(), time.perf_counter()-start

def _one_run(o, dls, seed, cbs):
    "Trains once, and writes the weights: the record, what test time augmentation gave, and the confusion matrix."
    learn = _learner(o, dls, seed)
    with distributed(learn):
        run = _fit(o, learn, cbs)
        if is_first(): save_model(learn, o.out/_model_name(o, seed), run.accuracy)
        cm = confusion(learn)
        return dict(run=asdict(run), tta=_tta_accuracy(o, learn) if o.tta else None, cm=cm.tolist())

def _save(o, path, done, now):
    "Replaces the checkpoint by finished runs, and the state of one that goes on."
    if now is not None: now = dict(now, random=from_all(now['random']))
    if is_first():
        save_checkpoint(_checkpoint(o), plain_values(
            dict(options=_same_again(o, path), facts=_facts(o), done=done, now=now)))

def _of_this_process(now):
    "The state with the random generators of this process."
    return now and dict(now, random=now['random'][rank_distrib()])

def _train_all(o, path, dls, past, history):
    "Trains what is left of `o.runs` runs; the checkpoint is replaced after each epoch and each run."
    done = past['done']
    for seed in range(o.seed + len(done), o.seed + o.runs):
        if o.runs > 1: print(f'run {len(done)+1} of {o.runs}, seed {seed}', flush=True)
        cbs = [history, *L(o.cbs),
               Checkpoint(partial(_save, o, path, done), _of_this_process(past.pop('now', None))), StopAtNaN()]
        if o.tensorboard and is_first(): cbs.append(TensorBoard(o.out/'tensorboard'/f'seed{seed}'))
        done.append(_one_run(o, dls, seed, cbs))
        history.runs.append(Run(**done[-1]['run']))
        _save(o, path, done, None)
    return done

def _too_large(o):
    "What to say of a batch that is too large."
    if o.progressive is not None:
        return (f'too little memory for --progressive {o.progressive}: '
                'give its larger stages a smaller batch, as in epochs:size:bs')
    return f'too little memory for --bs {o.bs} at {o.size} px: begin another run with a smaller --bs or --size'

def _run_all(o, path, dls, n_bad, past):
    "Trains `o.runs` times and writes the results."
    history = WriteHistory(o.out/'history.csv', [Run(**d['run']) for d in past['done']], o.epochs*o.runs)
    full = False
    share = f' by {num_distrib()} processes' if num_distrib() > 1 else ''
    sizes = f'{o.grow} to {o.size}' if o.grow and o.grow < o.size else o.size
    print(f'{_title(o)}: {sizes} px, {o.bs} images a batch{share}, {o.epochs} epochs, lr {o.lr}, seed {o.seed}',
          flush=True)
    if not o.resume or not _checkpoint(o).exists(): _save(o, path, [], None) # so that it can be resumed from here on
    elif past['now'] or past['done']:
        print(f"goes on after {len(past['done'])} finished runs "
              f"and {len(past['now']['history']) if past['now'] else 0} epochs of the next", flush=True)
    try:
        with told_to_stop(): done = _train_all(o, path, dls, past, history)
    except KeyboardInterrupt: raise KeyboardInterrupt(_what_is_left(history)) from None
    except Stopped as e: raise Stopped(f'{one_line(e)}; {_what_is_left(history)}') from None
    except Diverged as e:
        raise Diverged(f'{one_line(e)}' + (
            f'; {_checkpoint(o)} holds the epochs before' if history.n else '')) from None
    except torch.OutOfMemoryError: full = True # what the error holds on to is free below
    if full:
        gc.collect() # the learner, which refers to itself, would keep the memory from the next training
        raise OutOfMemory(f'{_too_large(o)}; {_what_is_left(history)}')
    return one_for_all(_finish(o, path, dls, n_bad, history.runs, done) if is_first() else None)

def _finish(o, path, dls, n_bad, runs, done):
    "Writes the results; then the checkpoint is not needed any more."
    summary = _write_results(o, path, dls, n_bad, runs, [d['tta'] for d in done if d['tta']],
                             sum(np.array(d['cm']) for d in done))
    _checkpoint(o).unlink()
    return summary

def _model_name(o, seed): return 'model.safetensors' if o.runs == 1 else f'model-seed{seed}.safetensors'

def peak_memory(
) -> int: # bytes
    """The most memory held since this process began: of the GPU where there is one,
    else of the process, with the files it maps."""
    if torch.cuda.is_available(): return torch.cuda.max_memory_allocated()
    status = Path('/proc/self/status') # Linux, where `getrusage` counts the program that started this one, too
    if status.exists(): return 1024*int(re.search(r'VmHWM:\s+(\d+) kB', status.read_text())[1])
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform == 'darwin' else 1024)

def _mean(values): return float(np.mean(values)) if len(values) else None

def _spread(name, values):
    "Mean and standard deviation (n-1), None where there are too few values."
    return {name: _mean(values), f'{name}_std': float(np.std(values, ddof=1)) if len(values) > 1 else None}

def _summary(o, path, dls, n_bad, done, views):
    "What summary.json holds."
    accs, seconds = [run.accuracy for run in done], [run.seconds for run in done]
    tta_accs, tta_seconds = zip(*views) if views else ([], [])
    dataset = dict(path=str(path), drawn=is_sample(path), train=len(dls.train_ds), val=len(dls.valid_ds),
                   classes=list(dls.vocab), left_out=n_bad)
    return dict(**_spread('accuracy', accs), accuracies=accs, seconds=float(np.mean(seconds)),
                **_spread('tta_accuracy', tta_accs), tta_accuracies=list(tta_accs), tta_seconds=_mean(tta_seconds),
                dataset=dataset, device=', '.join(dict.fromkeys(run.device for run in done)),
                memory_gb=peak_memory()/1e9,
                options={k: str(v) if isinstance(v, Path) else v for k,v in o.items() if k not in NOT_OPTIONS},
                versions=versions(), date=time.strftime('%Y-%m-%d'))

def _write_results(o, path, dls, n_bad, done, views, cm):
    "Shows the table, writes the summary and the figures."
    # all have the same options, wherever they were resumed
    same = [replace(run, device='', settings={}) for run in done]
    print(compare(same).to_string(na_rep='-')) # one run has no spread
    summary = _summary(o, path, dls, n_bad, done, views)
    if views:
        print(f"with {o.tta} augmented views beside the plain one: {summary['tta_accuracy']:.1%}, "
              f"{summary['tta_seconds']:.0f} s more for each run")
    write_aside(o.out/'loss.png', png(plot_history(done[0])))
    write_aside(o.out/'confusion.png', png(plot_confusion(cm, list(dls.vocab))))
    write_aside(o.out/'options.toml', options_toml(_same_again(o, path)))
    write_aside(o.out/'summary.json', json.dumps(summary, indent=1).encode())
    new = {_model_name(o, run.seed) for run in done}
    for f in results_in(o.out):
        if f.suffix == '.safetensors' and f.name not in new: f.unlink() # of the run that --force replaces
    # rates are of a benchmark
    print(f'Written to {o.out}:', ', '.join(f.name for f in results_in(o.out) if f.stem not in ('rates', 'checkpoint')))
    if o.tensorboard: print(f'tensorboard --logdir {o.out}/tensorboard shows the curves')
    return summary

def imagenette_train(
    data:str=None, # sample, 160, 320, full, or a folder with train/ and val/; default: $IMAGENETTE, else 160
    arch:str=None, # network; default: sprintnet, with what suits it as size, bs, epochs and lr
    size:int=None, # side of the training images in pixels
    bs:int=None, # images a batch
    epochs:int=None, # passes over the training images
    lr:float=None, # largest learning rate; default: as arch and opt
    seed:int=42, # of weights, batches and augmentation
    runs:int=1, # train this often, with seeds counting up
    workers:int=None, # threads that decode once, or processes that read for --book; default: what suits the machine
    subset:int=None, # use this many training images a class
    out:str=None, # folder for the results; default: a new one below runs/
    force:store_true=False, # replace results that are in --out already
    skip_bad:store_true=False, # check all images first and leave the unreadable ones out
    mixup:float=None, # train on blends of two images; alpha of the Beta distribution, such as 0.4
    cutmix:float=None, # train on images with a box of another; alpha of the Beta distribution, such as 1
    resizemix:store_true=False, # train on images with another one pasted in, shrunken
    mix_p:str=None, # how often to use each of the three you give, such as 0.5 or 0.3,0.3; default: equally, always one
    smooth:float=None, # label smoothing; eps, such as 0.1; default: as arch
    progressive:str=None, # epochs:size,... in place of --epochs and --size: growing images, such as 4:48,1:64
    tta:int=0, # test time augmentation at the end, over this many views beside the plain one
    erase:float=None, # random erasing; share of the training images that lose a box, such as 0.5
    ema:float=None, # validate and keep a moving average of the weights; its decay, such as 0.999
    opt:str=None, # optimizer: adamw, ranger, muon (partly adamw), sprint (muon for all convolutions); default: as arch
    schedule:str=None, # of the learning rate: cycle, flat (then a cosine) or linear (up and down); default: as opt
    crop:float=None, # smallest part of the area in a random crop, such as 0.5; default: as arch
    grow:int=None, # let images grow from this size to --size, epoch by epoch; 0: all have --size; default: as arch
    no_whiten:store_true=False, # let the first layer of sprintnet begin at random
    blur:store_true=False, # blur before the network's max pooling leaves out pixels
    noise:int=0, # percent of wrong training labels: 0, 1, 5, 25 or 50
    holdout:store_true=False, # validate on a tenth of the training images and leave val/ alone: for choosing settings
    no_normalize:store_true=False, # leave the pixels in 0..1, without the mean and standard deviation of ImageNet
    book:store_true=False, # the chapter's own pipeline and training step in float32, not the quick ones
    resume:str=None, # folder of a run that was stopped: go on with it; takes no other option
    tensorboard:store_true=False, # write losses, rates and the images as the network sees them for TensorBoard
    config:str=None, # TOML file of options, such as options.toml of an earlier run; what is given beside it wins
):
    "Train an image classifier from scratch. Ends with a table, and a folder of summary, history, figures, weights."
    options = dict(locals())
    with in_one_line('imagenette_train', 'stopped before training began', 'try a smaller --bs or --size'):
        train(**_with_files(_not_default(options)))

def _parameters(): return {k: p for k,p in inspect.signature(imagenette_train).parameters.items() if k != 'config'}

def option_types(
) -> dict: # int, float, str or bool by name
    "The type of each option that a file may hold."
    return {k: bool if p.annotation is store_true else p.annotation for k,p in _parameters().items()}

def option_defaults(
) -> dict: # value by name; None: see `recipe`
    "What each option is when it is not given."
    return {k: p.default for k,p in _parameters().items()}

def _not_default(options): return {k: v for k,v in options.items() if k == 'config' or v != _parameters()[k].default}

def _begun_with(out):
    "The options of the run in a folder."
    file = out/'checkpoint.pt'
    if not file.exists():
        if not all((out/o).exists() for o in ('options.toml', 'summary.json')):
            raise BadInput(f'--resume {out}: there is no run in it; name the folder of a run that was stopped')
        return read_options(out/'options.toml', option_types())
    options = read_checkpoint(file).get('options')
    if isinstance(options, dict) and options.keys() <= option_types().keys(): return options
    raise BadInput(f'{file} is no checkpoint of this version of imagenette_train: begin anew with another --out')

def _with_files(given):
    "The options that were given, and those of the files that they name."
    config,given = given.get('config'), {k: v for k,v in given.items() if k != 'config'}
    both = {**({} if config is None else read_options(config, option_types())), **given}
    out = both.pop('resume', None)
    if out is None: return both
    if both:
        raise BadInput(f'--resume {out}: the folder says what the run is; leave --{first(both)} away, '
                       'or begin another run without --resume')
    return {**_begun_with(Path(out).expanduser()), 'out': out, 'resume': True}

def main():
    "The command `imagenette_train`: reads `sys.argv`."
    show_version()
    parser = anno_parser(imagenette_train, prog='imagenette_train')
    old,new = ('_','-') if '--skip-bad' in parser.format_help() else ('-','_')
    argv = [f'--{o[2:].replace(old, new)}' if re.fullmatch(r'--[a-z_-]+', o) else o for o in sys.argv[1:]]
    unset = object() # an option that holds it afterwards was not given
    args = vars(parser.parse_args(argv, Namespace(**dict.fromkeys([*_parameters(), 'config'], unset))))
    given = {k: v for k,v in args.items() if v is not unset and k in (*_parameters(), 'config')}
    with in_one_line('imagenette_train', 'stopped before training began', 'try a smaller --bs or --size'):
        train(**_with_files(given))
    leave()

if __name__ == '__main__': main()

def trained_learner(
    out:Path, # folder of a finished run
    seed:int=None, # which of its runs; None: the first
) -> Learner: # with the data, the network and the loss of the run; nothing else that it was trained with
    "The learner of a finished run. Raises BadInput or OSError when its data or its results are not there any more."
    out = Path(out).expanduser()
    if not (out/'summary.json').exists(): raise BadInput(f'{out} holds no finished run of imagenette_train')
    defaults = option_defaults()
    o = AttrDict({**defaults, **read_options(out/'options.toml', option_types())})
    path = imagenette(o.data)
    files,_ = _choose_files(path, o)
    _fill_in(o, path, files)
    seed = ifnone(seed, o.seed)
    model = load_model(out/_model_name(o, seed)).model
    make = get_learner if o.book else fast_learner
    learn = make(_loaders(o, path, files), lambda n_out: model, loss_func=first(_chosen(o, 'smooth')), seed=seed)
    learn.model.to(learn.dls.device)
    return learn
