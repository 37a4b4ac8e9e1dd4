"""Image files: finding, checking, opening and downloading them. A dataset is a folder that holds `train/` and `val/`,
each with a folder for each class.

>>> from imagenette_course.data import make_sample
>>> from imagenette_course.files import check_images, image_files
>>> path = make_sample('few', n_train=2, n_val=1)
>>> files = image_files(path)
>>> len(files), str(files[0])
(30, 'few/train/n01440764/n01440764_0.JPEG')
>>> files[0].write_bytes(b'') # an accident
0
>>> check_images(path)
{Path('few/train/n01440764/n01440764_0.JPEG'): 'empty'}
"""

__all__ = ['find_files_below', 'IMAGE_ENDINGS', 'find_images_below', 'image_files', 'short_sides', 'check_folder',
           'to_rgb', 'NamedImage', 'check_images', 'DOWNLOADS', 'N_IMAGES', 'download', 'check_whole']

import os, tarfile, tempfile
import fastai.data
from .core import BadInput, check_choice, quiet_bars, show_bar
from fastai.vision.all import *
from fastdownload import FastDownload
from PIL import UnidentifiedImageError

# ---- which there are

def _refuse(e): # what `os.walk` would pass over: the images in there would be missed silently
    if isinstance(e, PermissionError):
        raise PermissionError(f"the folder {e.filename} can't be read ({e.strerror}): change its permissions") from e

def find_files_below(
    folder:Path, # anywhere; links to folders are followed, what is hidden is passed over
    folders:list=None, # names of folders right below it to look into, None: all, and `folder` itself
) -> L: # of Paths
    "All files. Raises PermissionError for a folder that can't be read."
    found = L()
    for top in [folder] if folders is None else [Path(folder)/o for o in folders]:
        for here,below,names in os.walk(top, followlinks=True, onerror=_refuse):
            below[:] = [o for o in below if not o.startswith('.')]
            found += [Path(here)/o for o in names if not o.startswith('.')]
    return found

IMAGE_ENDINGS = {f'.{o}' for o in ('jpg jpeg jpe jfif png webp bmp dib gif tif tiff '
                                   'ppm pgm pbm pnm tga avif jp2 ico').split()}

def find_images_below(
    folder:Path, # anywhere; links to folders are followed, what is hidden is passed over
    folders:list=None, # names of folders right below it to look into, None: all, and `folder` itself
) -> L: # of Paths
    "All files with an ending of IMAGE_ENDINGS, in capitals or not. Raises PermissionError, as `find_files_below`."
    return find_files_below(folder, folders).filter(lambda o: o.suffix.lower() in IMAGE_ENDINGS)

def image_files(
    path:Path, # folder that holds `train/` and `val/`
) -> L: # of Paths, sorted, so that the order is the same on every machine
    "All image files (by ending) in the class folders of `train/` and `val/`."
    files = find_images_below(path, folders=['train', 'val'])
    return L(sorted(o for o in files if len(o.relative_to(path).parts) == 3))

def short_sides(
    files:list, # image files
    n:int=200, # how many to look at, spread evenly
) -> list: # of ints, pixels
    "The shorter side of `n` of the images, read from the headers of the files."
    files = list(files)
    def side(f):
        with Image.open(f) as im: return min(im.size)
    return [side(files[i]) for i in np.linspace(0, len(files)-1, min(n, len(files))).astype(int)]

def check_folder(
    path:Path, # folder that should hold `train/` and `val/`
    files:list=None, # the image files in it, as from `image_files`, None: they are listed
) -> dict: # number of images by part, {'train': 9469, 'val': 3925}
    """Counts the images. Raises FileNotFoundError or BadInput when `path` is not an image-folder
    dataset with the same classes in both parts."""
    for o in (Path(path), Path(path)/'train', Path(path)/'val'):
        if not o.is_dir(): raise FileNotFoundError(f'{o} is not a folder: name one that holds train/ and val/')
    files = image_files(path) if files is None else files
    n = {part: Counter(o.parts[-2] for o in files if o.parts[-3] == part) for part in ('train', 'val')}
    if not any(n.values()): raise BadInput(f'{path} holds no images: they belong into train/CLASS/ and val/CLASS/')
    for part,other in (('val', 'train'), ('train', 'val')):
        if missing := sorted(n[other].keys() - n[part].keys()):
            raise BadInput(f'{path}/{part} has no images of {", ".join(missing)}, which {other}/ has: mend one of them')
    return {part: o.total() for part,o in n.items()}

# ---- opened

