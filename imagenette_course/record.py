"""The record of a training, and what fills it: callbacks, recorders that don't make a GPU wait, seeds.

>>> from imagenette_course.record import Run
>>> run = Run('first try', epochs=2, lr=.003, seed=42, device='a CPU') # as `fit` begins one
>>> run.history.append(dict(epoch=1, train_loss=2.1, valid_loss=1.9, accuracy=.31, seconds=12.)) # after each epoch
>>> run
first try: accuracy 31.0% after 1 of 2 epochs, 12 s
"""

__all__ = ['name_of', 'DeviceMetric', 'DeviceLoss', 'DeviceSmoothLoss', 'DeviceRecorder', 'versions', 'device_name',
           'Run', 'RecordRun', 'PrintLines', 'no_output', 'new_run', 'told_of_stops', 'fit_recorded']

import inspect, platform
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from time import perf_counter
from .core import BadInput, check_range, show_bar
from fastai.vision.all import *

# ---- numbers that stay on the device until the end of an epoch

class DeviceMetric(AvgMetric):
    "fastai's `AvgMetric`, whose sum stays on the device until the end of an epoch."
    def accumulate(self, learn):
        bs = find_bs(learn.yb)
        self.total += learn.to_detach(self.func(learn.pred, *learn.yb), cpu=False)*bs
        self.count += bs

class DeviceLoss(AvgLoss):
    "The same for the validation loss."
    def accumulate(self, learn):
        bs = find_bs(learn.yb)
        self.total += learn.to_detach(learn.loss.mean(), cpu=False)*bs
        self.count += bs

class DeviceSmoothLoss(AvgSmoothLoss):
    "The same for the training loss."
    def accumulate(self, learn):
        loss = to_detach(learn.loss.mean(), cpu=False)
        self.val = torch.lerp(loss, self.val.to(loss.device), self.beta)
        self.count += 1

class DeviceRecorder(Recorder):
    "fastai's `Recorder`, which reads no number before the end of an epoch, so that no step waits for a GPU."
    name = 'recorder'
    def __init__(self,
        **kwargs, # for fastai's `Recorder`
    ):
        super().__init__(**kwargs)
        self.loss,self.smooth_loss = DeviceLoss(),DeviceSmoothLoss(self.smooth_loss.beta)
    def after_fit(self): self.losses = to_detach(self.losses, gather=False) # for fastai's plots

# ---- what is recorded

def versions() -> dict: # package name -> version
    "The versions that a result depends on."
    packages = ('imagenette_course', 'fastai', 'torch', 'torchvision')
    return {'python': platform.python_version(), **{o: version(o) for o in packages}}

def device_name(
    device:torch.device, # where the training runs
) -> str: # 'NVIDIA H200', 'x86_64 CPU, 2 threads'
    "The device in words."
    kind = torch.device(device).type
    if kind == 'cuda': return torch.cuda.get_device_name(device)
    return f'{platform.machine()} ' + (f'CPU, {torch.get_num_threads()} threads' if kind == 'cpu' else kind)

@dataclass
class Run:
    "The record of one training run."
    name:str # what was tried; `compare` puts runs of the same name together
    epochs:int # planned; `history` has a row for each one that was finished
    lr:float # largest learning rate of the schedule
    seed:int # of weights, batches and augmentation; None: not set
    device:str # in words
    settings:dict = field(default_factory=dict) # what else tells this run from another: network, loss, optimizer, data
    versions:dict = field(default_factory=versions) # package -> version
    history:list = field(default_factory=list) # a dict for each epoch, see `RecordRun`

    @property
    def accuracy(self): return self.history[-1]['accuracy'] if self.history else None # of the last epoch, 0..1
    @property
    def seconds(self): return self.history[-1]['seconds'] if self.history else 0. # training and validation
    def __repr__(self):
        if not self.history: return f'{self.name}: no epoch finished'
        return (f'{self.name}: accuracy {self.accuracy:.1%} after {len(self.history)} of {self.epochs} epochs, '
                f'{self.seconds:.0f} s')

class RecordRun(Callback):
    """Adds to a `Run`, after each epoch: epoch, train_loss, valid_loss, accuracy (0..1), seconds since its first fit
    began."""
    order = Recorder.order + 1
    def __init__(self,
        record:Run, # to be filled
    ): store_attr()
    def before_fit(self):
        if not self.record.history: self.start = perf_counter()
    def after_epoch(self):
        row = dict(zip(self.recorder.metric_names[1:], self.learn.final_record))
        row = dict(epoch=len(self.record.history)+1, **row, seconds=perf_counter()-self.start)
        self.record.history.append(row)

