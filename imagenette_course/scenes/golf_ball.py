"A golf ball."
import math

import numpy as np

from .canvas import PAINTS, WHITE, Pen, line, near, oval, part, shadow, shape, smooth, tint, tube, tuft


def dimples(
    pen:Pen, # where to draw
    r, # radius of the ball
    n, # how many on the whole ball
):
    "The hollows of a ball, smaller and flatter towards its edge"
    i = np.arange(n)
    z0,a = 1-(2*i+1)/n,i*2.39996+pen.rng.uniform(0,6)
    p = np.stack([np.sqrt(1-z0**2)*np.cos(a), z0, np.sqrt(1-z0**2)*np.sin(a)], 1)
    t = pen.rng.uniform(-.8,.8)
    p = p @ np.array([[math.cos(t),-math.sin(t),0],[math.sin(t),math.cos(t),0],[0,0,1]])
    size = r*1.35/math.sqrt(n)
    for x,y,z in p[p[:,2]>.12]:
        d = part(pen, (x*r,y*r), size, math.degrees(math.atan2(y, x)))
        oval(d, (0,0), (z,1), (84,90,110,64))
        oval(d, (.12*z,.12), (z*.72,.72), (255,255,255,60))


def ball(
    pen:Pen, # where to draw
    r, # radius
    white, # its colour
):
    "A golf ball: white, darker below on the right, covered with dimples"
    oval(pen, (0,0), r, tint(white, -.42))
    for k in (.97,.92,.86,.79,.7,.6): oval(pen, (-(1-k)*r*.55,-(1-k)*r*.7), r*k, tint(white, min(0, -.2+.55*(1-k))))
    dimples(pen, r, pen.rng.choice((90,120,150)))
    oval(pen, (-.36*r,-.42*r), (r*.2,r*.15), (255,255,255,150))
    if pen.rng.random()<.5:
        mark = pen.rng.choice([(200,40,40),(40,70,170),(40,40,44)])
        line(pen, [(-.3*r,.1*r),(.3*r,.06*r)], mark, .07*r)


def tee(
    pen:Pen, # where to draw
    r, # radius of the ball on it
    c, # its colour
):
    "The peg below a ball"
    shape(pen, [(-r*.36,r*.9),(r*.36,r*.9),(r*.1,r*1.25),(r*.05,r*2),(-r*.05,r*2),(-r*.1,r*1.25)], c)
    shape(pen, [(0,r*.95),(r*.33,r*.95),(r*.08,r*1.25),(r*.04,r*2),(0,r*2)], tint(c, -.25))


def hole(
    pen:Pen, # where to draw
):
    "The hole of a green with its flag"
    oval(pen, (0,.05), (.3,.09), (30,40,30))
    line(pen, [(0,.05),(0,-1.5)], (230,228,220), .05)
    shape(pen, [(.02,-1.5),(.6,-1.3),(.02,-1.08)], pen.rng.choice(PAINTS[:6]))


def club(
    pen:Pen, # where to draw
):
    "The head of an iron and the lower end of its shaft"
    tube(pen, [(.3,.1),(.75,-1.9)], (170,172,178), .08)
    shape(pen, smooth([(.36,.02),(.3,.3),(-.1,.34),(-.34,.22),(-.3,-.02),(.1,-.04)], steps=5), (110,112,118))
    shape(pen, smooth([(.3,.04),(.26,.25),(-.1,.29),(-.28,.2),(-.25,.02),(.08,0)], steps=5), (198,202,208))
    for y in (.07,.13,.19): line(pen, [(-.22,y),(.2,y)], (120,122,128), .018)


def draw_golf_ball(
    pen:Pen, # where to draw
):
    "A golf ball, on a tee, in the grass, or with others, a club or a hole beside it"
    rng = pen.rng
    r,white = rng.uniform(.5,.8),near(rng, rng.choice([WHITE]*7+[(246,226,120)]), 6)
    if rng.random()<.3: hole(part(pen, (rng.choice((-1,1))*rng.uniform(.7,1.2),-.1), rng.uniform(.4,.8)))
    if rng.random()<.25: club(part(pen, (rng.choice((-1.2,1.1)),r*.6), .9, rng.uniform(-15,25)))
    if rng.random()<.2: ball(part(pen, (rng.choice((-1,1))*1.05,.15-rng.random()*.3)), r*rng.uniform(.4,.7), white)
    stand = rng.choice(['tee','grass','grass','none'])
    if stand=='tee': tee(pen, r, rng.choice(PAINTS))
    else: shadow(pen, (.1,r*.95), (r*1.1,r*.2))
    ball(pen, r, white)
    if stand=='grass': tuft(part(pen, (0,r*1.05)), r*1.3, r*.5, (76,136,60), 26)
