"""How many images a second: input pipelines, the training step and epochs, beside other libraries, in one run on one machine.

    python tests/benchmarks/rates.py --data FOLDER

A rate that was measured elsewhere says little about your machine; what travels is the ratio of two rates that were
measured in one run. `input` makes batches and nothing else, `step` trains on one batch that lies ready, `epoch` is
`imagenette_train` with training and validation. The pipelines draw random crops of the same share of the area."""

__all__ = ['PIPELINES', 'rate', 'pipeline_rates', 'matmul_rate', 'step_flops', 'step_rate', 'step_rates', 'epoch_rate',
           'measure', 'ratios', 'plot_rates', 'compare_rates', 'main']

import inspect, itertools, json, subprocess, sys, tempfile, time
from collections import Counter
from importlib.util import find_spec
from imagenette_course.core import BadInput, in_one_line, png, write_aside
from imagenette_course.files import image_files
from imagenette_course.dataset import get_dls, imagenette, subset
from imagenette_course.record import device_name, versions
from imagenette_course.baseline import get_learner
from imagenette_course.models import named_network
from imagenette_course.resize import smallest_size
from imagenette_course.speed import cached_dls, fast_learner, fast_settings
from imagenette_course.options import Options
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2
from fastai.vision.all import *
from fastai.callback.channelslast import ChannelsLast
from fastcore.script import anno_parser, store_true

def _now(device):
    "The time, when the device has finished what it was given."
    if torch.device(device).type != 'cpu': torch.accelerator.synchronize()
    return time.perf_counter()

def rate(
    batches, # iterable of batches (x, y); x is (bs, ...)
    seconds:float=5, # to measure, after the batches that are left out
    device='cpu', # that is to have finished
    skip:int=2, # first batches that are left out, 1 or more
) -> float: # images a second
    "Images a second that come out of an iterable of batches. Raises BadInput when it ends too early."
    counted, start = 0, None
    for i,batch in enumerate(batches):
        if i == skip-1: start = _now(device)
        if i >= skip: counted += len(batch[0])
        if i > skip+2 and time.perf_counter() - start > seconds: break
    if not counted: raise BadInput(f'there are fewer than {skip+1} batches: use a smaller bs or more images')
    return counted/(_now(device) - start)

_CROP = dict(scale=(.35, 1), ratio=(3/4, 4/3))

def _training(files): return [f for f in files if f.parts[-3] == 'train']

class _Files(torch.utils.data.Dataset):
    "Images and labels as PyTorch's loader wants them."
    def __init__(self, files, transform=None):
        names = sorted({f.parent.name for f in files})
        self.files, self.labels, self.transform = files, [names.index(f.parent.name) for f in files], transform
    def __len__(self): return len(self.files)
    def __getitem__(self, i):
        with Image.open(self.files[i]) as im: return self.transform(im.convert('RGB')), self.labels[i]

def _ours(path, files, bs, size, workers):
    return cached_dls(path, bs, size, files=files, min_scale=_CROP['scale'][0]).train

def _chapter(path, files, bs, size, workers):
    return get_dls(path, bs, size, presize=max(460, size), files=files, workers=workers).train

def _book(path, files, bs, size, workers): return get_dls(path, bs, size, files=files, workers=workers).train

def _fastai(path, files, bs, size, workers):
    block = DataBlock((ImageBlock, CategoryBlock), get_items=lambda _: files,
                      splitter=GrandparentSplitter('train', 'val'), get_y=parent_label,
                      item_tfms=[RandomResizedCrop(size, min_scale=_CROP['scale'][0]), FlipItem()],
                      batch_tfms=Normalize.from_stats(*imagenet_stats))
    return block.dataloaders(path, bs=bs, num_workers=workers).train

def _torchvision(path, files, bs, size, workers):
    tfm = v2.Compose([v2.RandomResizedCrop(size, **_CROP), v2.RandomHorizontalFlip(), v2.ToImage(),
                      v2.ToDtype(torch.float32, scale=True), v2.Normalize(*imagenet_stats)])
    return torch.utils.data.DataLoader(_Files(_training(files), tfm), bs, shuffle=True, drop_last=True,
                                       num_workers=workers)

