"""Two processes take half a batch each, and the training stays what it was with one.

>>> from imagenette_course.distributed import share_of_batches
>>> [share_of_batches(range(8), bs=4, rank=rank, n=2) for rank in (0, 1)] # the images of each, in two batches
[[0, 1, 4, 5], [2, 3, 6, 7]]
"""

__all__ = ['share_of_batches', 'is_first', 'one_for_all', 'from_all', 'SplitDL', 'gather', 'Together', 'SplitTrainer',
           'distributed', 'join', 'leave', 'first_of_machine', 'first_speaks', 'told_to_stop']

import signal
from datetime import timedelta
from importlib.util import find_spec
from .core import BadInput, Stopped, quiet
from fastai.vision.all import *
if find_spec('accelerate'): # without it these two can't be imported
    from fastai.distributed import DistributedDL, DistributedTrainer
else: DistributedDL,DistributedTrainer = TfmdDL,Callback # `join` says what is missing

def share_of_batches(
    idxs:list, # of images, in the order of an epoch
    bs:int, # images a batch, of all processes together; a multiple of `n`
    rank:int, # number of this process, 0..n-1
    n:int, # processes
    drop_last:bool=False, # leave an incomplete batch out
) -> list: # this process's part of each batch, one after the other
    "Splits each batch between processes. A batch that can't be split evenly is filled up with its own first images."
    mine = []
    for batch in chunked(idxs, bs, drop_last):
        share = math.ceil(len(batch)/n)
        mine += (list(batch)*n)[rank*share:(rank+1)*share]
    return mine

def is_first(
) -> bool: # also where there is no other
    "Whether this is process 0, the one that writes and speaks."
    return rank_distrib() == 0

def one_for_all(
    value, # of process 0, anything that can be pickled; the others' is not looked at
): # that of process 0, in each process
    "What process 0 has. Alone, a process keeps what it has."
    if num_distrib() < 2: return value
    box = [value]
    torch.distributed.broadcast_object_list(box, 0)
    return box[0]

def from_all(
    value, # of this process, anything that can be pickled
) -> list: # of the values of all processes, that of process 0 first
    "What each process has."
    if num_distrib() < 2: return [value]
    values = [None]*num_distrib()
    torch.distributed.all_gather_object(values, value)
    return values

class SplitDL(DistributedDL):
    "A loader that gives one process its part of each batch of `dl`."
    def __init__(self,
        dl:TfmdDL, # of whole batches
        rank:int=None, # number of this process, None: as the launcher says
        world_size:int=None, # processes, None: as the launcher says
    ):
        n = ifnone(world_size, num_distrib())
        if dl.bs % n: raise BadInput(f'bs={dl.bs} can not be split between {n} processes: use a multiple of {n}')
        super().__init__(dl.new(bs=dl.bs//n), rank, world_size)
        self.whole, self.n, self.dl.rng = dl.bs, dl.n, dl.rng # the same order as without this
    @property
    def rng(self): return self.dl.rng
    def __len__(self): return self.dl.n//self.whole if self.drop_last else math.ceil(self.dl.n/self.whole)
    def get_idxs(self):
        return share_of_batches(one_for_all([*self.dl.get_idxs()]), self.whole, self.rank, self.world_size,
                                self.drop_last)
    def to_detach(self, b, cpu=True, gather=True): return to_detach(b, cpu, False) # `Together` has gathered it

def gather(
    x:torch.Tensor, # (n, ...), of the same shape in each process
    size:int, # how many to keep of all
) -> torch.Tensor: # (size, ...), those of process 0 first
    "The parts of all processes, one after the other, without what was filled up at the end."
    x = x.as_subclass(torch.Tensor).contiguous()
    parts = [torch.empty_like(x) for _ in range(num_distrib())]
    torch.distributed.all_gather(parts, x)
    return torch.cat(parts)[:size]

class Together(Callback):
    """Gives each process the predictions of the whole batch in validation, and the same weights and statistics after a
    fit."""
    order,run_train = 100,False
    def after_pred(self):
        size = min(self.dl.whole, self.dl.dl.n - self.iter*self.dl.whole)
        self.learn.pred = gather(self.pred, size)
        self.learn.yb = tuple(gather(o, size) for o in self.yb)
    def after_fit(self):
        for o in self.model.state_dict().values(): torch.distributed.broadcast(o, 0)

class SplitTrainer(DistributedTrainer):
    "fastai's `DistributedTrainer` with `SplitDL`."
    name = 'distributed_trainer'
    def _wrap_dl(self, dl): return dl if isinstance(dl, SplitDL) else SplitDL(dl)

@contextmanager
def distributed(
    learn:Learner, # with loaders of whole batches
):
    """Within it a learner trains and predicts with all processes that the launcher started. Afterwards a network on
    GPUs keeps PyTorch's SyncBatchNorm, which waits for all processes in training."""
    if num_distrib() < 2: yield learn; return
    cpu = learn.dls.device.type == 'cpu'
    # 'no', whatever `accelerate config` says: the network casts by itself
    trainer = SplitTrainer(sync_bn=not cpu, cpu=cpu, mixed_precision='no', dynamo_backend='no')
    with learn.added_cbs([trainer, Together()]): yield learn

def join():
    "Lets the processes find each other; nothing when there is one. Raises BadInput when accelerate is missing."
    if num_distrib() < 2: return
    if not find_spec('accelerate'):
        raise BadInput('several processes need the package accelerate: pip install accelerate, '
                       'or uv run --extra distributed')
    from accelerate import PartialState
    hour = timedelta(hours=1) # for the first process to download and decode
    PartialState(cpu=not torch.cuda.is_available(), timeout=hour) # chooses the GPU and the way to talk, and begins

def leave():
    "The end of what `join` began."
    if torch.distributed.is_initialized(): torch.distributed.destroy_process_group()

@contextmanager
def first_of_machine():
    "One process of each machine runs the body before the others do."
    if num_distrib() < 2: yield; return
    from accelerate import PartialState
    with PartialState().local_main_process_first(): yield

def first_speaks():
    "A context in which all processes but the first print into the void; what they write to stderr stays."
    return quiet(not is_first())

@contextmanager
def told_to_stop():
    "Within it SIGTERM, and a connection that breaks, raise Stopped; with one process all stays as it is."
    if num_distrib() < 2: yield; return
    def stop(*_): raise Stopped('another process of this run has ended')
    before = signal.signal(signal.SIGTERM, stop)
    try: yield
    except RuntimeError as e:
        lost = isinstance(e, torch.distributed.DistError) or re.search('gloo|NCCL|closed by peer|reset by peer', str(e))
        if isinstance(e, Stopped) or not lost: raise
        raise Stopped('the connection to another process of this run broke') from e
    finally: signal.signal(signal.SIGTERM, before)
