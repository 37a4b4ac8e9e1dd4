"""`imagenette_train`: a whole experiment in one line, with everything that you need to believe it afterwards.

`options.py` says what can be asked for. Here it is trained, saved after each epoch, and written.

    imagenette_train --data sample --epochs 3 --mixup 0.4

In Python the same is `train(data='sample', epochs=3, mixup=.4)`, which gives back what `summary.json` holds."""

__all__ = ['loaders', 'make_learner', 'peak_memory', 'train', 'imagenette_train', 'trained_learner', 'main']

import gc, hashlib, itertools, time
from dataclasses import asdict
from .core import BadInput, Diverged, OutOfMemory, Stopped, in_one_line, one_line, png, quiet, show_version, write_aside
from .dataset import get_dls, imagenette, is_sample
from .record import Run, versions
from .baseline import compare, confusion, fit, get_learner, plot_confusion, plot_history
from fastai.vision.all import *
from .models import load_model, save_model # after fastai, which has functions of these names
from .resize import progressive_fit
from .tta import tta
from .smoothing import LabelSmoothingCrossEntropy
from .speed import cached_dls, fast_learner
from .techniques import muon
from .sprint import SPRINT_NETS, GrowImages, sprint_opt, whitened
from .distributed import (distributed, first_of_machine, first_speaks, from_all, is_first, join, leave, one_for_all,
                          told_to_stop)
from .checkpoint import Checkpoint, StopAtNaN, TensorBoard, plain_values, read_checkpoint, save_checkpoint
from .options import Options, Plan, check_names, network, parse, resolve

RESULTS = (r'summary\.json|checkpoint\.pt|history\.csv|loss\.png|confusion\.png|model(-seed\d+)?\.safetensors')
SAVE_SECONDS = 30 # between two checkpoints at least; a training that is stopped, and not killed, saves its last epoch

# ---- the folder

def _results_in(folder): return sorted(f for f in folder.glob('*') if re.fullmatch(RESULTS, f.name))

def _check_out(out, force):
    "Raises FileExistsError where no results may be written."
    if out.exists() and not out.is_dir(): raise FileExistsError(f'--out {out} is a file: name a folder')
    if (there := _results_in(out)) and not force:
        go_on = f', or go on with the run in it: --resume {out}' if out/'checkpoint.pt' in there else ''
        raise FileExistsError(f'{there[0]} exists already: name another --out, '
                              f'or replace what is there with --force{go_on}')

def _new_folder(out):
    "The folder for the results, made: `out`, or a new one; what another run saved to be resumed is gone."
    stem = time.strftime('runs/%Y-%m-%d-%H%M%S')
    for i in itertools.count(1):
        folder = out or Path(stem if i == 1 else f'{stem}-{i}')
        try: folder.mkdir(parents=True, exist_ok=folder == out)
        except OSError as e:
            if out is None and isinstance(e, FileExistsError): continue # another run was there first
            raise OSError(f'{folder} could not be made ({e.strerror}): name another --out') from e
        events = folder.glob('tensorboard/seed*/events.out.tfevents.*')
        for f in (folder/'checkpoint.pt', folder/'summary.json', *events): f.unlink(missing_ok=True)
        return folder

def _model_name(o, seed): return 'model.safetensors' if o.runs == 1 else f'model-seed{seed}.safetensors'

# ---- one training

def loaders(
    plan:Plan, # as from `resolve`
) -> DataLoaders:
    "The batches of a plan."
    o = plan.options
    stats = None if o.no_normalize else imagenet_stats
    make = get_dls if o.book else partial(cached_dls, min_scale=plan.crop)
    return make(plan.path, plan.bs, plan.size, stats, files=plan.files, workers=o.workers, noise=o.noise,
                holdout=o.holdout)

def _learner(plan, dls, arch, seed, **kwargs):
    loss_func = None if plan.smooth is None else LabelSmoothingCrossEntropy(plan.smooth)
    return (get_learner if plan.options.book else fast_learner)(dls, arch, loss_func=loss_func, seed=seed, **kwargs)

def make_learner(
    plan:Plan, # as from `resolve`
    dls:DataLoaders, # as from `loaders`
    seed:int, # of weights, batches and augmentation
) -> Learner:
    "A learner with the network, the loss, the optimizer and the callbacks of a plan."
    arch = partial(network, plan.arch, plan.options.blur)
    if plan.arch in SPRINT_NETS and not plan.options.no_whiten: arch = whitened(arch, dls)
    opts = dict(ranger=ranger, muon=muon, sprint=sprint_opt)
    own = dict(opt_func=opts[plan.opt]) if plan.opt in opts else {} # else the learner's own
    learn = _learner(plan, dls, arch, seed, cbs=plan.options.callbacks(), **own)
    learn.arch = plan.arch # not the name of `network`
    return learn

