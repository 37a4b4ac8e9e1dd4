"""The options of `imagenette_train`: what was asked for (`Options`), and what will be done with these images (`Plan`).

Both are frozen: nothing changes them after they were made. `parse` reads a command line, `resolve` makes the plan.

>>> from imagenette_course.options import Options
>>> Options(arch='xresnet18', mixup=.4).given()
{'arch': 'xresnet18', 'mixup': 0.4}
>>> Options(epochs=0)
Traceback (most recent call last):
imagenette_course.core.BadInput: --epochs=0: it must be a whole number of 1 or more
"""

__all__ = ['Options', 'Plan', 'check_names', 'parse', 'network', 'resolve']

import re, tomllib
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from importlib.util import find_spec
from .core import BadInput, check_range
from .files import check_images, image_files
from .dataset import NOISE, NoisyLabel, held_out, subset
from .baseline import ARCHS, baseline_recipe
from fastai.vision.all import *
# after fastai, which has a MixUp and a LabelSmoothingCrossEntropy of its own
from .resize import Stage, n_epochs, parse_stages, smallest_size
from .mixup import MixUp
from .smoothing import LabelSmoothingCrossEntropy
from .mixing import CutMix, RandomMix, ResizeMix
from .techniques import EMA, RandomErasing, use_blur_pool
from .sprint import SPRINT_NETS, recipe
from .models import named_network
from fastcore.script import anno_parser

LIMITS = dict(size=(8, 2048), bs=(2, None), epochs=(1, None), lr=(1e-8, 10, float), seed=(0, 2**32-1), runs=(1, None),
              workers=(0, None), subset=(1, None), crop=(.01, 1, float), grow=(0, 2048), tta=(0, None))
TECHNIQUES = dict(mixup=MixUp, cutmix=CutMix, resizemix=lambda _: ResizeMix(), smooth=LabelSmoothingCrossEntropy,
                  ema=EMA, erase=RandomErasing) # what each option makes of its value
OPTS = dict(adamw=('cycle', 3e-3), ranger=('flat', 3e-3), muon=('cycle', 3e-3),
            sprint=('linear', .17)) # the schedule that each is used with, and a rate where it is not the recipe's
CHOICES = dict(arch=ARCHS, opt=OPTS, schedule=('cycle', 'flat', 'linear'), noise=NOISE)
PLAIN = dict(opt='adamw', smooth=None, crop=.75, grow=None) # beside `baseline_recipe`
NOT_BOTH = [('epochs', 'progressive', '--progressive names epochs and sizes'),
            ('size', 'progressive', '--progressive names epochs and sizes'),
            ('grow', 'progressive', 'both let images grow'),
            ('schedule', 'progressive', 'each stage has a schedule of its own'),
            ('grow', 'book', 'the chapter lets images grow in stages, with --progressive')]
TITLE = ('book', 'progressive', *TECHNIQUES, 'mix_p', 'opt', 'schedule', 'crop', 'grow', 'no_whiten', 'blur', 'noise',
         'no_normalize', 'holdout') # what the name of a run tells

def _check_type(o, v):
    "Raises BadInput for a value that a field can't have."
    number = isinstance(v, int) and o.type is float # a whole one is a float, too
    if isinstance(v, bool) != (o.type is bool) or not (number or isinstance(v, o.type)):
        raise BadInput(f'{o.name} = {json.dumps(v, default=str)}: it must be of type {o.type.__name__}')

