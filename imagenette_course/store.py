"""Decoded images in one memory-mapped file.

>>> from imagenette_course.all import PixelStore, image_files, make_sample
>>> path = make_sample('few', n_train=2, n_val=1)
>>> files = image_files(path)
>>> store = PixelStore(files, path, side=64) # decodes; the next time, it only opens the file
>>> store.pixels.shape, store.pixels.dtype
(torch.Size([30, 64, 64, 3]), torch.uint8)
>>> store.rows(files[3:5])
tensor([3, 4])

A store is two files in fastai's data folder: `.npy` with the pixels, and `.json` with a key that describes the content
(the side, and each file's name, length and time), the images' widths and heights, and a checksum. Both are written in a
folder aside, and get their names when they are complete, the `.json` last. A store whose key or checksum does not fit
is made anew. To list all stores with their sizes, and to remove them, which loses nothing but the time to decode:

    ls -lh ${FASTAI_HOME:-~/.fastai}/data/imagenette-cache-*
    rm -r ${FASTAI_HOME:-~/.fastai}/data/imagenette-cache-*
"""

__all__ = ['squash', 'store_file', 'PixelStore']

import hashlib, warnings, zlib
from weakref import WeakValueDictionary
from .core import BadInput, show_bar
from .files import NamedImage
from fastai.vision.all import *

def squash(
    im:Image.Image, # an image of any shape
    side:int, # of the square, pixels
) -> np.ndarray: # uint8 (side, side, 3)
    "All of an image, squashed into a square."
    return np.asarray(im.convert('RGB').resize((side, side), Image.Resampling.BILINEAR))

_FORMAT = 2 # of the store

def _key(files, path, side):
    "What a store of these files must say of itself; it changes when a file does."
    rows = [[os.path.relpath(f, path), o.st_size, o.st_mtime_ns] for f in files for o in [f.stat()]]
    return dict(format=_FORMAT, side=side, files=rows)

def store_file(
    files:list, # image files, Paths
    path:Path, # folder of the dataset
    side:int, # of the stored squares, pixels
) -> Path: # `.npy` in fastai's data folder; it need not exist
    "Where the pixels of these images lie: one for each folder, side and choice of files, whatever their content."
    names = [os.path.relpath(f, path) for f in files]
    path = path.resolve() # one store, however the folder is named
    name = hashlib.sha256('\n'.join([str(path), *names]).encode(errors='surrogateescape')).hexdigest()[:12]
    return fastai_path('data')/f'imagenette-cache-{path.name}-{side}-{name}.npy'

def _numbered(device): return torch.empty(0, device=device).device # 'cuda' is 'cuda:0'

def _checksum(npy, sizes): return zlib.crc32(np.memmap(npy, mode='r'), zlib.crc32(json.dumps(sizes).encode()))

def _check_room(file, need):
    "Raises OSError when the disk has no room for the store."
    free = shutil.disk_usage(file.parent).free
    if need > free:
        raise OSError(f'the decoded images need {need/1e9:.2f} GB in {file.parent}, {free/1e9:.2f} are free: '
                      'make room there; a smaller --size or --subset needs less, and --book, or get_dls, needs none')

def _build(file, files, side, key, workers):
    "Makes the two files of a store, and nothing when it fails."
    file.parent.mkdir(parents=True, exist_ok=True)
    _check_room(file, len(files)*3*side**2)
    def decode(o):
        row,im = o[0],NamedImage.create(o[1])
        with open(npy, 'r+b') as f: # to a full disk this fails; written through a mapping, it would kill the process
            f.seek(pixels.offset + row*3*side**2)
            f.write(squash(im, side))
        return im.size
    try:
        with tempfile.TemporaryDirectory(prefix=f'{file.stem}-', suffix='.partial', dir=file.parent) as aside:
            npy, facts = Path(aside)/'npy', Path(aside)/'json'
            pixels = np.lib.format.open_memmap(npy, 'w+', np.uint8, (len(files), side, side, 3))
            sizes = [*parallel(decode, [*enumerate(files)], threadpool=True, n_workers=workers, progress=show_bar())]
            facts.write_text(json.dumps(dict(key=key, sizes=sizes, sum=_checksum(npy, sizes))))
            os.replace(npy, file)
            os.replace(facts, file.with_suffix('.json'))
    except OSError as e:
        if e.filename and file.stem not in str(e.filename): raise # an image that has gone, or may not be read
        raise OSError(e.errno, f'{file} could not be written ({e.strerror or e}): make room there, '
                               'or name another folder by the environment variable FASTAI_HOME') from e

