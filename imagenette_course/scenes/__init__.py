"""Ten kinds of scene that stand in for the photographs of Imagenette.

`draw_scene` draws one picture. `canvas` holds what all scenes share, and each kind has a file of its own.
"""
import random

from PIL import Image, ImageFilter

from .canvas import (
    FRONTS, Pen, blank_page, clutter, forest, lake, lawn, light, meadow, open_sky, page_size, part, street, studio,
    table, wall,
)
from .cassette_player import draw_cassette_player
from .chain_saw import draw_chain_saw
from .church import draw_church
from .english_springer import draw_english_springer
from .french_horn import draw_french_horn
from .garbage_truck import draw_garbage_truck
from .gas_pump import draw_gas_pump
from .golf_ball import draw_golf_ball
from .parachute import draw_parachute
from .tench import draw_tench

__all__ = ['SCENES', 'draw_scene']

SCENES = {
    'tench': draw_tench,
    'English springer': draw_english_springer,
    'cassette player': draw_cassette_player,
    'chain saw': draw_chain_saw,
    'church': draw_church,
    'French horn': draw_french_horn,
    'garbage truck': draw_garbage_truck,
    'gas pump': draw_gas_pump,
    'golf ball': draw_golf_ball,
    'parachute': draw_parachute,
}

# where a kind is found; a place that stands here twice is drawn twice as often
PLACES = {
    'tench': [lake, lake, lake, lawn, meadow, table, forest],
    'English springer': [lawn, lawn, meadow, forest, street, wall, studio],
    'cassette player': [table, table, table, wall, studio, lawn],
    'chain saw': [forest, forest, table, lawn, studio, wall],
    'church': [meadow, meadow, meadow, street, forest, open_sky],
    'French horn': [studio, studio, wall, table, street, lawn],
    'garbage truck': [street, street, street, meadow, wall, forest],
    'gas pump': [street, street, wall, meadow, studio, forest],
    'golf ball': [lawn, lawn, lawn, meadow, table, studio],
    'parachute': [open_sky, open_sky, open_sky, meadow, lake, street],
}

# how far a kind is turned, in degrees: about a third of all pictures turn by more than half of it
TURNS = {
    'tench': 35, 'English springer': 12, 'cassette player': 20, 'chain saw': 40, 'church': 4, 'French horn': 50,
    'garbage truck': 7, 'gas pump': 7, 'golf ball': 12, 'parachute': 22,
}


def pose(
    page:Pen, # pen of the whole page
    kind:str, # one of `SCENES`
)->Pen: # pen of the object
    "Places the object: size, corner of the page, turn, lean, mirrored or not"
    rng,(w,h) = page.rng,page.im.size
    room = min(1, w/h)
    size = room*rng.triangular(.5, 1.05, .85)
    spot = (rng.uniform(-.7,.7)*max(.2, w/h-size*.85),rng.uniform(-.6,.6)*max(.2, 1-size*.85))
    turn = rng.gauss(0, .5)*TURNS[kind]
    return part(page, spot, size, turn, rng.choice((-1,1)), rng.uniform(-.12,.12))


def paint_scene(
    kind:str, # one of `SCENES`
    size:tuple, # width and height in pixels
    rng:random.Random, # the chances
)->Image.Image: # the drawing, twice as wide and high as `size`
    "Background, things around, the object, and at times something in front of it"
    page = blank_page(size, rng)
    rng.choice(PLACES[kind])(page)
    clutter(page, rng.choice((0,0,0,1,2,3)))
    SCENES[kind](pose(page, kind))
    if rng.random()<.15: clutter(page, 1)
    if rng.random()<.25: rng.choice(FRONTS)(page)
    return page.im


def draw_scene(
    kind:str, # one of `SCENES`
    rng:random.Random, # the same state draws the same picture
)->Image.Image: # a picture in mode 'RGB', or at times 'L'
    "Draws one picture of `kind`; raises ValueError when `kind` is none of `SCENES`"
    if kind not in SCENES: raise ValueError(f"unknown kind {kind!r}; the kinds are {', '.join(SCENES)}")
    im = paint_scene(kind, page_size(rng), rng).reduce(2)
    if rng.random()<.3: im = im.filter(ImageFilter.GaussianBlur(rng.uniform(.4,1.1)))
    im = light(im, rng)
    return im.convert('L') if rng.random()<.05 else im