@dataclass(frozen=True)
class Options:
    "Train an image classifier from scratch. Ends with a table, and a folder of summary, history, figures, weights."
    data:str=None # sample, 160, 320, full, or a folder with train/ and val/; default: $IMAGENETTE, else 160
    arch:str=None # network; default: sprintnet, with what suits it as size, bs, epochs and lr
    size:int=None # side of the training images in pixels
    bs:int=None # images a batch
    epochs:int=None # passes over the training images
    lr:float=None # largest learning rate; default: as arch and opt
    seed:int=42 # of weights, batches and augmentation
    runs:int=1 # train this often, with seeds counting up
    workers:int=None # threads that decode once, or processes that read for --book; default: what suits the machine
    subset:int=None # use this many training images a class
    out:str=None # folder for the results; default: a new one below runs/
    force:bool=False # replace results in --out already
    skip_bad:bool=False # check all images first and leave the unreadable ones out
    mixup:float=None # train on blends of two images; alpha of the Beta distribution, such as 0.4
    cutmix:float=None # train on images with a box of another; alpha of the Beta distribution, such as 1
    resizemix:bool=False # train on images with another one pasted in, shrunken
    mix_p:str=None # how often to use each of the three you give, such as 0.5 or 0.3,0.3; default: equally, always one
    smooth:float=None # label smoothing; eps, such as 0.1; default: as arch
    progressive:str=None # epochs:size,... in place of --epochs and --size: growing images, such as 4:48,1:64
    tta:int=0 # test time augmentation at the end, over this many views beside the plain one
    erase:float=None # random erasing; share of the training images that lose a box, such as 0.5
    ema:float=None # validate and keep a moving average of the weights; its decay, such as 0.999
    opt:str=None # optimizer: adamw, ranger, muon (partly adamw), sprint (muon for all convolutions); default: as arch
    schedule:str=None # of the learning rate: cycle, flat (then a cosine) or linear (up and down); default: as opt
    crop:float=None # smallest part of the area in a random crop, such as 0.5; default: as arch
    grow:int=None # let images grow from this size to --size, epoch by epoch; 0: all have --size; default: as arch
    no_whiten:bool=False # let the first layer of sprintnet begin at random
    blur:bool=False # blur before the network's max pooling leaves out pixels
    noise:int=0 # percent of wrong training labels: 0, 1, 5, 25 or 50
    holdout:bool=False # validate on a tenth of the training images and leave val/ alone: for choosing settings
    no_normalize:bool=False # leave the pixels in 0..1, without the mean and standard deviation of ImageNet
    book:bool=False # the chapter's own pipeline and training step in float32, not the quick ones
    tensorboard:bool=False # write losses, rates and the images as the network sees them for TensorBoard

    def __post_init__(self):
        "Raises BadInput for what can't work with any images."
        for o in fields(self):
            v = getattr(self, o.name)
            if v is None and o.default is None: continue
            if isinstance(v, np.generic): v = v.item() # so that it can be written
            object.__setattr__(self, o.name, v)
            _check_type(o, v)
            if o.name in LIMITS: check_range(f'--{o.name}', v, *LIMITS[o.name])
            if o.name in CHOICES and v not in CHOICES[o.name]:
                raise BadInput(f"--{o.name}={v}: it must be one of {', '.join(map(str, CHOICES[o.name]))}")
        self.callbacks()
        for a,b,why in NOT_BOTH:
            if getattr(self, a) and getattr(self, b): raise BadInput(f'--{a} and --{b}: {why}; say one of them')
        for wrong,why in [
            (self.seed + self.runs > 2**32, f'--runs {self.runs}: the seeds would count up past {2**32-1}'),
            (self.progressive and self.opt == 'ranger', '--opt ranger and --progressive: ranger has a schedule of its '
             'own, flat and then a cosine; say one of them'),
            (self.book and self.crop not in (None, PLAIN['crop']),
             f"--crop and --book: the chapter's crops have {PLAIN['crop']} of the area or more"),
            (self.no_whiten and self.arch not in (None, *SPRINT_NETS),
             f"--no_whiten and --arch {self.arch}: only {', '.join(SPRINT_NETS)} can be whitened"),
            (self.tensorboard and not find_spec('tensorboard'), '--tensorboard needs the package tensorboard: '
             'pip install tensorboard, or uv run --extra tensorboard')]:
            if wrong: raise BadInput(why)

    def callbacks(self):
        "Fresh callbacks of the techniques; of several that mix images, one that takes turns. Raises BadInput."
        made = {}
        for k,make in TECHNIQUES.items():
            if (v := getattr(self, k)) is None or v is False: continue
            try: made[k] = make(v)
            except BadInput as e: raise BadInput(f'--{k}: {e}') from e
        made.pop('smooth', None) # no callback, but the loss
        mix = [made.pop(k) for k in ('mixup', 'cutmix', 'resizemix') if k in made]
        p = [1/len(mix)]*len(mix) if mix else [1.]
        if self.mix_p is not None:
            try: p = [float(v) for v in self.mix_p.split(',')]
            except ValueError: p = []
            if not mix or len(p) != len(mix):
                raise BadInput(f'--mix_p {self.mix_p}: it must be a number for each of --mixup, --cutmix and '
                               f'--resizemix that is given, with commas between; {len(mix)} of them are')
        try: return [*made.values(), *(mix if p == [1.] else [RandomMix(mix, p)])]
        except BadInput as e: raise BadInput(f'--mix_p {self.mix_p}: {e}') from e

    def given(self):
        "A dict of the options that are not what they are by default."
        return {k: v for k,v in asdict(self).items() if v != getattr(Options, k)}