def to_rgb(
    im:Image.Image, # as from `Image.open`; of an animation, the picture that is open
) -> Image.Image: # RGB, 8 bits a colour
    """A picture in colour. Greyscale of 16 bits is scaled, where Pillow alone would clip it to white; transparency is
    dropped. Raises BadInput for greyscale of 32 bits, whose white could be any number."""
    if im.mode.startswith('I;16') or (im.mode == 'I' and im.format in ('PNG', 'PPM')): # Pillow gives 0..65535 for both
        im = Image.fromarray(((np.asarray(im).astype(np.uint32) + 128)//257).astype(np.uint8))
    if im.mode in ('I', 'F'): raise BadInput('greyscale of 32 bits, whose range is not known: save it with 8 or 16')
    return im.convert('RGB')

class NamedImage(PILImage):
    "Makes a `PILImage`, with errors that name the file."
    @classmethod
    def create(cls, fn:Path|str|Tensor|np.ndarray|bytes|Image.Image, **kwargs):
        """A `PILImage` from file `fn`, by `to_rgb`. Raises BadInput, with the file's name, when its content can't be
        read."""
        if isinstance(fn, Image.Image): return PILImage(to_rgb(fn))
        if not isinstance(fn, (str, Path)): return PILImage.create(fn, **kwargs)
        try:
            # no type of our own: `predict` takes any `PILImage` then
            with Image.open(fn) as im: return PILImage(to_rgb(im))
        # the first two name the file, the third is not its fault
        except (FileNotFoundError, PermissionError, MemoryError): raise
        except Exception as e: # each of Pillow's decoders has its own
            raise BadInput(f'{fn} is not a readable image ({e}): remove it, or leave it out '
                             '(check_images lists all of them, imagenette_train has --skip_bad)') from e

def _image_fault(file, folders):
    "What is wrong with `file`, None when it is a readable image in one of the `folders`."
    if file.parent not in folders: return 'in no class folder'
    if file.stat().st_size == 0: return 'empty'
    try:
        with Image.open(file) as im: to_rgb(im) # as training opens it
    except UnidentifiedImageError: return 'not an image'
    except BadInput as e: return str(e)
    except Exception as e: return f'damaged ({e})' # each of Pillow's decoders has its own

def check_images(
    path:Path, # folder that holds `train/` and `val/`
) -> dict: # Path -> what is wrong with it; {} when all is well
    """Decodes every file below `train/` and `val/` on all cores, and gives the reason for each that can't
    be trained on: empty, not an image, damaged (in Pillow's words), or in no class folder. Hidden files are
    passed over. Raises what `check_folder` raises."""
    images = image_files(path)
    check_folder(path, images)
    files = sorted(find_files_below(path, ['train', 'val']))
    faults = parallel(_image_fault, files, folders={o.parent for o in images}, threadpool=True, n_workers=num_cpus(),
                      progress=show_bar())
    return {file: o for file,o in zip(files, faults) if o}

# ---- downloaded

DOWNLOADS = {'160': 'IMAGENETTE_160', '320': 'IMAGENETTE_320', 'full': 'IMAGENETTE'}
N_IMAGES = dict(train=9469, val=3925) # the published split of 2019-12-06

class _Download(FastDownload):
    "fastai's downloads, unpacked wholly or not at all, and nowhere else."
    def extract(self, url, extract_key='data', force=False):
        file = self.arch_path()/Path(url).name
        dest = self.data_path(extract_key, file)
        dest.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file) as t, tempfile.TemporaryDirectory(prefix='.download-', dir=dest.parent) as tmp:
            t.extractall(tmp, filter='data')
            return (Path(tmp)/dest.name).rename(dest)

def download(
    data:str, # a key of DOWNLOADS
) -> Path: # the folder that was in the archive
    "Downloads and unpacks once. Raises BadInput for another key; OSError, which says what else can be done."
    check_choice('data', data, *DOWNLOADS)
    url,downloads = getattr(URLs, DOWNLOADS[data]),_Download(fastai_cfg(), module=fastai.data)
    try:
        with quiet_bars(): return downloads.get(url)
    except Exception as e: # network, disk, checksum, damaged archive: there is no common type
        raise OSError(
            f"{Path(url).name} could not be downloaded and unpacked ({e}). Three ways out: data='sample' is drawn here "
            'and needs no network; data, or the environment variable IMAGENETTE, can name a folder with train/ and '
            f'val/; or put {url} into {downloads.arch_path()} by hand') from e

def check_whole(
    path:Path, # folder with a download
    files:list, # image files in it, as from `image_files`
):
    "Raises OSError when images of the published split are missing."
    n = Counter(o.parts[-3] for o in files)
    if lacks := sum(max(0, v - n[k]) for k,v in N_IMAGES.items()):
        raise OSError(f'{path} lacks {lacks:,} of {sum(N_IMAGES.values()):,} images, as after an interrupted download: '
                      'remove it to fetch it again, or give its path as data to use it as it is')
