"""`imagenette_study`: a plan in one file, many trainings, one table. Stop it at any time, and continue later."""

__all__ = ['expand_plan', 'read_plan', 'find_plan', 'training_key', 'clock_seconds', 'EpochSeconds', 'right_images',
           'measure_model', 'study_row', 'read_study', 'epoch_costs', 'run_study', 'imagenette_study', 'main']

import hashlib, io, itertools, os, shutil, time, tomllib
from dataclasses import fields
from collections import Counter
from contextlib import redirect_stdout
from importlib.util import find_spec
from operator import itemgetter
from .core import BadInput, Diverged, OutOfMemory, check_range, in_one_line, show_bar, show_version, write_aside
from .dataset import image_files, imagenette
from .baseline import RecordRun
from fastai.vision.all import *
# after fastai, which has names of its own for some
from .resize import Stage, n_epochs, parse_stages
from .tta import combine_views
from .smoothing import calibration_error
from .further import corner_dl
from .options import Options, check_names, resolve
from .train import train, trained_learner
from fastcore.script import anno_parser
from tqdm.auto import tqdm

# what a plan may say beside the options of `imagenette_train`, and what it means not to
_STUDY = dict(runs=1, seed=42, views=0)

def expand_plan(
    plan:dict, # `all`: options by name; `parts`: by name, options and lists of them, and `kinds`: options by name
) -> list: # of dicts: part, kind, options (of `imagenette_train`, by name), seed, views (for test time augmentation)
    "All trainings of a plan, in its order, the seeds last: a part that is stopped has first seeds of all its kinds."
    res = []
    for part,o in plan['parts'].items():
        o = {**_STUDY, **plan.get('all', {}), **o}
        cells = []
        for kind,own in o.pop('kinds', {part: {}}).items():
            both = {**o, **own}
            names,values = both.keys(), [v if isinstance(v, list) else [v] for v in both.values()]
            cells += [(kind, dict(zip(names, v))) for v in itertools.product(*values)]
        for i in range(max((c['runs'] for _,c in cells), default=0)):
            for kind,c in cells:
                options = {k: v for k,v in c.items() if k not in _STUDY}
                if i < c['runs']:
                    res.append(dict(part=part, kind=kind, options=options, seed=c['seed']+i, views=c['views']))
    return res

_RESERVED = ('out', 'force', 'tensorboard', 'book', 'tta') # what the study says itself, or measures

def _table(v, name, known=None):
    "A table of a plan; raises BadInput for something else, and for a name in it that is not known."
    if not isinstance(v, dict): raise BadInput(f'{name} must be a table')
    if known and (other := v.keys() - known):
        raise BadInput(f"there is no table {min(other)}; there are {' and '.join(known)}")
    return v

def _check_run(run):
    "Raises BadInput for options that can't be trained with."
    for k in ('seed', 'views'): check_range(k, run[k], 0)
    if bad := run['options'].keys() & set(_RESERVED): raise BadInput(f'there is no option {min(bad)} in a plan')
    check_names(run['options'])
    Options(**run['options'], seed=run['seed'])

def _check_plan(plan):
    "Raises BadInput for the first mistake; the trainings of the plan, as from `expand_plan`."
    _table(plan, 'a plan', ('all', 'parts'))
    if 'kinds' in _table(plan.get('all', {}), 'all'): raise BadInput('kinds belong into a part, such as [parts.mixup]')
    if not _table(plan.get('parts', {}), 'parts'):
        raise BadInput('it has no parts: a plan needs [parts.NAME], such as [parts.mixup]')
    for part,o in plan['parts'].items():
        kinds = _table(_table(o, f'parts.{part}').get('kinds', {}), f'parts.{part}.kinds')
        for own in [plan.get('all', {}), o, *(_table(v, f'parts.{part}.kinds.{k}') for k,v in kinds.items())]:
            for k in _STUDY.keys() & own.keys(): check_range(f'part {part}: {k}', own[k], 0)
    runs = expand_plan(plan)
    for r in runs:
        try: _check_run(r)
        except BadInput as e: raise BadInput(f"part {r['part']}, kind {r['kind']}: {e}") from e
    data = list(dict.fromkeys(r['options'].get('data') for r in runs))
    if len(data) > 1:
        raise BadInput(f'it has several datasets ({data[0]}, {data[1]}): make a plan, and a table, for each')
    if nothing := plan['parts'].keys() - {r['part'] for r in runs}:
        raise BadInput(f'part {min(nothing)} plans no training: '
                       'runs must be 1 or more, kinds and lists must not be empty')
    return runs

