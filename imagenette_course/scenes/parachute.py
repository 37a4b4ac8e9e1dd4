"A parachute, round or wing-shaped."
import math

import numpy as np

from .canvas import PAINTS, SKIN, Pen, arc, line, near, oval, part, shape, smooth, tint


def jumper(
    pen:Pen, # where to draw: harness in the middle
    coat, # colour of the overall
):
    "A small jumper: helmet, arms up, legs apart"
    line(pen, [(-.35,-.6),(-.14,-.1),(.14,-.1),(.35,-.6)], tint(coat, -.2), .14)
    shape(pen, smooth([(-.2,-.2),(.2,-.2),(.18,.4),(-.18,.4)]), coat)
    for s in (-1,1):
        line(pen, [(s*.1,.3),(s*pen.rng.uniform(.12,.3),.7),(s*pen.rng.uniform(.1,.4),1.1)], tint(coat, -.2), .16)
    oval(pen, (0,-.4), .19, pen.rng.choice(SKIN))
    shape(pen, arc((0,-.43), (.2,.2), 180, 360, 10), tint(coat, -.45))


def round_canopy(
    pen:Pen, # where to draw
    paints, # colours of the gores
):
    "A dome of gores, with lines down to the jumper"
    n,tall,open_ = pen.rng.choice((6,7,8,10)),pen.rng.uniform(.6,.9),pen.rng.uniform(.05,.2)
    edge = -np.cos(np.linspace(0, math.pi, n+1))
    hem = -.2+open_*np.sqrt(np.maximum(0, 1-edge**2))
    oval(pen, (0,-.2), (.97,open_), tint(paints[0], -.6))
    for x,y in zip(edge, hem): line(pen, [(x*.98,y),(x*.05,.85)], (50,50,60), .012)
    up = np.sin(np.linspace(0, math.pi/2, 10))
    side = lambda x,y: np.stack([x*np.sqrt(1-up**2), y*(1-up)-.2*up-tall*up], 1)
    for i in range(n):
        a,b = side(edge[i], hem[i]),side(edge[i+1], hem[i+1])
        sag = [((edge[i]+edge[i+1])/2,(hem[i]+hem[i+1])/2-.05)]
        shape(pen, np.vstack([a[::-1], sag, b]), tint(paints[i%len(paints)], .16*(1-2*i/n) if i<n/2 else -.3*(2*i/n-1)))
    oval(pen, (0,-.2-tall), (.06,.025), tint(paints[0], -.5))


def wing_canopy(
    pen:Pen, # where to draw
    paints, # colours of the cells
):
    "A gliding parachute: a curved wing of cells, with lines down to the jumper"
    n,curve,deep = pen.rng.choice((7,9,11)),pen.rng.uniform(.25,.55),pen.rng.uniform(.22,.36)
    x = np.linspace(-1.1, 1.1, n+1)
    y = -.85+curve*x**2
    for a,b in zip(x, y): line(pen, [(a*.96,b+deep),(a*.06,.85)], (50,50,60), .012)
    for i in range(n):
        c = paints[min(i, n-1-i)%len(paints)]
        shape(pen, [(x[i],y[i]),(x[i+1],y[i+1]),(x[i+1]*.96,y[i+1]+deep),(x[i]*.96,y[i]+deep)], tint(c, -.25*i/n))
        shape(pen, [(x[i],y[i]),(x[i+1],y[i+1]),(x[i+1],y[i+1]+deep*.3),(x[i],y[i]+deep*.3)], tint(c, -.55))
    line(pen, np.stack([x,y], 1), tint(paints[0], .5), .025)


def draw_parachute(
    pen:Pen, # where to draw
):
    "A parachute, round or wing-shaped, with a jumper below it"
    rng = pen.rng
    paints = [near(rng, c) for c in rng.sample(PAINTS, rng.choice((2,2,3)))]
    rng.choice([round_canopy,round_canopy,wing_canopy])(pen, paints)
    jumper(part(pen, (0,.98), rng.uniform(.2,.3), rng.uniform(-15,15)), rng.choice(PAINTS))