class Job:
    "A call of `train`: what is planned, what is finished, and where it is saved."
    def __init__(self,
        plan:Plan, # what will be done
        out:Path, # folder for the results
        past:dict, # content of a checkpoint, None: begin anew
        cbs, # callbacks
        show:bool, # False: print nothing while training
    ):
        "Begins in `out`, or goes on there. Raises BadInput for other images."
        self.plan,self.out,self.cbs,self.show = plan,out,cbs,show
        o,rows = plan.options,[(os.path.relpath(f, plan.path), f.stat().st_size) for f in plan.files]
        named = o.data is not None and Path(o.data).expanduser() != plan.path # 'sample' or '160'
        again = dict(o.given(), data=o.data if named else str(plan.path.resolve())) # options that make this run again
        self.fixed = plain_values(dict(
            options={k: v for k,v in again.items() if k not in ('out', 'force')}, plan=plan.settings(),
            images=hashlib.sha256(json.dumps(rows).encode()).hexdigest(), processes=max(1, num_distrib())))
        self.planned,self.done,self.now = plan.epochs*o.runs,[],None
        if past is None:
            self.out = one_for_all(_new_folder(out) if is_first() else None)
            self.save() # so that it can be resumed from here on
            return
        if past['images'] != self.fixed['images']:
            raise BadInput(f'--resume {out}: the run was begun with other images than those in {plan.path}')
        for f in out.glob('.*'):
            if re.fullmatch(rf'\.({RESULTS})\.\d+', f.name) and is_first(): f.unlink() # of a process that was killed
        self.done,self.now = past['done'],past['now']
        self.n_saved = len(self.rows(self.now))

    def rows(self, now):
        "A dict for each epoch of the finished runs, and of the one that goes on, whose state is `now`."
        histories = [d['run']['history'] for d in self.done] + ([] if now is None else [now['history']])
        return [dict(seed=self.plan.options.seed + i, **row) for i,h in enumerate(histories) for row in h]

    def save(self, now=None):
        "Replaces history and checkpoint by finished runs, and the state of the one that goes on."
        if now is not None: now = dict(now, random=from_all(now['random']))
        rows = self.rows(now)
        if is_first():
            save_checkpoint(self.out/'checkpoint.pt', dict(self.fixed, done=plain_values(self.done), now=now))
            note = f'# partial: {len(rows)} of {self.planned} epochs\n' if len(rows) < self.planned else ''
            if rows: write_aside(self.out/'history.csv', (note + pd.DataFrame(rows).to_csv(index=False)).encode())
        self.n_saved = len(rows)

    def train_one(self, dls, seed):
        "Trains once, writes the weights, and keeps the record, what the views gave, and the confusion matrix."
        p,o = self.plan,self.plan.options
        past,self.now = self.now and dict(self.now, random=self.now['random'][rank_distrib()]),None
        every = SAVE_SECONDS if num_distrib() < 2 else 0 # several processes have to save at the same epoch
        cbs = [*L(self.cbs), Checkpoint(self.save, past, every), StopAtNaN()]
        if o.tensorboard and is_first(): cbs.append(TensorBoard(self.out/'tensorboard'/f'seed{seed}'))
        if p.grow: cbs.append(GrowImages(p.grow))
        learn,views = make_learner(p, dls, seed),None
        if not self.show: learn.remove_cb(ProgressCallback); learn.logger = noop
        with distributed(learn):
            if p.stages: run = progressive_fit(learn, p.stages, name=p.title, cbs=cbs)
            else: run = fit(learn, p.epochs, p.lr, name=p.title, cbs=cbs, schedule=p.schedule)
            if is_first(): save_model(learn, self.out/_model_name(o, seed), run.accuracy)
            cm = confusion(learn)
            if o.tta:
                start = time.perf_counter()
                preds,targs = tta(learn, n=o.tta)
                views = (preds.argmax(1) == targs).float().mean().item(), time.perf_counter()-start
        self.done.append(dict(run=asdict(run), tta=views, cm=cm.tolist()))
        self.save()

    def train_all(self, dls):
        "Trains what is left of all runs."
        p,o = self.plan,self.plan.options
        share = f' by {num_distrib()} processes' if num_distrib() > 1 else ''
        print(f"{p.title}: {f'{p.grow} to ' if p.grow else ''}{p.size} px, {p.bs} images a batch{share}, "
              f'{p.epochs} epochs, lr {p.lr}, seed {o.seed}', flush=True)
        if self.n_saved:
            print(f'goes on after {len(self.done)} finished runs '
                  f"and {len(self.now['history']) if self.now else 0} epochs of the next", flush=True)
        for seed in range(o.seed + len(self.done), o.seed + o.runs):
            if o.runs > 1: print(f'run {len(self.done)+1} of {o.runs}, seed {seed}', flush=True)
            self.train_one(dls, seed)

    def run(self, dls):
        "Trains, and gives the summary; errors say in one line what is left, and how to go on."
        p,full = self.plan,False
        try:
            with told_to_stop(): self.train_all(dls)
            return one_for_all(self.write(dls) if is_first() else None)
        except KeyboardInterrupt: raise KeyboardInterrupt(self.stopped()) from None
        except Stopped as e: raise Stopped(f'{one_line(e)}; {self.stopped()}') from None
        except Diverged as e:
            before = f"; {self.out/'checkpoint.pt'} holds the epochs before" if self.n_saved else ''
            raise Diverged(one_line(e) + before) from None
        except torch.OutOfMemoryError: full = True # what the error holds on to is free below
        except RuntimeError as e: # of a worker process of `--book`
            if not re.search('shared memory|shm|[Bb]us error', str(e)): raise
            raise OutOfMemory('the worker processes have too little shared memory (/dev/shm): '
                              f'begin another run with --workers 0; {self.stopped()}') from e
        if full:
            gc.collect() # the learner, which refers to itself, would keep the memory from the next training
            raise OutOfMemory('too little memory for ' + (
                f'--progressive {p.options.progressive}: give its larger stages a smaller batch, as in epochs:size:bs'
                if p.stages else f'--bs {p.bs} at {p.size} px: begin another run with a smaller --bs or --size'
            ) + f'; {self.stopped()}')

    def stopped(self):
        "What a stopped run leaves, in words."
        if not self.n_saved: return f'stopped before an epoch was finished; --resume {self.out} begins it again'
        return (f"stopped; {self.out/'history.csv'} holds {self.n_saved} of {self.planned} epochs; "
                f'--resume {self.out} goes on')

    def summary(self, dls, runs):
        "What summary.json holds."
        p,views = self.plan,[d['tta'] for d in self.done if d['tta']]
        dataset = dict(path=str(p.path), drawn=is_sample(p.path), train=len(dls.train_ds), val=len(dls.valid_ds),
                       classes=list(dls.vocab), left_out=p.left_out)
        return dict(**_spread('accuracy', [run.accuracy for run in runs]),
                    seconds=np.mean([run.seconds for run in runs]).item(),
                    **_spread('tta_accuracy', [a for a,_ in views]),
                    tta_seconds=np.mean([s for _,s in views]).item() if views else None,
                    dataset=dataset, device=', '.join(dict.fromkeys(run.device for run in runs)),
                    memory_gb=peak_memory()/1e9, options=self.fixed['options'], plan=self.fixed['plan'],
                    versions=versions(), date=time.strftime('%Y-%m-%d'))

    def write(self, dls):
        "Shows the table, writes summary and figures; then the checkpoint is not needed any more. Gives the summary."
        o,runs = self.plan.options,[Run(**d['run']) for d in self.done]
        summary = self.summary(dls, runs)
        for run in runs: run.device,run.settings = '',{} # wherever they were resumed
        print(compare(runs).to_string(na_rep='-')) # one run has no spread
        if o.tta:
            print(f"with {o.tta} augmented views beside the plain one: {summary['tta_accuracy']:.1%}, "
                  f"{summary['tta_seconds']:.0f} s more for each run")
        cm = sum(np.array(d['cm']) for d in self.done)
        write_aside(self.out/'loss.png', png(plot_history(runs[0])))
        write_aside(self.out/'confusion.png', png(plot_confusion(cm, list(dls.vocab))))
        write_aside(self.out/'summary.json', json.dumps(summary, indent=1).encode())
        (self.out/'checkpoint.pt').unlink()
        new = {self.out/_model_name(o, run.seed) for run in runs}
        for f in _results_in(self.out):
            if f.suffix == '.safetensors' and f not in new: f.unlink() # of the run that --force replaces
        print(f'Written to {self.out}:', ', '.join(f.name for f in _results_in(self.out)))
        if o.tensorboard: print(f'tensorboard --logdir {self.out}/tensorboard shows the curves')
        return summary

