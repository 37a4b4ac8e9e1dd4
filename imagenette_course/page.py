"A page of pictures and what they were named: one HTML file that needs nothing beside it."

__all__ = ['check_page', 'thumbnail', 'predictions_page']

import html, io, warnings
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from .core import BadInput, printable
from .files import NamedImage
from fastai.vision.all import *

_HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ margin: 1rem auto; padding: 0 1rem; max-width: 80rem; font: 1rem/1.4 system-ui, sans-serif }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1.5rem 1rem }}
figure {{ margin: 0; display: flex; gap: .75rem; align-items: start }}
img {{ flex: none; width: 7rem; height: 7rem; object-fit: contain; object-position: top }}
figcaption {{ flex: 1; min-width: 0; overflow-wrap: anywhere }}
ol {{ margin: .25rem 0 0; padding: 0; list-style: none }}
li {{ display: flex; justify-content: space-between; gap: .5rem }}
li span + span {{ flex: none }}
li:first-child {{ font-weight: bold }}
small {{ opacity: .75 }}
</style>
<h1>{title}</h1>
<p>The likeliest names of each. The probabilities of a picture add up to 100% whatever is on it.</p>
"""

def check_page(
    file:str, # to be written
):
    "Raises BadInput or FileNotFoundError where no page may be written: a slip must not replace a picture."
    if Path(file).suffix.lower() not in ('.html', '.htm'): raise BadInput(f'--html {file}: the name must end in .html')
    if not Path(file).parent.is_dir(): raise FileNotFoundError(f'--html {file}: there is no folder {Path(file).parent}')

def _text(o): return html.escape(printable(o))

def thumbnail(
    file:str, # an image
    side:int=224, # the longer one, pixels; a smaller image keeps its size
) -> bytes: # JPEG
    "A small picture of an image. Raises BadInput or OSError where it can't be read."
    im,buf = NamedImage.create(file),io.BytesIO()
    im.thumbnail((side, side))
    im.save(buf, format='JPEG', quality=80)
    return buf.getvalue()

def _figure(row, jpeg):
    "An image with its three likeliest names."
    best = [*row['probabilities'].items()][:3]
    names = '\n'.join(f'<li><span>{_text(name)}</span> <span>{p:.1%}</span>' for name,p in best)
    return (f'<figure>\n<img alt="" src="data:image/jpeg;base64,{b64encode(jpeg).decode()}">\n'
            f"<figcaption><small>{_text(row['file'])}</small>\n<ol>\n{names}\n</ol></figcaption>\n</figure>\n")

def predictions_page(
    rows:list, # as from `predict_files`
) -> str: # HTML
    """A page of the images with their three likeliest names, readable on a phone, too; what could not be read is named
    below. Small copies of the images are in it. Raises BadInput or OSError when one can't be read any more."""
    good,bad = [o for o in rows if not o['fault']],[o for o in rows if o['fault']]
    with warnings.catch_warnings(), ThreadPoolExecutor(num_cpus()) as pool:
        warnings.filterwarnings('ignore', module='PIL')
        small = [*pool.map(thumbnail, [o['file'] for o in good])]
    head = _HEAD.format(title=f"{len(good):,} picture{'s'*(len(good) != 1)}")
    page = f"{head}<main>\n{''.join(map(_figure, good, small))}</main>\n"
    if not bad: return page
    return page + '<h2>Could not be read</h2>\n<ul>\n' + ''.join(
        f"<li>{_text(o['file'])}: {_text(o['fault'])}\n" for o in bad) + '</ul>\n'