def _timm(path, files, bs, size, workers):
    from timm.data import create_loader # of the extra `bench`
    return create_loader(_Files(_training(files)), (3, size, size), bs, is_training=True, color_jitter=None,
                         num_workers=workers, persistent_workers=False, use_prefetcher=torch.cuda.is_available(),
                         device=default_device(), **_CROP)

PIPELINES = {'this course': _ours, 'torchvision v2': _torchvision, 'timm': _timm,
             "fastai's RandomResizedCrop": _fastai, '--book': _book, "the chapter's Resize(460)": _chapter}

def pipeline_rates(
    path:Path, # folder of the dataset
    files:list, # images, of which some train and some validate
    bs:int=64, # images a batch
    size:int=128, # side of the training images, pixels
    workers:int=None, # processes that read files; None: one for each core
    seconds:float=5, # to measure each
) -> list: # of dicts: what, size, images, rate (images a second)
    """Training images a second of each input pipeline, epoch after epoch, where the device computes.
    The store of decoded images is made before. Raises BadInput when there are fewer images than `bs`."""
    if len(_training(files)) < bs:
        raise BadInput(f'bs={bs}: there are only {len(_training(files))} training images, use a smaller one')
    rows, device, workers = [], default_device(), ifnone(workers, num_cpus())
    for name in [o for o in PIPELINES if o != 'timm' or find_spec('timm')]:
        dl = PIPELINES[name](path, files, bs, size, workers)
        batches = (to_device(b[0], device) for _ in itertools.count() for b in dl)
        got = rate(((x,) for x in batches), seconds, device, skip=2 + 2*workers)
        rows.append(dict(what=f'input: {name}', size=size, images=len(_training(files)), rate=got))
    return rows

def matmul_rate(
    device, # where to multiply
    dtype=torch.float32, # of the matrices
    n:int=None, # their side; None: 8192 on a GPU, else 2048
) -> float: # floating-point operations a second
    """What a device reaches in a product of two large square matrices, the quickest of ten.
    float32 on CUDA is rounded to TensorFloat32 where convolutions are."""
    n = ifnone(n, 8192 if torch.device(device).type == 'cuda' else 2048)
    a,b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    def once():
        start = _now(device)
        a@b
        return _now(device) - start
    before = torch.get_float32_matmul_precision()
    if a.is_cuda: torch.set_float32_matmul_precision('high' if torch.backends.cudnn.allow_tf32 else 'highest')
    try: once(); best = min(once() for _ in range(10))
    finally: torch.set_float32_matmul_precision(before)
    return 2*n**3/best

def step_flops(
    model:nn.Module, # of a batch of images
    x:torch.Tensor, # float (n, c, h, w), two images at least
) -> float: # floating-point operations for one image
    "Operations of the products and convolutions of a training step, forward and backward."
    with FlopCounterMode(display=False) as count: model(x).sum().backward()
    model.zero_grad()
    return count.get_total_flops()/len(x)

def step_rate(
    learn:Learner, # fresh
    seconds:float=5, # to measure
) -> float: # images a second
    "The rate of the training step alone, on one batch that is where the device computes."
    x,y = (o.as_subclass(torch.Tensor) for o in learn.dls.train.one_batch()) # as `Learner` hands them on
    if any(isinstance(o, ChannelsLast) for o in learn.cbs): learn.model.to(memory_format=torch.channels_last)
    learn.model.to(x.device).train(); learn.create_opt()
    def steps():
        while True:
            learn.loss_func(learn.model(x), y).backward(); learn.opt.step(); learn.opt.zero_grad()
            yield x, y
    return rate(steps(), seconds, x.device)

def step_rates(
    dls:DataLoaders, # whose first batch is trained on
    arch=xresnet18, # network
    seconds:float=5, # to measure each
) -> list: # of dicts: what, size, images, rate (images a second), share (of the rate of matrix products, 0..1)
    """The training step of the chapter, in float32, and of this course.
    The share is of products in the type that the step uses."""
    x, fast = dls.train.one_batch()[0].as_subclass(torch.Tensor), fast_settings(dls.device).bf16
    flops = step_flops(arch(n_out=dls.c).to(x.device), x[:2])
    kinds = {'this course': (fast_learner, torch.bfloat16 if fast else torch.float32),
             '--book': (get_learner, torch.float32)}
    def limits(): return {o: matmul_rate(x.device, o) for o in {dtype for _,dtype in kinds.values()}}
    before, rates, after = (
        limits(), {name: step_rate(make(dls, arch), seconds) for name,(make,_) in kinds.items()}, limits())
    return [dict(what=f'step: {name}', size=x.shape[-1], images=len(dls.train_ds), rate=rates[name],
                 share=rates[name]*flops/max(before[dtype], after[dtype])) for name,(_,dtype) in kinds.items()]

