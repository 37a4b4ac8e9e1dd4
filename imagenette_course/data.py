"""The dataset by name: its classes, wrong labels, the drawn sample, and `imagenette`, which draws, downloads or finds
what you name.

>>> from imagenette_course.data import CLASSES, imagenette, make_sample
>>> CLASSES['n03028079']
'church'
>>> path = make_sample('few', n_train=2, n_val=1)
>>> path = imagenette('few')
Drawn sample: 20 training and 10 validation images in 10 classes, few
"""

__all__ = ['CLASSES', 'NOISE', 'wrong_labels', 'N_TRAIN', 'N_VAL', 'make_sample', 'is_sample', 'imagenette']

import hashlib, json, os, random, tempfile
import imagenette_course.scenes as scenes
from .core import BadInput, check_range, in_test, show_bar
from .files import DOWNLOADS, N_IMAGES, check_folder, check_whole, download, image_files
from .scenes import draw_scene
from fastai.vision.all import *

# ---- classes and labels

CLASSES = dict(
    n01440764='tench', n02102040='English springer', n02979186='cassette player', n03000684='chain saw',
    n03028079='church', n03394916='French horn', n03417042='garbage truck', n03425413='gas pump',
    n03445777='golf ball', n03888257='parachute') # by synset id, in this order everywhere

NOISE = (0, 1, 5, 25, 50) # percent of wrong training labels in noisy_imagenette.csv

def wrong_labels(
    labels:list, # right labels, synset ids
    pct:float, # percent of them to make wrong
    rng:random.Random, # source of randomness
) -> list: # labels, of which `pct` percent (rounded to whole labels) differ from the right ones
    "Replaces a random `pct` percent of `labels` by another class, each of the other classes being equally likely."
    res = list(labels)
    for i in rng.sample(range(len(res)), round(len(res)*pct/100)):
        res[i] = rng.choice([c for c in CLASSES if c != labels[i]])
    return res

# ---- the drawn sample

def _noisy_table(
    files:list, # (relative path, synset) pairs
    seed:int, # of the wrong labels
) -> pd.DataFrame: # with the columns of noisy_imagenette.csv
    "A table of right and wrong labels."
    df = pd.DataFrame(files, columns=['path', 'label'])
    train = df.path.str.startswith('train/')
    for pct in NOISE:
        wrong = wrong_labels(df.label[train].tolist(), pct, random.Random(f'{seed}/noise/{pct}'))
        df[f'noisy_labels_{pct}'] = df.label
        df.loc[train, f'noisy_labels_{pct}'] = wrong
    return df.drop(columns='label').assign(is_valid=~train)

N_TRAIN, N_VAL = 80, 30 # a class, in the standard sample
_sample_mark = 'sample.json' # says what a drawn folder holds
_sample_version = 1 # counted up when this module changes what is in a sample

def _draw_sample(dest, key):
    "Draws the sample that `key` describes into a temporary folder, and renames it to `dest`."
    files = [(f'{part}/{c}/{c}_{i}.JPEG', c)
             for part,n in (('train', key['n_train']), ('val', key['n_val'])) for c in CLASSES for i in range(n)]
    dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.sample-', dir=dest.parent) as tmp:
        new = Path(tmp)/'sample'
        for name in {Path(o).parent for o,_ in files}: (new/name).mkdir(parents=True)
        for name,c in progress_bar(files, leave=False) if show_bar() else files:
            im = draw_scene(CLASSES[c], random.Random(f"{key['seed']}/{name}"))
            im.save(new/name, format='JPEG', quality=90)
        _noisy_table(files, key['seed']).to_csv(new/'noisy_imagenette.csv', index=False)
        (new/_sample_mark).write_text(json.dumps(key))
        new.rename(dest)

def _holds(folder, key):
    "Whether `folder` holds the sample that `key` describes."
    mark = folder/_sample_mark
    return mark.exists() and json.loads(mark.read_text()) == key

def make_sample(
    dest:Path=None, # a folder that does not exist yet, None: in fastai's data folder
    n_train:int=N_TRAIN, # training images a class
    n_val:int=N_VAL, # validation images a class
    seed:int=42, # another seed draws other pictures
) -> Path: # the folder that holds `train/`, `val/` and `noisy_imagenette.csv`
    """Draws a dataset with Imagenette's layout once, and gives it back at once the next time.
    Raises BadInput when `dest` holds something else, OSError when it can't be written."""
    check_range('n_train', n_train, 1); check_range('n_val', n_val, 1); check_range('seed', seed, 0, 2**32-1)
    code = b''.join(o.read_bytes() for o in sorted(Path(scenes.__file__).parent.glob('*.py')))
    key = dict(n_train=n_train, n_val=n_val, seed=seed, drawings=hashlib.sha256(code).hexdigest()[:8],
               version=_sample_version)
    dest = Path(dest or fastai_path('data')/f"imagenette-sample-{'-'.join(map(str, key.values()))}").expanduser()
    if _holds(dest, key): return dest
    if dest.exists(): raise BadInput(f'{dest} is not this sample: remove it, or name a new folder')
    try: _draw_sample(dest, key)
    except OSError as e:
        if not _holds(dest, key): # another process was not quicker, either
            raise OSError(f'no sample could be drawn in {dest.parent} ({e.strerror or e}): '
                          'free some space or name another folder') from e
    return dest

def is_sample(
    path:Path, # folder with a dataset
) -> bool: # True for a dataset that `make_sample` drew
    "Whether the images below `path` are drawn ones."
    return (Path(path)/_sample_mark).exists()

# ---- whichever there is

def imagenette(
    data:str=None, # 'sample', '160', '320', 'full' or a folder; None: see below
) -> Path: # the folder that holds `train/` and `val/`
    """Draws, downloads or finds the dataset, and prints what it is. `data=None` means the environment
    variable IMAGENETTE; without it 'sample' under `nbdev_test`, '160' otherwise. Raises BadInput or
    FileNotFoundError for anything that is no dataset, OSError when it can't be fetched or drawn."""
    data = str(data or os.getenv('IMAGENETTE') or ('sample' if in_test() else '160'))
    if data == 'sample': path = make_sample()
    elif data in DOWNLOADS: path = download(data)
    else: path = Path(data).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"data={data!r} is neither a folder that exists nor one of "
                                f"{', '.join(map(repr, ['sample', *DOWNLOADS]))}")
    files = image_files(path)
    if data in DOWNLOADS: check_whole(path, files)
    n = check_folder(path, files)
    what = 'Drawn sample' if is_sample(path) else 'Imagenette' if n == N_IMAGES else 'Images'
    n_classes = len({o.parent.name for o in files})
    print(f"{what}: {n['train']:,} training and {n['val']:,} validation images in {n_classes} classes, "
          f"{'~'/path.relative_to(Path.home()) if path.is_relative_to(Path.home()) else path}")
    return path