def read_plan(
    file:Path, # TOML
) -> list: # of trainings, as from `expand_plan`
    """Reads a plan, and checks each of its trainings.
    Raises BadInput for the first mistake; OSError when it can't be read."""
    try: return _check_plan(tomllib.loads(Path(file).read_text(encoding='utf8')))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e: raise BadInput(f'{file} is not TOML: {e}') from e
    except BadInput as e: raise BadInput(f'{file}: {e}') from e

_PLANS = Path(find_spec('imagenette_course').origin).parent/'plans'

def find_plan(
    name:str, # of a file, or of a plan in the package: sample, sprint, cpu, ...
) -> Path:
    "The file of a plan. Raises FileNotFoundError."
    for file in (Path(name).expanduser(), _PLANS/f'{name}.toml'):
        if file.is_file(): return file
    raise FileNotFoundError(f"there is no plan {name}: name a file, "
                            f"or one of {', '.join(sorted(f.stem for f in _PLANS.glob('*.toml')))}")

def training_key(
    options:dict, # of `imagenette_train`, by name
    seed:int, # of weights, batches and augmentation
) -> str: # JSON, the same for the same training
    "The name of a training in the table."
    o = Options(**{k: v for k,v in options.items() if k not in ('data', 'seed')}, seed=seed)
    kinds = {f.name: f.type for f in fields(Options)}
    return json.dumps({**{k: kinds[k](v) for k,v in sorted(o.given().items()) if k != 'seed'}, 'seed': seed})

def clock_seconds(
    device:torch.device, # on which is computed
) -> float: # seconds since some moment
    "On a CPU the processor time of this process, a thread's share; else the time, once the device has finished."
    if device.type == 'cpu': return time.process_time()/torch.get_num_threads()
    if device.type == 'cuda': torch.cuda.synchronize(device)
    return time.perf_counter()

class EpochSeconds(Callback):
    "Adds the seconds of each epoch, by `clock_seconds`, to its row of the record."
    order = RecordRun.order + .5 # before the checkpoint: what that holds is timed
    def __init__(self,
        after_epoch=noop, # function of the number of epochs that are done
    ): self.tell = after_epoch
    def before_epoch(self): self.start = clock_seconds(self.dls.device)
    def after_epoch(self):
        history = self.record_run.record.history
        history[-1]['clock_seconds'] = clock_seconds(self.dls.device) - self.start
        self.tell(len(history))

def _accuracy(preds, targs): return (preds.argmax(1) == targs).float().mean().item()

def _passes(learn, dl, n):
    "Probabilities (n+1, n_images, n_classes), plain ones first, labels, and the seconds of each pass."
    preds,seconds = [],[]
    for i in range(n+1):
        with dl.dataset.set_split_idx(0 if i else 1):
            start = clock_seconds(dl.device)
            p,targs = learn.get_preds(dl=dl)
            seconds.append(clock_seconds(dl.device) - start)
        preds.append(p)
    return torch.stack(preds), targs, seconds

def right_images(
    row, # of the table
) -> np.ndarray: # bool (n_images,)
    "Which validation images a training named rightly."
    return np.unpackbits(np.frombuffer(bytes.fromhex(row['right']), dtype=np.uint8),
                         count=int(row['val_images'])).astype(bool)

