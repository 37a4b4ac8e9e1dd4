"""`imagenette_study`: a plan in one file, many trainings, one table. Stop it at any time, and continue later.

    imagenette_study sample --out study

>>> from imagenette_course.study import expand_plan
>>> plan = dict(all=dict(runs=2), parts=dict(blends=dict(epochs=5, kinds=dict(base={}, mixup=dict(mixup=.4)))))
>>> for r in expand_plan(plan): print(r['part'], r['kind'], r['options'], r['seed'])
blends base {'epochs': 5} 42
blends mixup {'epochs': 5, 'mixup': 0.4} 42
blends base {'epochs': 5} 43
blends mixup {'epochs': 5, 'mixup': 0.4} 43
"""

__all__ = ['expand_plan', 'read_plan', 'find_plan', 'training_key', 'clock_seconds', 'EpochSeconds', 'right_images',
           'measure_model', 'read_study', 'epoch_costs', 'run_study', 'imagenette_study', 'main']

import hashlib, itertools, os, shutil, time, tomllib
from collections import Counter
from dataclasses import fields
from .core import (BadInput, Diverged, OutOfMemory, check_range, in_one_line, quiet, show_bar, show_version,
                   write_aside)
from .files import image_files
from .dataset import imagenette
from .record import RecordRun
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

# ---- plans

_STUDY = dict(runs=1, seed=42, views=0) # what a plan may say beside the options of `imagenette_train`
_RESERVED = {'out', 'force', 'tensorboard', 'book', 'tta'} # what the study says itself, or measures
_PLANS = Path(__file__).parent/'plans'

def expand_plan(
    plan:dict, # `all`: options by name; `parts`: by name, options and lists of them, and `kinds`: options by name
) -> list: # of dicts: part, kind, options (of `imagenette_train`, by name), seed, views (for test time augmentation)
    "All trainings of a plan, in its order, the seeds last: a part that is stopped has first seeds of all its kinds."
    res = []
    for part,o in plan['parts'].items():
        o,cells = {**_STUDY, **plan.get('all', {}), **o},[]
        for kind,own in o.pop('kinds', {part: {}}).items():
            both = {**o, **own}
            values = [v if isinstance(v, list) else [v] for v in both.values()]
            cells += [(kind, dict(zip(both, v))) for v in itertools.product(*values)]
        most = max((c['runs'] for _,c in cells), default=0)
        res += [dict(part=part, kind=kind, options={k: v for k,v in c.items() if k not in _STUDY}, seed=c['seed']+i,
                     views=c['views']) for i in range(most) for kind,c in cells if i < c['runs']]
    return res

def _table(tables, name, within=''):
    "The table of this name, empty where there is none; raises BadInput for something else."
    if isinstance(v := tables.get(name, {}), dict): return v
    raise BadInput(f'{within}{name} must be a table')

def _check_plan(plan):
    "Raises BadInput for the first mistake; the trainings of the plan, as from `expand_plan`."
    if other := plan.keys() - {'all', 'parts'}:
        raise BadInput(f'there is no table {min(other)}; there are all and parts')
    common,parts = _table(plan, 'all'),_table(plan, 'parts')
    if 'kinds' in common: raise BadInput('kinds belong into a part, such as [parts.mixup]')
    if not parts: raise BadInput('it has no parts: a plan needs [parts.NAME], such as [parts.mixup]')
    for part in parts:
        kinds = _table(_table(parts, part, 'parts.'), 'kinds', f'parts.{part}.')
        for own in (common, parts[part], *(_table(kinds, k, f'parts.{part}.kinds.') for k in kinds)):
            for k in _STUDY.keys() & own.keys(): check_range(f'part {part}: {k}', own[k], 0)
    runs = expand_plan(plan)
    for r in runs:
        try:
            if bad := r['options'].keys() & _RESERVED: raise BadInput(f'there is no option {min(bad)} in a plan')
            check_names(r['options'])
            Options(**r['options'], seed=r['seed'])
        except BadInput as e: raise BadInput(f"part {r['part']}, kind {r['kind']}: {e}") from e
    data = list(dict.fromkeys(r['options'].get('data') for r in runs))
    if len(data) > 1:
        raise BadInput(f'it has several datasets ({data[0]}, {data[1]}): make a plan, and a table, for each')
    if nothing := parts.keys() - {r['part'] for r in runs}:
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

def _key(run): return training_key(run['options'], run['seed'])

def _words(run):
    told = [f'{k} {v}' for k,v in run['options'].items() if k in ('size', 'epochs', 'progressive', 'noise')]
    return ', '.join(dict.fromkeys([run['part'], run['kind'], *told, f"seed {run['seed']}"]))

def epoch_costs(
    options:dict, # of `imagenette_train`, by name
) -> list: # of floats, one for each epoch
    "What each epoch costs, as far as the options tell: pixels times images, without a unit."
    n,stages = options.get('subset', 1000),options.get('progressive')
    if stages is None: return [float(n*options.get('size', 128)**2)]*options.get('epochs', 5)
    stages = parse_stages(stages, 64, 1e-3)
    return [float(n*s.size**2) for e,s in zip(n_epochs(stages), stages) for _ in range(e)]

# ---- what is measured

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

