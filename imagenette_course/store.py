"""Decoded images in one memory-mapped file.

It is a `.safetensors` file: a JSON header, and then plain bytes. Each image is written to its place as soon as it is
decoded, so memory stays small, and the file gets its name when it is complete. The header holds a key that describes
the content (the side, and each file's name, length and time): when a file changes, the store is made anew."""

__all__ = ['squash', 'store_file', 'PixelStore']

import errno, hashlib, struct
from .core import BadInput, show_bar
from .dataset import NamedImage
from safetensors import SafetensorError, safe_open
from fastai.vision.all import *

def squash(
    im:Image.Image, # an image of any shape
    side:int, # of the square, pixels
) -> np.ndarray: # uint8 (side, side, 3)
    "All of an image, squashed into a square."
    return np.asarray(im.convert('RGB').resize((side, side), Image.Resampling.BILINEAR))

_FORMAT = 1 # of the store

def _key(files, path, side):
    "What a store of these files must say of itself; it changes when a file does."
    rows = [(os.path.relpath(f, path), o.st_size, o.st_mtime_ns) for f in files for o in [f.stat()]]
    return hashlib.sha256(json.dumps([_FORMAT, side, rows]).encode()).hexdigest()

def store_file(
    files:list, # image files, Paths
    path:Path, # folder of the dataset
    side:int, # of the stored squares, pixels
) -> Path: # in fastai's data folder; it need not exist
    "Where the store of these images lies: one for each folder, side and choice of files, whatever their content."
    names = [os.path.relpath(f, path) for f in files]
    path = path.resolve() # one store, however the folder is named
    names = '\n'.join([str(path), *names])
    name = hashlib.sha256(names.encode(errors='surrogateescape')).hexdigest()[:12]
    return fastai_path('data')/f'imagenette-cache-{path.name}-{side}-{name}.safetensors'

def _sum(x):
    "The sum of a tensor's bytes, eight at a time; another one when a byte is damaged."
    x = x.flatten().view(torch.uint8)
    n = len(x)//8*8
    return (x[:n].view(torch.int64).sum() + x[n:].long().sum()).item()

def _header(n, side, key):
    """The beginning of a `.safetensors` file with `pixels`, `sizes` and `sums`, and where in the file each of them
    begins."""
    parts = dict(pixels=('U8', [n, side, side, 3], n*side*side*3), sizes=('I32', [n, 2], 8*n), sums=('I64', [2], 16))
    ends = np.cumsum([o[2] for o in parts.values()]).tolist()
    head = {k: dict(dtype=d, shape=s, data_offsets=[e-b, e]) for (k,(d,s,b)),e in zip(parts.items(), ends)}
    text = json.dumps(dict(head, __metadata__=dict(key=key))).encode()
    text += b' '*(-len(text)%8) # numbers of eight bytes begin at multiples of eight
    at = 8 + len(text)
    return struct.pack('<Q', len(text)) + text, {k: at + v['data_offsets'][0] for k,v in head.items()}, at + ends[-1]

def _check_room(file, need, max_gb):
    "Raises OSError when the store is larger than it may be, or than the disk has room for."
    what = f'the decoded images need {need/1e9:.2f} GB in {file.parent}'
    if need > max_gb*1e9:
        raise OSError(f'{what}, more than max_gb={max_gb}: raise it, or choose a smaller presize or fewer files')
    free = shutil.disk_usage(file.parent).free
    if need > free:
        raise OSError(f'{what}, and {free/1e9:.2f} GB are free: make room, or choose a smaller presize or fewer files')

def _write(fd, data, at):
    "Writes all of `data` at a place of an open file, or raises OSError."
    if os.pwrite(fd, data, at) < len(data): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def _write_image(args, fd, side, at):
    "Decodes one image to its place in the store; gives back width and height."
    i,file = args
    im = NamedImage.create(file)
    _write(fd, squash(im, side).tobytes(), at + i*side*side*3)
    return im.size