def measure_model(
    learn:Learner, # trained, as from `trained_learner`
    views:int=0, # augmented views for test time augmentation, 0: none
) -> dict: # see below
    """`right`, of each validation image, in their order, whether it was named rightly, as a bit (`right_images` reads
    it); `nll` and `ece` of the validation set; with `views`: `tta_mean` and `tta_max`, accuracies over 0, 1, ... views;
    `corners_mean` and `corners_max` over four corners and the centre;
    `pass_seconds` of one pass over the validation set, `corner_seconds` of the five."""
    set_seed(learn.seed)
    with learn.no_bar():
        (plain,*augmented),targs,seconds = _passes(learn, learn.dls.valid, views)
        right = np.packbits((plain.argmax(1) == targs).numpy()).tobytes().hex()
        res = dict(right=right, nll=F.nll_loss(plain.clamp_min(1e-12).log(), targs).item(),
                   ece=calibration_error(plain, targs).item(), pass_seconds=float(np.mean(seconds)))
        if not views: return res
        for rule in ('mean', 'max'):
            res[f'tta_{rule}'] = [
                _accuracy(combine_views(plain, torch.stack(augmented[:k]), reduce=rule) if k else plain, targs)
                for k in range(views+1)]
        (plain,*corners),targs,seconds = _passes(learn, corner_dl(learn.dls.valid, learn.dls.settings['size']), 4)
        for rule,how in dict(mean=dict(beta=.2), max=dict(reduce='max')).items():
            res[f'corners_{rule}'] = _accuracy(combine_views(plain, torch.stack(corners), **how), targs)
        return dict(res, corner_seconds=sum(seconds))

_LISTS = ('accuracies', 'tta_mean', 'tta_max') # columns that hold several numbers

def _machine(device):
    "The device in words, and of a CPU its maker's name where Linux tells it."
    info = Path('/proc/cpuinfo')
    named = re.search(r'model name\s*:\s*(.*)', info.read_text()) if 'CPU' in device and info.exists() else None
    return f'{named[1]}, {device}' if named else device

def _data(path):
    "The images of a folder in words."
    n = Counter(f.parts[-3] for f in image_files(path))
    return f"{path.name}, {n['train']} + {n['val']} images"

def study_row(
    run:dict, # as from `expand_plan`
    summary:dict, # as from `train`
    history:list, # of dicts, the epochs as in history.csv, with `clock_seconds`
    measured:dict, # as from `measure_model`
) -> dict: # value by column
    "What the table holds of one training."
    o,path,n = summary['plan'],Path(summary['dataset']['path']),summary['dataset']['train']
    stages = [Stage(*s) for s in o['stages'] or []]
    seen = sum(e*(n//b*b) for e,b in (
        zip(n_epochs(stages), [s.bs for s in stages]) if stages else [(o['epochs'], o['bs'])]))
    seconds = sum(h['clock_seconds'] for h in history)
    return dict(options=training_key(run['options'], run['seed']), seed=run['seed'],
                **{k: o[k] for k in ('arch', 'size', 'epochs', 'bs', 'lr')},
                accuracy=summary['accuracy'], accuracies=[round(h['accuracy'], 5) for h in history],
                seconds=seconds, wall_seconds=summary['seconds'], images_a_second=seen/seconds, **measured,
                train_images=n, val_images=summary['dataset']['val'], data=_data(path),
                machine=_machine(summary['device']),
                versions=' '.join(f'{k} {v}' for k,v in summary['versions'].items()), date=summary['date'])

def read_study(
    file:Path, # CSV of `imagenette_study`
) -> pd.DataFrame: # a row for each training; lists as lists
    "The table of a study. Raises BadInput for a file that is none; OSError when it can't be read."
    try: df = pd.read_csv(file, dtype=dict(right=str)) # hexadecimal, also where all are digits
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as e:
        raise BadInput(f'{file} is no table of imagenette_study: {e}') from e
    if not {'options', 'seed', 'accuracy', *_LISTS} <= {*df.columns}:
        raise BadInput(f'{file} is no table of imagenette_study')
    for c in _LISTS: df[c] = [json.loads(v) if isinstance(v, str) else None for v in df[c]]
    return df

