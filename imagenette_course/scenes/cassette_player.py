"A cassette player: boombox, pocket player or tape deck."
import numpy as np

from .canvas import PAINTS, Pen, arc, box, line, near, oval, part, shadow, shape, smooth, speaker, tint, tube


def cassette(
    pen:Pen, # where to draw: the window is 2 units wide and 1.3 high
    label, # colour of the paper label
):
    "The window of a player, and in it a cassette with two reels"
    box(pen, (0,0), (1,.66), (24,24,28), .08)
    box(pen, (0,0), (.88,.54), (58,58,64), .06)
    box(pen, (0,-.08), (.76,.38), label, .05)
    box(pen, (0,-.32), (.66,.05), tint(label, -.4))
    box(pen, (0,.02), (.6,.2), (36,30,30), .19)
    for x in (-.36,.36):
        oval(pen, (x,.02), .16, (240,240,236))
        for a in range(pen.rng.randrange(60),360,60):
            line(pen, arc((x,.02), (.16,.16), a, a, 1).tolist()+[[x,.02]], (40,40,44), .04)
        oval(pen, (x,.02), .07, (40,40,44))
    shape(pen, [(-.9,-.56),(-.4,-.56),(-.75,.56),(-.9,.56)], (255,255,255,40))


def keys(
    pen:Pen, # where to draw
    at, # middle of the row
    half, # half width and half height of the row
    colour, # of the keys
):
    "A row of six piano keys, one of them red"
    w = half[0]/6
    for i in range(6):
        x = at[0]-half[0]+w*(2*i+1)
        box(pen, (x,at[1]), (w*.85,half[1]), (200,50,46) if i==5 else colour, w*.2)
        box(pen, (x,at[1]+half[1]*.6), (w*.85,half[1]*.35), (0,0,0,60))


def tuner(
    pen:Pen, # where to draw
    trim, # colour of the knobs
):
    "The scale of a radio between two knobs"
    box(pen, (0,0), (.56,.1), (30,34,38), .03)
    for x in np.arange(-.5,.51,.1): line(pen, [(x,-.06),(x,0)], (230,220,170), .012)
    box(pen, (pen.rng.uniform(-.45,.45),0), (.015,.09), (236,70,50))
    for x in (-.78,.78):
        oval(pen, (x,0), .1, tint(trim, -.4))
        oval(pen, (x,-.01), .08, trim)


def boombox(
    pen:Pen, # where to draw
    c, # colour of the case
):
    "A portable stereo: handle, aerial, two loudspeakers, cassette, tuner and keys"
    rng = pen.rng
    h,trim,r = rng.uniform(.48,.64),rng.choice([(210,210,206),(60,60,66),(200,170,90)]),rng.uniform(.26,.32)
    shadow(pen, (0,h), (1.1,.12))
    if rng.random()<.6: line(pen, [(.8,-h),(rng.uniform(.5,1.2),-h-.6)], (190,190,196), .03)
    tube(pen, [(-.72,-h+.05),(-.72,-h-.2),(.72,-h-.2),(.72,-h+.05)], tint(c, -.35), .1)
    box(pen, (0,0), (1,h), tint(c, -.35), .1)
    box(pen, (0,-.02), (.97,h-.03), c, .09)
    for x in (-.65,.65): speaker(pen, (x,h-r-.08), r, trim)
    cassette(part(pen, (0,h-.4), .31), rng.choice(PAINTS))
    keys(pen, (0,h-.11), (.32,.055), trim)
    tuner(part(pen, (0,-h+.16)), trim)


def pocket_player(
    pen:Pen, # where to draw
    c, # colour of the case
):
    "A pocket player, upright, with its cassette window, keys and the cord of the earphones"
    rng,h = pen.rng,pen.rng.uniform(.78,.92)
    shadow(pen, (0,h), (.75,.1))
    line(pen, smooth([(.4,-h),(.6,-h-.35),(1,-h+.2),(.85,.3),(1.1,h)], False), (40,40,44), .035)
    keys(pen, (-.1,-h-.03), (.42,.06), (190,190,194))
    box(pen, (0,0), (.66,h), tint(c, -.4), .1)
    box(pen, (-.02,-.02), (.62,h-.03), c, .09)
    box(pen, (-.02,-h+.2), (.5,.1), tint(c, .35), .04)
    for i in range(4): box(pen, (-.4+i*.12,-h+.2), (.04,.05), tint(c, -.5))
    cassette(part(pen, (-.02,.1), rng.uniform(.5,.58)), rng.choice(PAINTS))
    box(pen, (-.02,h-.16), (.56,.035), (230,230,226,150))


def meters(
    pen:Pen, # where to draw
):
    "Two meters with needles, and a row of four knobs below them"
    for x in (.2,.58):
        box(pen, (x,-.14), (.17,.13), (248,236,196), .02)
        line(pen, [(x,-.03),(x+pen.rng.uniform(-.12,.12),-.22)], (30,30,30), .02)
    for x in (.14,.36,.58,.8): oval(pen, (x,.16), pen.rng.choice((.06,.08,.09)), (200,200,204))


def tape_deck(
    pen:Pen, # where to draw
    c, # colour of the front
):
    "A flat tape deck: cassette on one side, meters and knobs on the other"
    rng,h = pen.rng,pen.rng.uniform(.36,.46)
    shadow(pen, (0,h+.05), (1.15,.1))
    for x in (-.75,.75): box(pen, (x,h+.03), (.12,.05), (30,30,32))
    box(pen, (0,0), (1.05,h), tint(c, -.4), .03)
    box(pen, (0,0), (1.01,h-.03), c, .03)
    cassette(part(pen, (-.5,-.05), .42), rng.choice(PAINTS))
    keys(pen, (-.5,h-.08), (.42,.05), (210,210,206))
    meters(pen)
    line(pen, [(.84,-.2),(.84,-.05)], (230,60,50), .06)


def draw_cassette_player(
    pen:Pen, # where to draw
):
    "A boombox, a pocket player or a tape deck"
    rng = pen.rng
    rng.choice([boombox,boombox,pocket_player,tape_deck])(pen, near(rng, rng.choice(PAINTS)))