def _spread(name, values):
    "Mean, standard deviation (n-1) and all values; None where there are too few."
    plural = name.replace('accuracy', 'accuracies')
    return {name: np.mean(values).item() if values else None,
            f'{name}_std': np.std(values, ddof=1).item() if len(values) > 1 else None, plural: values}

def peak_memory(
) -> int: # bytes
    """The most memory held since this process began: of the GPU where there is one,
    else of the process, with the files it maps."""
    if torch.cuda.is_available(): return torch.cuda.max_memory_allocated()
    status = Path('/proc/self/status') # Linux, where `getrusage` counts the program that started this one, too
    if status.exists(): return 1024*int(re.search(r'VmHWM:\s+(\d+) kB', status.read_text())[1])
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform == 'darwin' else 1024)

# ---- a run: begun, or gone on with

def _read_run(out, options):
    "The checkpoint in a folder, and its options with what was given beside. Raises BadInput."
    if other := options.keys() - {'data'}:
        raise BadInput(f'--resume {out}: the folder says what the run is; leave --{min(other)} away, '
                       'or begin another run without --resume')
    if not (out/'checkpoint.pt').exists():
        raise BadInput(f'--resume {out}: there is no run in it; name the folder of a run that was stopped')
    past = read_checkpoint(out/'checkpoint.pt')
    try:
        check_names(past['options'])
        o = Options(**{**past['options'], **options})
        past['plan'], past['images'], past['processes'], past['done'], past['now'] # are there
    except (BadInput, KeyError, TypeError, AttributeError) as e:
        raise BadInput(f'{out}/checkpoint.pt is no checkpoint of this version of imagenette_train: '
                       'begin anew with another --out') from e
    if (n := max(1, num_distrib())) != past['processes']:
        raise BadInput(f"--resume: the run in {out} was begun with processes={past['processes']}, and these are {n}: "
                       f"start as many as then, such as torchrun --nproc-per-node {past['processes']}")
    return past, o

