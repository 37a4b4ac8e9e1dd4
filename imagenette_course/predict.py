"""`imagenette_predict`: a model file and some pictures in, a name for each and how sure the model is out.

    imagenette_predict model.safetensors PICTURE FOLDER

In Python, of many pictures at a time, with `load_model('model.safetensors')` for the model:

>>> from imagenette_course.all import Classifier, image_files, make_sample, named_network, predict_files
>>> model = Classifier(named_network('sprintnet')(n_out=2), ['cat', 'dog'], 32, 32, mean=[.5]*3, std=[.25]*3)
>>> files = image_files(make_sample('few', n_train=2, n_val=1))
>>> good,bad = predict_files(model, [files[0], 'gone.jpg'])
>>> sorted(good['probabilities']), bad['fault']
(['cat', 'dog'], 'there is no such file')
"""

__all__ = ['find_images', 'tta_views', 'predict_files', 'as_table', 'imagenette_predict']

import itertools, math, os, stat, sys, warnings
from concurrent.futures import ThreadPoolExecutor
from json import dumps # the command has an option json
from operator import itemgetter
from .core import BadInput, check_range, in_one_line, printable, show_version, write_aside
from .files import find_images_below, to_rgb
from .page import check_page, predictions_page
from .tta import combine_views
from fastai.vision.all import *
from .models import Classifier, load_model # after fastai, which has a load_model of its own
from fastcore.script import anno_parser, store_true
from PIL import UnidentifiedImageError
from torch.quasirandom import SobolEngine
from torchvision.transforms.v2 import functional as TF

def _read(file):
    "The picture in `file`, RGB; raises BadInput, with the reason alone, where there is none."
    try: found = os.stat(file)
    except PermissionError: raise BadInput('you may not read it') from None
    except (OSError, ValueError): raise BadInput('there is no such file') from None # also of a name that can't be
    if stat.S_ISDIR(found.st_mode): raise BadInput('a folder without images')
    if not stat.S_ISREG(found.st_mode): raise BadInput('a pipe or a device, not a file')
    if not found.st_size: raise BadInput('empty')
    try:
        with Image.open(file) as im:
            # Pillow warns of such a picture, and refuses one twice as large
            if im.width*im.height > (Image.MAX_IMAGE_PIXELS or math.inf): raise Image.DecompressionBombError
            return to_rgb(im)
    except BadInput: raise
    except PermissionError: raise BadInput('you may not read it') from None
    except UnidentifiedImageError: raise BadInput('not an image of a kind that Pillow reads') from None
    except Image.DecompressionBombError:
        raise BadInput(f'more than {Image.MAX_IMAGE_PIXELS/1e6:.0f} million pixels') from None
    except Exception as e: raise BadInput(f'damaged ({str(e) or type(e).__name__})') from e # each decoder has its own

def find_images(
    names:list, # image files, and folders
) -> list: # of files as strings; a folder without images stays
    """The files that are named, in order, and for a folder the image files below it, sorted. Raises PermissionError for
    a folder that can't be read."""
    found = ((o, sorted(find_images_below(o)) if os.path.isdir(o) else []) for o in L(names).map(os.fspath))
    return [str(f) for o,files in found for f in files or [o]]

def tta_views(
    x:torch.Tensor, # an image (c, h, w), any dtype
    n:int, # how many
) -> Iterator: # of n squares (c, side, side), cut out of `x`
    """Views for test time augmentation: squares of 0.75 to 1 of the largest square's area, at places all over the
    image, every other one mirrored, the first of them. The same in each call; fewer views are the first ones of more.
    Sobol' 1967."""
    h,w = x.shape[-2:]
    for i,(smaller,down,right) in enumerate(SobolEngine(3).draw(n+1)[1:].tolist()):
        side = max(1, round(min(h, w)*math.sqrt(1 - .25*smaller)))
        view = TF.crop(x, round(down*(h-side)), round(right*(w-side)), side, side)
        yield view if i%2 else view.flip(-1) # one at a time: of a large picture each is a large copy

@torch.inference_mode()
def _inputs(file, model, n):
    """What the network is to see of a file, (1+n, 3, size, size): the image, then its views. A text with the reason
    where there is none."""
    try: x = TF.pil_to_tensor(_read(file))
    except BadInput as e: return str(e)
    return torch.cat([model.prepare(o[None]) for o in itertools.chain([x], tta_views(x, n))])

_BS = 64 # inputs that the network is given at a time

@torch.inference_mode()
def _probs(inputs, model):
    "Probabilities (len(inputs), n_classes) on the CPU, over all views of each image."
    x = torch.cat(inputs)
    p = torch.cat([model.model(o) for o in x.split(_BS)]).float().softmax(1).view(len(inputs), -1, len(model.classes))
    p = combine_views(p[:,0], p[:,1:].transpose(0, 1)).cpu()
    if p.isfinite().all(): return p
    raise BadInput('the model answers with nan, which is no number: its file is damaged, get it again or train anew')