def _read(file, key):
    "The content of a store; None when it is not there, not whole, or holds something else."
    try:
        facts = json.loads(file.with_suffix('.json').read_bytes())
        if facts['key'] != key or facts['sum'] != _checksum(file, facts['sizes']): return None
    except (FileNotFoundError, LookupError, TypeError, ValueError): return None
    with warnings.catch_warnings(): # PyTorch has no tensors that can't be written to
        warnings.filterwarnings('ignore', 'The given NumPy array is not writable')
        pixels = torch.from_numpy(np.lib.format.open_memmap(file, mode='r'))
    return AttrDict(pixels=pixels, ratio=torch.tensor([w/h for w,h in facts['sizes']]), copies={})

_opened = WeakValueDictionary() # (file, key) -> content of a store, as long as a `PixelStore` of this process holds it

class PixelStore:
    "Decoded images in one memory-mapped file."
    def __init__(self,
        files:list, # image files, Paths
        path:Path, # folder of the dataset
        side:int, # of the stored squares, pixels
        workers:int=None, # threads that decode, None: one for each core
    ):
        """Opens the store of these files in fastai's data folder, and makes it first where there is none, or one that
        is damaged or stale. Raises BadInput for an image that can't be decoded, OSError when there is no room."""
        files, path = [Path(o) for o in files], Path(path)
        self.file, key = store_file(files, path, side), _key(files, path, side)
        name = self.file, json.dumps(key)
        self.content = _opened.get(name) or _read(self.file, key)
        if self.content is None:
            _build(self.file, files, side, key, ifnone(workers, num_cpus()))
            self.content = _read(self.file, _key(files, path, side))
            if self.content is None: raise BadInput(f'files of {path} changed while they were decoded: try again')
        _opened[name] = self.content
        self.side, self.row = side, {f: i for i,f in enumerate(files)}
    pixels = property(lambda self: self.content.pixels) # uint8 (n, side, side, 3); they can't be written to
    ratio = property(lambda self: self.content.ratio) # float32 (n,), width/height of the images
    def __len__(self): return len(self.pixels)
    def __deepcopy__(self, memo): return self
    def __getstate__(self):
        "What `Learner.export` saves: no images. A store that was loaded holds none, and images are decoded one by one."
        empty = AttrDict(pixels=self.pixels[:0].clone(), ratio=torch.empty(0), copies={})
        return dict(file=self.file, content=empty, side=self.side, row={})
    def fits(self, device):
        "Whether the pixels are, or can be, where the device computes: a GPU must have twice the room."
        return device.type == 'cpu' or _numbered(device) in self.content.copies or (
            device.type == 'cuda' and 2*self.pixels.numel() < torch.cuda.mem_get_info(device)[0])
    def on(self, device):
        "Pixels and ratios on a device. A GPU gets one copy, which goes with the last `PixelStore` of these images."
        if device.type == 'cpu': return self.pixels, self.ratio
        copies, device = self.content.copies, _numbered(device)
        if device not in copies: copies[device] = self.pixels.to(device), self.ratio.to(device)
        return copies[device]
    def rows(self, items):
        "Row numbers (int64) of image files; None when one is not in the store."
        found = [self.row.get(o) if isinstance(o, Path) else None for o in items]
        return None if None in found else torch.tensor(found, dtype=torch.int64)