def _csv(rows):
    "The rows as CSV; a column for all that any of them has."
    text = [{k: json.dumps(v) if isinstance(v, list) else v for k,v in row.items()} for row in rows]
    return pd.DataFrame(text, columns=list(dict.fromkeys(
        [*_COLUMNS, *(k for row in text for k in row)]))).to_csv(index=False).encode()

_COLUMNS = ['options', 'seed', 'arch', 'size', 'epochs', 'bs', 'lr', 'accuracy', 'accuracies',
            'seconds', 'wall_seconds', 'images_a_second', 'nll', 'ece', 'pass_seconds',
            'tta_mean', 'tta_max', 'corners_mean', 'corners_max', 'corner_seconds',
            'train_images', 'val_images', 'data', 'machine', 'versions', 'date', 'right']

def epoch_costs(
    options:dict, # of `imagenette_train`, by name
) -> list: # of floats, one for each epoch
    "What each epoch costs, as far as the options tell: pixels times images, without a unit."
    n,stages = options.get('subset', 1000),options.get('progressive')
    if stages is None: return [float(n*options.get('size', 112)**2)]*options.get('epochs', 5)
    stages = parse_stages(stages, 64, 1e-3)
    return [float(n*s.size**2) for e,s in zip(n_epochs(stages), stages) for _ in range(e)]

def _words(run):
    return ', '.join(dict.fromkeys([
        run['part'], run['kind'],
        *(f'{k} {v}' for k,v in run['options'].items() if k in ('size', 'epochs', 'progressive', 'noise')),
        f"seed {run['seed']}"]))

def _row(run, folder, tell):
    "Trains, or goes on with it, measures, and gives the row."
    begun = any((folder/f).exists() for f in ('checkpoint.pt', 'summary.json'))
    with redirect_stdout(io.StringIO()): path = imagenette(run['options'].get('data')) # which must be what it was
    what = (dict(resume=folder, data=path) if begun else
            dict(run['options'], seed=run['seed'], out=folder, force=True))
    summary = train(**what, show=False, cbs=EpochSeconds(tell))
    history = pd.read_csv(folder/'history.csv').to_dict('records')
    with redirect_stdout(io.StringIO()): learn = trained_learner(folder)
    return study_row(run, summary, history, measure_model(learn, run['views']))

def _folder(out, run):
    return out/f"run-{hashlib.md5(training_key(run['options'], run['seed']).encode()).hexdigest()[:12]}"

def _is_done(run, row):
    return row is not None and (
        not run['views'] or isinstance(row.get('tta_mean'), list) and len(row['tta_mean']) > run['views'])

# options that depend on images and device where a plan leaves them open
_FILLED = ('arch', 'size', 'epochs', 'bs', 'lr')

def _check_data(plan, file, rows):
    """Raises BadInput or OSError for what can't be trained here, and for a table of other images
    or of another device's settings."""
    path = imagenette(plan[0]['options'].get('data'))
    other = {row['data'] for row in rows.values()} - {_data(path)}
    if other:
        raise BadInput(f'{file} is of {min(other)}, and these are {_data(path)}: '
                       'name another --out, or set $IMAGENETTE')
    checked = {} # by options: the same for all seeds
    for r in plan:
        key = training_key(r['options'], 0)
        try: p = checked[key] = checked.get(key) or resolve(Options(**r['options'], seed=r['seed']), path).settings()
        except (BadInput, OSError) as e: raise type(e)(f"part {r['part']}, kind {r['kind']}: {e}") from e
        row = rows.get(training_key(r['options'], r['seed']), p)
        for k in _FILLED:
            if row[k] != p[k]:
                raise BadInput(f"{file}: {_words(r)} was trained with {k} {row[k]}, "
                               f"and {k} {p[k]} is what suits this machine: "
                               f"say {k} in the plan, or name another --out")