class PrintLines(Callback):
    "Prints each row of the record as one line, for files and pipes."
    order = RecordRun.order + 9
    def after_epoch(self):
        run = self.learn.record_run.record
        row = run.history[-1]
        text = '  '.join(f'{k} {v:.3f}' for k,v in row.items() if k not in ('epoch', 'seconds'))
        print(f"epoch {row['epoch']}/{run.epochs}  {text}  after {row['seconds']:.0f} s", flush=True)

def name_of(
    o, # a function, a `partial`, or any object
) -> str: # for the record
    "The name of a function, of what a `partial` calls, or of an object's class."
    return getattr(getattr(o, 'func', o), '__name__', None) or type(o).__name__

def _described(o):
    "The name of a loss, an optimizer or a callback, with the numbers and words that it was given: `MixUp(alpha=0.2)`."
    names = inspect.signature(type(o).__init__).parameters
    args = {k: v for k,v in getattr(o, '__dict__', {}).items()
            if k in names and v != names[k].default and isinstance(v, (int, float, str))}
    args.update({k: getattr(v, '__name__', v) for k,v in getattr(o, 'keywords', {}).items()})
    return name_of(o) + (f"({', '.join(f'{k}={v}' for k,v in args.items())})" if args else '')

def _settings(learn, cbs):
    "What tells a run from another one, beside its seed and its schedule; `cbs` are for this run alone."
    cbs = sorted(_described(o) for o in [*learn.cbs, *L(cbs)] if not isinstance(o, tuple(defaults.callbacks)))
    return dict(arch=getattr(learn, 'arch', name_of(learn.model)), loss=_described(learn.loss_func),
                opt=_described(learn.opt_func), cbs=cbs, train=len(learn.dls.train_ds), val=len(learn.dls.valid_ds),
                **getattr(learn, 'use', {}), **getattr(learn.dls, 'settings', {}))

def new_run(
    learn:Learner, # as from `get_learner`
    epochs:int, # passes over the training images, in all
    lr:float, # largest learning rate
    name:str=None, # what is tried, None: the network's class
    cbs=None, # callbacks for this run alone
) -> Run: # without epochs
    "The record of a run that is about to begin. Raises BadInput for a bad number, or a learner without accuracy."
    if not isinstance(learn, Learner):
        raise BadInput(f'learn is a {type(learn).__name__}: it must be a Learner, as from get_learner')
    check_range('epochs', epochs, 1); check_range('lr', lr, 1e-8, 10, float)
    if 'accuracy' not in learn.metrics.attrgot('name'):
        raise BadInput('learn needs the metric accuracy, see get_learner')
    return Run(name or type(learn.model).__name__, epochs, lr, getattr(learn, 'seed', None),
               device_name(learn.dls.device), _settings(learn, cbs))

# ---- a fit

@contextmanager
def no_output(
    learn:Learner, # to be kept quiet
):
    "Takes away a learner's progress bar and table."
    with learn.no_bar(), learn.no_logging(): yield

def _seed_batches(learn):
    """Sets the seeds of augmentation and of the order of the training images; each fit of a learner has its own. Of
    several processes, each has its own augmentation, and all the same order."""
    n,rank = learn.n_fits,rank_distrib()
    seed = random.Random(f'{learn.seed}/{n}').getrandbits(32) if n else learn.seed
    set_seed(random.Random(f'{seed}/process {rank}').getrandbits(32) if rank else seed)
    learn.dls.train.rng.seed(seed)
    learn.n_fits += 1

@contextmanager
def told_of_stops(
    cbs:list, # callbacks
):
    "Within it Ctrl-C and errors, of which fastai tells no callback, are told to those that have an `after_stop`."
    try: yield
    except BaseException:
        for cb in cbs:
            if hasattr(type(cb), 'after_stop'): cb.after_stop()
        raise

def fit_recorded(
    fit_method, # a method of the learner that trains, such as `learn.fit_one_cycle`
    epochs:int, # for `fit_method`
    lr:float, # for `fit_method`
    recorder:RecordRun, # the same one for all fits of a run
    cbs=None, # callbacks for this run alone
    show:bool=True, # False: print nothing
):
    "Sets the seeds and trains; `recorder` goes on where it stopped."
    learn = fit_method.__self__
    if getattr(learn, 'seed', None) is not None: _seed_batches(learn)
    lines = [PrintLines()] if show and not show_bar() else []
    with nullcontext() if show and show_bar() else no_output(learn), told_of_stops([*learn.cbs, *L(cbs)]):
        fit_method(epochs, lr, cbs=L(recorder) + L(cbs) + lines)