def epoch_rate(
    path:Path, # folder of the dataset
    k:int=None, # training images a class; None: all
    bs:int=64, # images a batch
    size:int=128, # side of the training images, pixels
    arch:str='xresnet18', # network
    book:bool=False, # the chapter's pipeline and step
    workers:int=None, # processes that read files for `book`, None: as `get_dls` does
) -> dict: # what, size, images, rate (training images a second of the whole epoch), seconds, gb (10^9 bytes, the peak)
    "One epoch by the command `imagenette_train`. Raises BadInput with its message when it fails."
    options = dict(data=path, subset=k, bs=bs, size=size, arch=arch, epochs=1, workers=workers if book else None)
    with tempfile.TemporaryDirectory() as out:
        args = [o for k,v in options.items() if v is not None for o in (f'--{k}', str(v))] + ['--book']*book
        proc = subprocess.run([sys.executable, '-m', 'imagenette_course.train', *args, '--out', out],
                              capture_output=True, text=True)
        if proc.returncode: raise BadInput(f'imagenette_train {" ".join(args)} failed: {proc.stderr.strip()}')
        res = json.loads((Path(out)/'summary.json').read_text())
    n = res['dataset']['train']
    return dict(what=f"epoch: {'--book' if book else 'this course'}", size=size, images=n, rate=n/res['seconds'],
                seconds=res['seconds'], gb=res['memory_gb'])