@delegates(Options)
def train(
    resume:Path=None, # folder of a run that was stopped, to go on with it; then only `data`, if the images were moved
    cbs:list=None, # further callbacks, for each run
    show:bool=True, # False: print nothing
    **kwargs # options
) -> dict: # what summary.json holds
    """Trains, and writes the record, the figures and the weights. Raises BadInput or OSError for what you can mend,
    before training where that can be known; Diverged, and OutOfMemory."""
    options = {k: str(v) if isinstance(v, Path) else v for k,v in kwargs.items()}
    with quiet(not show), first_speaks():
        if torch.cuda.is_available(): torch.cuda.reset_peak_memory_stats() # of an earlier run of this process
        if resume is None:
            check_names(options)
            past,o = None,Options(**options)
            out = None if o.out is None else Path(o.out).expanduser()
            if out is not None: _check_out(out, o.force)
        join()
        if resume is not None:
            out = Path(resume).expanduser()
            if (out/'summary.json').exists() and not (out/'checkpoint.pt').exists():
                print(f'{out} is complete: there is nothing to resume')
                return json.loads((out/'summary.json').read_text())
            past,o = _read_run(out, options)
        with first_of_machine():
            try: path = imagenette(o.data)
            except FileNotFoundError as e:
                if resume is None: raise
                raise FileNotFoundError(f'{e}; if the images were moved, say where they are: '
                                        f'--resume {resume} --data FOLDER') from e
            plan = resolve(o, path, past and past['plan'])
            dls = loaders(plan)
        return Job(plan, out, past, cbs, show).run(dls)

def trained_learner(
    out:Path, # folder of a finished run
    seed:int=None, # which of its runs; None: the first
) -> Learner: # with the data, the network and the loss of the run; nothing else that it was trained with
    "The learner of a finished run. Raises BadInput or OSError when its data or its results are not there any more."
    out = Path(out).expanduser()
    if not (out/'summary.json').exists(): raise BadInput(f'{out} holds no finished run of imagenette_train')
    summary = json.loads((out/'summary.json').read_text())
    o = Options(**summary['options'])
    plan = resolve(o, imagenette(o.data), summary['plan'])
    seed = ifnone(seed, o.seed)
    model = load_model(out/_model_name(o, seed)).model
    learn = _learner(plan, loaders(plan), lambda n_out: model, seed)
    learn.model.to(learn.dls.device)
    return learn

@delegates(Options)
def imagenette_train(
    resume:str=None, # folder of a run that was stopped: go on with it
    **kwargs # options
):
    "`train`; an error ends the program with one line."
    with in_one_line('imagenette_train', 'stopped before training began', 'try a smaller --bs or --size'):
        train(resume, **kwargs)

def main():
    "The command `imagenette_train`: reads `sys.argv`."
    show_version()
    with in_one_line('imagenette_train'): options,resume = parse(sys.argv[1:])
    imagenette_train(resume, **options)
    leave()

if __name__ == '__main__': main()