def predict_files(
    model:Classifier, # as from `load_model`, on the device that is to compute
    files:list, # image files, and folders, see `find_images`
    tta:int=0, # views of each image beside the plain one, 0..100, see `tta_views`
) -> list: # of dicts: file; probabilities by name, likeliest first, or None; fault, the reason for None, or None
    """Asks the model about each image, many at a time. With `tta`, the answers are put together by `combine_views`. A
    file that can't be read costs nothing but its row. Raises BadInput for a bad number, and for a model that answers
    with no numbers."""
    if not isinstance(model, Classifier):
        raise BadInput(f'model is a {type(model).__name__}: it must be one of load_model')
    check_range('tta', tta, 0, 100)
    rows = []
    with warnings.catch_warnings(), ThreadPoolExecutor(num_cpus()) as pool:
        warnings.filterwarnings('ignore', module='PIL') # what is wrong with a file is said in its row
        read = partial(_inputs, model=model, n=tta)
        parts = ((part, pool.map(read, part)) for part in chunked(find_images(files), max(1, _BS//(1+tta))))
        for (part,inputs),_ in itertools.pairwise(itertools.chain(parts, [None])): # the next ones are read meanwhile
            inputs = list(inputs)
            good = [o for o in inputs if not isinstance(o, str)]
            probs = iter(_probs(good, model).tolist() if good else [])
            for file,o in zip(part, inputs):
                fault = o if isinstance(o, str) else None
                named = None if fault else sorted(zip(model.classes, next(probs)), key=itemgetter(1), reverse=True)
                rows.append(dict(file=file, probabilities=named and dict(named), fault=fault))
    return rows

def as_table(
    rows:list, # as from `predict_files`
) -> pd.DataFrame: # a row for each image that was read: file, the three likeliest names, their probabilities in percent
    "The three likeliest names of each image; fewer where the model has fewer classes."
    cols = ['file', 'best', 'best %', 'second', 'second %', 'third', 'third %']
    table = [[o['file'], *(v for name,p in [*o['probabilities'].items()][:3] for v in (name, 100*p))]
             for o in rows if not o['fault']]
    return pd.DataFrame(table, columns=cols[:len(table[0])] if table else cols)

def _shown(text):
    "Text on one line for any terminal: what it can't print, or must not, as an escape."
    code = sys.stdout.encoding or 'utf-8'
    return printable(text).encode(code, 'backslashreplace').decode(code)

def _print_table(rows):
    "For a terminal, names to the left."
    df = as_table(rows)
    names = {c: df[c].map(_shown) for c in df if not c.endswith('%')}
    df = df.assign(**{c: o.str.ljust(o.str.len().max()) for c,o in names.items()})
    _print(df.to_string(index=False, justify='left', float_format='{:.1f}'.format))

def _load(file):
    "The model, on CUDA if there is one. Raises BadInput with one short line, whatever the file holds."
    try: model = load_model(file)
    except (BadInput, OSError) as e: raise BadInput(truncstr(_shown(e), 300)) from e
    return model.to('cuda' if torch.cuda.is_available() else 'cpu')

def _print(text):
    "Prints; a reader that has gone (`| head`) is no error."
    try: print(text, flush=True)
    except OSError as e:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()) # or Python would try again when it ends
        if not isinstance(e, BrokenPipeError): raise

def imagenette_predict(
    model:str, # file of save_model or imagenette_train, *.safetensors
    images:str, # image files, and folders: all images below them; any number of them
    tta:int=0, # test time augmentation: this many views of each image beside the plain one
    json:store_true=False, # all probabilities as JSON, in place of a table of the three best
    html:str=None, # write a page of the images with their three best names, too: a file, *.html
):
    """Name what is on images. Exit status: 0; 1 when a file could not be read and was skipped;
    2 when there is no answer at all."""
    with in_one_line('imagenette_predict', smaller='set CUDA_VISIBLE_DEVICES= to predict on the processor'):
        if not images: raise BadInput('no images: name some files, or folders that hold some')
        check_range('--tta', tta, 0, 100)
        if html is not None: check_page(html)
        rows = predict_files(_load(model), images, tta)
        good,bad = [o for o in rows if not o['fault']],[o for o in rows if o['fault']]
        for o in bad: print(f"imagenette_predict: {_shown(o['file'])}: {_shown(o['fault'])}", file=sys.stderr)
        if json: _print(dumps([{k: o[k] for k in ('file', 'probabilities')} for o in good], indent=1))
        elif good: _print_table(good)
        if html is not None and good: write_aside(Path(html), predictions_page(rows).encode())
        if not good: raise BadInput(f'nothing to predict: {len(bad)} of {len(rows)} could not be read')
        if bad: raise SystemExit(1)

def main():
    "The command `imagenette_predict`: reads `sys.argv`, with options before, between or behind the images."
    show_version()
    parser = anno_parser(imagenette_predict, prog='imagenette_predict')
    next(o for o in parser._actions if o.dest == 'images').nargs = '*' # fastcore 1 and 2 say this in two ways
    args = parser.parse_intermixed_args()
    imagenette_predict(args.model, args.images, args.tta, args.json, args.html)

if __name__ == '__main__': main()