# ---- from a command line and from a file

def check_names(
    options:dict, # value by name
):
    "Raises BadInput for an option that there is not."
    known = [o.name for o in fields(Options)]
    for k in options:
        if k not in known: raise BadInput(f"there is no option {k}; there are {', '.join(known)}")

def _read_config(file):
    "The options in a TOML file, or in the summary.json of an earlier run. Raises BadInput or OSError."
    data,kind = file.read_bytes(), 'JSON' if file.suffix == '.json' else 'TOML'
    try: found = json.loads(data)['options'] if kind == 'JSON' else tomllib.loads(data.decode())
    except (ValueError, KeyError, TypeError) as e: raise BadInput(f'{file} is not {kind} with options: {e}') from e
    if not isinstance(found, dict): raise BadInput(f'{file} is not {kind} with options')
    try:
        check_names(found)
        for o in fields(Options):
            if found.get(o.name) is not None: _check_type(o, found[o.name])
    except BadInput as e: raise BadInput(f'{file}: {e}') from e
    return found

def parse(
    argv:list, # of words, without the command
) -> tuple: # options by name that were given; the folder of --resume, or None
    "Reads a command line; what is given on it wins over --config. Raises BadInput, or ends with argparse's own line."
    parser = anno_parser(Options, prog='imagenette_train')
    parser.add_argument('--config', help='TOML file of options, or summary.json of an earlier run')
    parser.add_argument('--resume', help='folder of a run that was stopped: go on with it')
    unset = object() # an option that holds it afterwards was not given
    parser.set_defaults(**dict.fromkeys((o.name for o in fields(Options)), unset))
    old,new = ('_', '-') if '--skip-bad' in parser.format_help() else ('-', '_') # fastcore 2 and 1
    argv = [re.sub('^--[a-z_-]+', lambda m: '--' + m[0][2:].replace(old, new), o) for o in argv]
    args = vars(parser.parse_args(argv))
    given = {o.name: args[o.name] for o in fields(Options) if args[o.name] is not unset}
    if args['config'] is not None: given = {**_read_config(Path(args['config'])), **given}
    return given, args['resume']

# ---- with these images

@dataclass(frozen=True)
class Plan:
    "What will be done."
    options:Options # what was asked for
    path:Path # folder with `train/` and `val/`
    files:list = field(repr=False) # image files, Paths
    left_out:int # unreadable images
    title:str # network and techniques in words
    arch:str # network
    size:int # side of the images in the end, pixels
    bs:int # images a batch, of the first stage
    epochs:int # of one run, over all stages
    lr:float # largest learning rate
    opt:str # optimizer
    schedule:str # of the learning rate; None: that of the stages
    smooth:float # eps of label smoothing; None: none
    crop:float # smallest part of an image's area in a training view, 0..1
    grow:int # side of the images in the first epoch, pixels; None or 0: all have `size`
    stages:list # of Stage; None: one size, or `grow`

    def settings(self):
        "A dict of the numbers and words."
        return {k: getattr(self, k) for k in ('arch', 'size', 'bs', 'epochs', 'lr', 'opt', 'schedule', 'smooth', 'crop',
                                              'grow', 'stages')}