def measure(
    path:Path, # folder of the dataset
    bs:int=64, # images a batch
    size:int=128, # side of the training images, pixels
    arch:str='xresnet18', # network
    workers:int=None, # processes that read files; None: one for each core, for epochs what the command takes
    seconds:float=5, # to measure each rate
    sizes:tuple=(64, 128, 224), # further sides of images, pixels
) -> pd.DataFrame: # what, size, images, rate (images a second), share, seconds, gb
    """All that the command measures, in one run: `share` is of the rate of matrix products, `seconds` and `gb`
    (the peak of memory) are of an epoch. Raises BadInput when there are too few images."""
    files, rows = image_files(path), []
    classes = Counter(f.parent.name for f in _training(files))
    k = min(100, min(classes.values())//2)
    if k*len(classes) < bs:
        raise BadInput(f'bs={bs}: a part of {k*len(classes)} images is measured too, use a smaller bs or more images')
    if size < (low := smallest_size(named_network(arch)())):
        raise BadInput(f'{size} px are too small: {arch} needs {low} px or more')
    few = subset(path, k)
    for s in sorted({*sizes, size}, key=lambda o: (o != size, o)):
        print(f'{s} px', flush=True)
        rows += pipeline_rates(path, files, bs, s, workers, seconds)
        rows += step_rates(cached_dls(path, bs, s), named_network(arch), seconds)
    print(f'{len(_training(few)):,} images, and epochs', flush=True)
    rows += pipeline_rates(path, few, bs, size, workers, seconds)
    rows += [epoch_rate(path, n, bs, size, arch, book, workers) for n in (k, None) for book in (False, True)]
    return pd.DataFrame(rows)

def ratios(
    df:pd.DataFrame, # as from `measure`
) -> pd.Series: # numbers by name
    "How many times quicker this course is than each of the others, at the first size and with all images."
    d = df[(df['size'] == df['size'].iloc[0]) & (df.images == df.images.max())].set_index('what').rate
    kind = d.index.str.split(': ').str[0]
    return pd.Series({what: d[f'{o}: this course']/d[what]
                      for what,o in zip(d.index, kind) if what != f'{o}: this course'})

_COLOURS = dict(zip(PIPELINES, ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#D55E00', '#7F7F7F')))

def _bars(ax, d):
    "Rates as bars on a logarithmic axis, ours in blue."
    ours = d.what.str.contains('this course')
    ax.barh(d.what, d.rate, color=np.where(ours, '#0072B2', '#9a9a9a'))
    for i,v in enumerate(d.rate): ax.text(v, i, f' {v:,.0f}', va='center', size=9)
    ax.set(xscale='log', xlabel='images a second', xlim=(d.rate.min()/2, d.rate.max()*3))
    ax.invert_yaxis()
    ax.grid(axis='x', alpha=.4); ax.set_axisbelow(True)

def _growth(ax, d):
    "Rates against the size of the images, one line for each pipeline and step."
    for what,g in d.sort_values('size', kind='stable').groupby('what', sort=False):
        kind,name = what.split(': ')
        ax.plot(g['size'], g.rate, marker='o', ms=4, ls='-' if kind == 'input' else '--',
                color=_COLOURS[name], label=what)
    ax.set(xscale='log', yscale='log', xlabel='side of the images, px', ylabel='images a second')
    ax.set_xticks(sorted(set(d['size'])), sorted(set(d['size'])))
    ax.minorticks_off()
    ax.legend(fontsize=8, loc='upper center', bbox_to_anchor=(.4, -.2), ncols=3, frameon=False)

def plot_rates(
    df:pd.DataFrame, # as from `measure`
) -> plt.Figure: # bars, and lines where there are several sizes
    "Images a second of each pipeline, step and epoch: at the size that was asked for, and how they grow with it."
    size, r = df['size'].iloc[0], ratios(df)
    whole = df[df.images == df.images.max()]
    grows = whole[~whole.what.str.startswith('epoch')]
    several = grows['size'].nunique() > 1
    fig,axs = plt.subplots(1+several, 1, figsize=(8, 7 if several else 3.6), layout='constrained', squeeze=False)
    _bars(axs[0,0], whole[whole['size'] == size])
    axs[0,0].set_title(f"At {size} px: batches {r['input: --book']:.0f} times as quick as --book's, "
                       f"epochs {r['epoch: --book']:.1f} times", size=11)
    if several:
        _growth(axs[1,0], grows)
        last = grows[grows['size'] == grows['size'].max()].set_index('what').rate
        axs[1,0].set_title(f"At {grows['size'].max()} px this course's input is "
                           f"{last['input: this course']/last['step: this course']:.0f} "
                           'times as quick as its step', size=11)
    return fig

def compare_rates(
    data:str=None, # sample, 160, 320, full, or a folder with train/ and val/; default: $IMAGENETTE, else 160
    arch:str='xresnet18', # network
    size:int=128, # side of the training images in pixels
    bs:int=64, # images a batch
    workers:int=None, # processes that read files; default: one for each core
    out:str='runs/rates', # folder for the results
    force:store_true=False, # replace results that are in --out already
):
    """Measure input pipelines, training step and epochs on this machine.
    Ends with a table, and a folder of CSV and figure."""
    with in_one_line('rates.py'):
        Options(arch=arch, size=size, bs=bs, workers=workers) # raises what the training command would
        out = Path(out).expanduser()
        if (out/'rates.csv').exists() and not force:
            raise FileExistsError(f"{out/'rates.csv'} exists already: name another --out, or replace it with --force")
        path = imagenette(data)
        out.mkdir(parents=True, exist_ok=True)
        df = measure(path, bs, size, arch, workers)
        note = '# ' + ', '.join([device_name(default_device()), f'{num_cpus()} cores',
                                 *(f'{k} {v}' for k,v in versions().items())]) + '\n'
        print(note + df.round(2).to_string(index=False, na_rep='-'),
              '\n\ntimes as quick as', ratios(df).round(1).to_string(), sep='\n')
        write_aside(out/'rates.csv', (note + df.to_csv(index=False)).encode())
        write_aside(out/'rates.png', png(plot_rates(df)))
        print(f'Written to {out}: rates.csv, rates.png')

def main():
    "The program: reads `sys.argv`."
    args = vars(anno_parser(compare_rates, prog='rates.py').parse_args())
    compare_rates(**{k: args[k] for k in inspect.signature(compare_rates).parameters})

if __name__ == '__main__': main()