def _passes(learn, dl, n):
    "Probabilities (n_images, n_classes), the same of each view (n, n_images, n_classes), labels, seconds of each pass."
    preds,seconds = [],[]
    for i in range(n+1):
        with dl.dataset.set_split_idx(0 if i else 1):
            start = clock_seconds(dl.device)
            p,targs = learn.get_preds(dl=dl)
            seconds.append(clock_seconds(dl.device) - start)
        preds.append(p)
    preds = torch.stack(preds)
    return preds[0], preds[1:], targs, seconds

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
        plain,augmented,targs,seconds = _passes(learn, learn.dls.valid, views)
        if views:
            dl = corner_dl(learn.dls.valid, learn.dls.settings['size'])
            centre,corners,_,corner_seconds = _passes(learn, dl, 4)
    res = dict(right=np.packbits((plain.argmax(1) == targs).numpy()).tobytes().hex(),
               nll=F.nll_loss(plain.clamp_min(1e-12).log(), targs).item(), ece=calibration_error(plain, targs).item(),
               pass_seconds=float(np.mean(seconds)))
    if not views: return res
    def over(plain, views, **how): return accuracy(combine_views(plain, views, **how), targs).item()
    for reduce in ('mean', 'max'):
        res[f'tta_{reduce}'] = [over(plain, augmented[:k], reduce=reduce) for k in range(views+1)]
    return dict(res, corners_mean=over(centre, corners, beta=.2), corners_max=over(centre, corners, reduce='max'),
                corner_seconds=sum(corner_seconds))

# ---- the table

_LISTS = ('accuracies', 'tta_mean', 'tta_max') # columns that hold several numbers
_DECIDED = ['arch', 'size', 'epochs', 'bs', 'lr'] # by the images and the device where a plan leaves them open
_COLUMNS = ['options', 'seed', *_DECIDED, 'accuracy', 'accuracies',
            'seconds', 'wall_seconds', 'images_a_second', 'nll', 'ece', 'pass_seconds',
            'tta_mean', 'tta_max', 'corners_mean', 'corners_max', 'corner_seconds',
            'train_images', 'val_images', 'data', 'machine', 'versions', 'date', 'right']

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
    columns = dict.fromkeys(itertools.chain(_COLUMNS, *text))
    return pd.DataFrame(text, columns=list(columns)).to_csv(index=False).encode()

def _rows(file): return {row['options']: row for row in read_study(file).to_dict('records')} if file.exists() else {}

def _machine(device):
    "The device in words, and of a CPU its maker's name where Linux tells it."
    info = Path('/proc/cpuinfo')
    named = re.search(r'model name\s*:\s*(.*)', info.read_text()) if 'CPU' in device and info.exists() else None
    return f'{named[1]}, {device}' if named else device

def _data(path):
    "The images of a folder in words."
    n = Counter(f.parts[-3] for f in image_files(path))
    return f"{path.name}, {n['train']} + {n['val']} images"

# ---- the study

def _row(run, folder, tell):
    "Trains, or goes on with it, measures, and gives what the table holds of it."
    begun = any((folder/f).exists() for f in ('checkpoint.pt', 'summary.json'))
    with quiet(): path = imagenette(run['options'].get('data')) # which must be what it was
    what = (dict(resume=folder, data=path) if begun else
            dict(run['options'], seed=run['seed'], out=folder, force=True))
    summary = train(**what, show=False, cbs=EpochSeconds(tell))
    with quiet(): learn = trained_learner(folder)
    measured,history = measure_model(learn, run['views']),pd.read_csv(folder/'history.csv')
    p,data,seconds = summary['plan'],summary['dataset'],history.clock_seconds.sum().item()
    stages = [Stage(*s) for s in p['stages'] or []]
    batches = zip(n_epochs(stages), [s.bs for s in stages]) if stages else [(p['epochs'], p['bs'])]
    seen = sum(n*(data['train']//bs*bs) for n,bs in batches)
    return dict(options=_key(run), seed=run['seed'], **{k: p[k] for k in _DECIDED}, accuracy=summary['accuracy'],
                accuracies=history.accuracy.round(5).tolist(), seconds=seconds, wall_seconds=summary['seconds'],
                images_a_second=seen/seconds, **measured, train_images=data['train'], val_images=data['val'],
                data=_data(path), machine=_machine(summary['device']),
                versions=' '.join(f'{k} {v}' for k,v in summary['versions'].items()), date=summary['date'])

def _folder(out, run): return out/f'run-{hashlib.md5(_key(run).encode()).hexdigest()[:12]}'

def _left(plan, rows):
    "The trainings that are not in the table; of those that are the same, the one with the most views."
    most = {}
    for r in plan:
        k = _key(r)
        if k not in most or r['views'] > most[k]['views']: most[k] = r
    # `tta_mean` has a number for 0, 1, ... views
    return [r for k,r in most.items() if k not in rows or len(rows[k]['tta_mean'] or [0]) <= r['views']]

def _check_data(plan, file, rows):
    """Raises BadInput or OSError for what can't be trained here, and for a table of other images
    or of another device's settings."""
    path = imagenette(plan[0]['options'].get('data'))
    if other := {row['data'] for row in rows.values()} - {_data(path)}:
        raise BadInput(f'{file} is of {min(other)}, and these are {_data(path)}: '
                       'name another --out, or set $IMAGENETTE')
    checked = {} # by options: the same for all seeds
    for r in plan:
        key = training_key(r['options'], 0)
        try: p = checked[key] = checked.get(key) or resolve(Options(**r['options'], seed=r['seed']), path).settings()
        except (BadInput, OSError) as e: raise type(e)(f"part {r['part']}, kind {r['kind']}: {e}") from e
        row = rows.get(_key(r), p)
        for k in _DECIDED:
            if row[k] != p[k]:
                raise BadInput(f"{file}: {_words(r)} was trained with {k} {row[k]}, "
                               f"and {k} {p[k]} is what suits this machine: "
                               f"say {k} in the plan, or name another --out")

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
