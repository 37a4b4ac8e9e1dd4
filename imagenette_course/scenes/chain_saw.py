"A chain saw."
import math

import numpy as np

from .canvas import PAINTS, WHITE, Pen, arc, box, line, near, oval, part, shadow, shape, smooth, tint, tube


def saw_teeth(
    pen:Pen, # where to draw
    path, # edge of the bar, from above the motor round the nose and back
    half, # half the height of the bar
):
    "The teeth of the chain, at equal steps along `path`, pointing outwards"
    nose = path[:,0].max()-half
    for (ax,ay),(bx,by) in zip(path[:-1], path[1:]):
        n = max(1, round(math.hypot(bx-ax,by-ay)/.075))
        for k in np.arange(n)/n:
            x,y = ax+(bx-ax)*k,ay+(by-ay)*k
            out = np.sign(y) if x<nose else y/half
            box(pen, (x+max(0,x-nose)*.25,y+out*.025), (.026,.03), (50,50,54))


def saw_bar(
    pen:Pen, # where to draw: from x = 0 to the right
    long, # length
    half, # half the height
):
    "The guide bar with the chain around it"
    edge = lambda k: np.vstack([[(0,-half*k)], arc((long-half,0), (half*k,half*k), -90, 90, 9), [(0,half*k)]])
    saw_teeth(pen, edge(1), half)
    shape(pen, edge(1), (60,62,66))
    shape(pen, edge(.8), (196,200,206))
    shape(pen, [(0,-half*.7),(long-half,-half*.7),(long-half,-half*.25),(0,-half*.25)], (232,235,238))
    oval(pen, (long-half,0), half*.22, (110,112,118))
    line(pen, [(.3,half*.15),(long*.6,half*.15)], (90,92,98), half*.3)


def saw_body(
    pen:Pen, # where to draw
    c, # colour of the housing
):
    "The motor housing: cover, cooling slits, caps and stripe"
    dark = (44,44,48)
    cover = [(-.9,-.1),(-.7,-.3),(-.25,-.36),(.02,-.24),(.1,.02),(.06,.3),(-.3,.34),(-.86,.3)]
    shape(pen, smooth(cover, steps=5), tint(c, -.3))
    lit = [(-.88,-.12),(-.7,-.3),(-.25,-.35),(.0,-.24),(.06,0),(0,.18),(-.3,.22),(-.84,.2)]
    shape(pen, smooth(lit, steps=5), c)
    shape(pen, [(-.72,-.24),(-.2,-.29),(-.16,-.22),(-.74,-.16)], tint(c, .35, 190))
    box(pen, (-.3,.0), (.24,.16), tint(c, -.2), .06)
    for i in range(5): line(pen, [(-.48+i*.09,-.11),(-.48+i*.09,.11)], dark, .035)
    for x in (-.72,-.6): oval(pen, (x,.18), .055, dark)
    box(pen, (-.68,0), (.12,.06), WHITE, .02)
    box(pen, (0,.12), (.1,.14), tint(c, -.45), .04)
    for y in (.06,.18): oval(pen, (.02,y), .03, (200,200,204))


def rear_handle(
    pen:Pen, # where to draw
    c, # colour of the grips
):
    "The rear handle with its trigger"
    path = smooth([(-.72,-.22),(-1.05,-.24),(-1.22,-.02),(-1.16,.24),(-.72,.26)], False)
    for by,width in ((-.3,.15),(.08,.09)): line(pen, path, tint(c, by), width)
    shape(pen, [(-1.0,-.16),(-.86,-.16),(-.9,-.04)], (190,60,40))


def front_handle(
    pen:Pen, # where to draw
    c, # colour of the grip
):
    "The bow-shaped front handle and the hand guard"
    h = pen.rng.uniform(.52,.68)
    tube(pen, smooth([(-.52,.2),(-.54,-.3),(-.46,-h),(-.2,-h-.04),(-.04,-h+.1),(-.02,-.2)], False), tint(c, .1), .1)
    shape(pen, smooth([(.02,-.2),(.1,-h+.04),(.2,-h-.02),(.22,-h+.1),(.14,-.18)]), tint(c, -.1))


def log(
    pen:Pen, # where to draw
    c, # colour of the bark
):
    "A piece of a trunk with its yearly rings"
    box(pen, (.5,0), (.9,.34), c)
    for y in (-.2,-.06,.1,.24): line(pen, [(-.2+pen.rng.uniform(0,.4),y),(1.3,y)], tint(c, -.3), .03)
    oval(pen, (-.4,0), (.2,.34), (222,184,128))
    for k in (.75,.5,.25): line(pen, arc((-.4,0), (.2*k,.34*k)), (170,124,76), .02)


def draw_chain_saw(
    pen:Pen, # where to draw
):
    "A chain saw from the side, at times with a log"
    rng = pen.rng
    c,grip = near(rng, rng.choice(PAINTS[:6]+PAINTS[8:9])),rng.choice([(40,40,44),(70,70,74),(200,200,200)])
    long = rng.uniform(.85,1.25)
    if rng.random()<.3: log(part(pen, (.3,.62), rng.uniform(.7,1)), near(rng, (104,76,52)))
    else: shadow(pen, (-.2,.36), (1.1,.1))
    saw_bar(part(pen, (.02,.08), 1, rng.uniform(-4,4)), long, rng.uniform(.1,.15))
    rear_handle(pen, grip)
    saw_body(pen, c)
    front_handle(pen, grip)