def _left(plan, rows):
    "The trainings that are not in the table; of those that are the same, the one with the most views."
    most = {training_key(r['options'], r['seed']): r for r in sorted(plan, key=itemgetter('views'))}
    return [most[k] for k in dict.fromkeys(training_key(r['options'], r['seed']) for r in plan)
            if not _is_done(most[k], rows.get(k))]

def _rows(file): return {row['options']: row for row in read_study(file).to_dict('records')} if file.exists() else {}

@contextmanager
def _alone(out):
    """Raises BadInput while another study writes into the folder;
    the system lets go of it when a process ends, however it ends."""
    import fcntl # Linux and macOS have it
    at = os.open(out, os.O_RDONLY)
    try:
        try: fcntl.flock(at, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f'another study is writing into {out}: wait for it, or name another --out') from None
        yield
    finally: os.close(at)

def run_study(
    plan:list, # of trainings, as from `read_plan`
    out:Path, # folder for the table `study.csv`, and for the training that is under way
) -> pd.DataFrame: # as from `read_study`
    """Trains what the table in `out` does not hold yet. A training that fails, by a loss that is no number or for want
    of memory, does not keep the others from being made; in the end its Diverged or OutOfMemory is raised. Raises all
    else that `train` raises at once. The table has all that was finished by then, and the same call goes on."""
    out = Path(out).expanduser()
    rows = _rows(out/'study.csv')
    if _left(plan, rows): _check_data(plan, out/'study.csv', rows)
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out): return _train_left(plan, out)

def _train_left(plan, out):
    "Trains one after the other, and gives the table."
    file = out/'study.csv'
    rows = _rows(file)
    left = _left(plan, rows)
    print(f'{len(rows)} trainings are in the table, {len(left)} are left', flush=True)
    failed,costs = [],[epoch_costs(r['options']) for r in left]
    # bars go to stderr: `train` is told to print nothing
    bar = tqdm(total=sum(map(sum, costs)), disable=not show_bar(), bar_format='{l_bar}{bar}| {elapsed}<{remaining}')
    for i,run in enumerate(left):
        folder,before = _folder(out, run),sum(map(sum, costs[:i]))
        def tell(epochs): bar.update(before + sum(costs[i][:epochs]) - bar.n)
        def say(what): tqdm.write(f'{i+1} of {len(left)}: {_words(run)}: {what}', file=sys.stdout); sys.stdout.flush()
        folder.mkdir(exist_ok=True)
        try: row = _row(run, folder, tell)
        except (Diverged, OutOfMemory) as e:
            failed.append(type(e)(f'{_words(run)}: {e}'))
            say(e)
            continue
        rows[row['options']] = row
        write_aside(file, _csv(rows.values()))
        shutil.rmtree(folder)
        say(f"accuracy {row['accuracy']:.1%}, {row['seconds']:.0f} s")
    bar.close()
    if failed:
        raise type(failed[0])(f'{len(failed)} of {len(left)} trainings failed and have no row; the first: {failed[0]}')
    return read_study(file)

def imagenette_study(
    plan:str, # TOML file of a plan, or one of those in the package: sample, sprint, cpu, gpu, leaderboard
    out:str=None, # folder for the table study.csv; a study that was stopped goes on from what is there
):
    "Train what a plan says, with all its seeds, into one table."
    with in_one_line('imagenette_study'):
        if out is None: raise BadInput('name a folder with --out')
        try: run_study(read_plan(find_plan(plan)), out)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f'stopped; {out} has what was finished, and the same command goes on') from None

def main():
    "The command `imagenette_study`: reads `sys.argv`."
    show_version()
    args = anno_parser(imagenette_study, prog='imagenette_study').parse_args()
    imagenette_study(args.plan, args.out)