def network(
    arch:str, # one of ARCHS
    blur:bool, # blur before the network's max pooling leaves out pixels
    **kwargs # such as `n_out`
) -> nn.Module:
    "A fresh network."
    model = named_network(arch)(**kwargs)
    return use_blur_pool(model) if blur else model

@lru_cache
def _smallest(arch, blur): return smallest_size(network(arch, blur))

def _choose_files(o, path):
    "The image files that the options select, and how many unreadable ones were left out."
    files = image_files(path)
    bad = {f: why for f,why in check_images(path).items() if f in set(files)} if o.skip_bad else {}
    if bad: print(f'--skip_bad leaves out {len(bad)}:', ', '.join(f'{f.name} ({why})' for f,why in bad.items()))
    files = files.filter(lambda f: f not in bad)
    return files if o.subset is None else subset(path, o.subset, seed=o.seed, files=files), len(bad)

def _usual(o, path, n_train):
    "What suits the data where the options say nothing: the sprint, or chapter 01 with `--book` and other networks."
    r = {**baseline_recipe(path), **PLAIN} if o.book or o.arch not in (None, *SPRINT_NETS) else recipe(path)
    opt = ifnone(o.opt, r['opt'])
    schedule,lr = OPTS[opt]
    r = dict(r, arch=r['arch'].__name__, lr=r['lr'] if opt == r['opt'] else lr, schedule=schedule)
    if o.progressive: r['schedule'] = r['grow'] = None
    elif r['grow']: r['grow'] = min(r['grow'], ifnone(o.size, r['size']))
    bs = min(r['bs'], n_train)
    return dict(r, bs=bs - bs % max(1, num_distrib()))

def resolve(
    o:Options, # what was asked for
    path:Path, # folder with `train/` and `val/`, as from `imagenette`
    settings:dict=None, # of an earlier plan of these options; None: what suits this machine
) -> Plan:
    "Decides all that the options leave open. Raises BadInput or OSError for what can't be trained with these images."
    files,left_out = _choose_files(o, path)
    n_train = len(held_out(files)[0]) if o.holdout else sum(f.parts[-3] == 'train' for f in files)
    usual = _usual(o, path, n_train)
    s = {k: ifnone(getattr(o, k), v) for k,v in usual.items()}
    stages = None if o.progressive is None else parse_stages(o.progressive, s['bs'], s['lr'])
    if stages: s.update(size=stages[-1].size, epochs=sum(n_epochs(stages)), bs=stages[0].bs)
    if settings is not None:
        s,stages = dict(settings),[Stage(*o) for o in settings['stages'] or []] or None
        del s['stages']
    n = max(1, num_distrib())
    for bs in [o.bs for o in stages] if stages else [s['bs']]:
        check_range(f'--progressive {o.progressive}: bs' if stages else '--bs', bs, 2, n_train)
        if bs % n or bs < 2*n: # batch normalization needs two images in each share
            raise BadInput(f'{bs} images a batch can not be shared by {n} processes: '
                           f'it must be a multiple of {n}, and {2*n} or more')
    if s['grow']: check_range('--grow', s['grow'], LIMITS['size'][0], s['size'])
    if s['grow'] == s['size']: s['grow'] = None
    begin = stages[0].size if stages else s['grow'] or s['size']
    if begin < (low := _smallest(s['arch'], o.blur)):
        raise BadInput(f"{begin} px are too small: {s['arch']} needs images of {low} px or more")
    if o.noise: NoisyLabel(path, o.noise) # whether there is a table of wrong labels
    told = {k: v for k in TITLE if (v := getattr(o, k)) not in (None, False) and v != usual.get(k, 0)}
    title = ', '.join([s['arch'], *(k if v is True else f'{k} {v}' for k,v in told.items())])
    return Plan(o, path, files, left_out, title, stages=stages, **s)