def _fill(tmp, files, side, key, workers):
    "Writes a whole store to `tmp`."
    head,at,end = _header(len(files), side, key)
    with open(tmp, 'wb') as f:
        f.write(head); f.flush()
        sizes = parallel(_write_image, list(enumerate(files)), fd=f.fileno(), side=side, at=at['pixels'],
                         threadpool=True, n_workers=workers, progress=show_bar())
        _write(f.fileno(), np.array(sizes, dtype=np.int32).tobytes(), at['sizes'])
        os.ftruncate(f.fileno(), end)
    with safe_open(tmp, 'pt') as f: sums = [_sum(f.get_tensor(k)) for k in ('pixels', 'sizes')]
    with open(tmp, 'r+b') as f:
        f.seek(at['sums']); f.write(np.array(sums, dtype=np.int64).tobytes()); f.flush(); os.fsync(f.fileno())

def _build(file, files, side, key, workers, max_gb):
    "Makes the store `file`, and nothing when it fails."
    file.parent.mkdir(parents=True, exist_ok=True)
    _check_room(file, _header(len(files), side, key)[2], max_gb)
    fd,tmp = tempfile.mkstemp(prefix=f'.{file.stem}-', suffix='.partial', dir=file.parent)
    os.close(fd)
    try: _fill(tmp, files, side, key, workers); os.replace(tmp, file)
    except OSError as e:
        if e.filename not in (None, tmp, str(file)): raise # an image that has gone, or may not be read
        raise OSError(e.errno, f'{file} could not be written ({e.strerror or e}): make room there, '
                               'or choose a smaller presize') from e
    finally: Path(tmp).unlink(missing_ok=True)

def _read(file, key):
    "Pixels and sizes of a store, None when it is not there, not whole, or holds something else."
    try:
        with safe_open(file, 'pt') as f:
            if (f.metadata() or {}).get('key') != key: return None
            pixels,sizes,sums = (f.get_tensor(k) for k in ('pixels', 'sizes', 'sums'))
    except (FileNotFoundError, SafetensorError): return None
    return (pixels, sizes) if [_sum(pixels), _sum(sizes)] == sums.tolist() else None

class PixelStore:
    "Decoded images in one memory-mapped file."
    def __init__(self,
        files:list, # image files, Paths
        path:Path, # folder of the dataset
        side:int, # of the stored squares, pixels
        workers:int=None, # threads that decode, None: one for each core
        max_gb:float=20, # the largest store that may be made, in 10^9 bytes
    ):
        """Opens the store of these files in fastai's data folder, and makes it first where there is none, or one that
        is damaged or stale. Raises BadInput for an image that can't be decoded, OSError when there is no room."""
        files, path = [o if isinstance(o, Path) else Path(o) for o in files], Path(path)
        self.file, key = store_file(files, path, side), _key(files, path, side)
        found = _read(self.file, key)
        if found is None:
            _build(self.file, files, side, key, ifnone(workers, num_cpus()), max_gb)
            found = _read(self.file, key)
            if found is None:
                raise BadInput(f'{self.file} is not what was written: were files of {path} changed meanwhile? '
                               'Try again')
        self.pixels, sizes = found # uint8 (n, side, side, 3); int32 (n, 2), width and height
        self.ratio = sizes[:,0]/sizes[:,1]
        self.side, self.row = side, {f: i for i,f in enumerate(files)}
        self._there = {}
    def __len__(self): return len(self.pixels)
    def __deepcopy__(self, memo): return self
    def __getstate__(self):
        "What `Learner.export` saves: no images. A store that was loaded holds none, and images are decoded one by one."
        return dict(file=self.file, pixels=torch.empty(0, self.side, self.side, 3, dtype=torch.uint8),
                    ratio=torch.empty(0), side=self.side, row={}, _there={})
    def fits(self, device):
        "Whether the pixels are, or can be, where the device computes: a GPU must have twice the room."
        return device.type == 'cpu' or device in self._there or (
            device.type == 'cuda' and 2*self.pixels.numel() < torch.cuda.mem_get_info(device)[0])
    def on(self, device):
        "Pixels and ratios on a device; they stay there."
        if device not in self._there: self._there[device] = self.pixels.to(device), self.ratio.to(device)
        return self._there[device]
    def rows(self, items):
        "Row numbers (int64) of image files; None when one is not in the store."
        found = [self.row.get(o) if isinstance(o, Path) else None for o in items]
        return None if None in found else torch.tensor(found, dtype=torch.int64)
