"A garbage truck."
import numpy as np

from .canvas import PAINTS, WHITE, Pen, box, dustbin, line, near, oval, part, shadow, shape, smooth, tint, wheel


def truck_cab(
    pen:Pen, # where to draw
    c, # colour of the cab
):
    "The cab, looking right: window, mirror, door, lamp and bumper"
    shape(pen, [(.46,.36),(.46,-.34),(.86,-.34),(.98,-.02),(1,.36)], c)
    shape(pen, [(.46,.36),(.46,.22),(.99,.22),(1,.36)], tint(c, -.3))
    shape(pen, [(.54,-.25),(.68,-.25),(.68,.02),(.54,.02)], (150,196,220))
    shape(pen, [(.73,-.25),(.83,-.25),(.93,.02),(.73,.02)], (170,212,232))
    shape(pen, [(.54,-.25),(.6,-.25),(.54,-.08)], (255,255,255,120))
    line(pen, [(.52,-.28),(.52,.3),(.71,.3),(.71,-.28)], tint(c, -.35), .012)
    box(pen, (.64,.08), (.03,.012), (40,40,44))
    line(pen, [(.92,-.2),(.99,-.18),(.99,0)], (40,40,44), .03)
    oval(pen, (.95,.26), .045, (255,240,180))
    box(pen, (.88,.38), (.14,.035), (50,50,54), .02)
    box(pen, (.62,-.37), (.06,.03), (240,150,40), .02)


def truck_box(
    pen:Pen, # where to draw
    c, # colour of the body
):
    "The big ribbed body, and the slanting hopper at the back"
    top = pen.rng.uniform(-.62,-.46)
    hopper = [(-.62,top+.02),(-.86,top+.1),(-1.04,-.1),(-1.06,.3),(-.92,.42),(-.62,.36)]
    shape(pen, smooth(hopper, steps=4), tint(c, -.25))
    shape(pen, [(-1.03,.02),(-.8,.1),(-.84,.36),(-1.03,.3)], (36,36,40))
    line(pen, [(-.64,top+.12),(-.96,-.02)], (190,192,196), .05)
    box(pen, (-.14,(top+.36)/2), (.55,(.36-top)/2), c, .05)
    box(pen, (-.14,top+.05), (.53,.04), tint(c, .35), .03)
    for x in np.arange(-.58,.36,pen.rng.choice((.15,.19,.23))):
        box(pen, (x,(top+.4)/2), (.018,(.2-top)/2), tint(c, -.28))
    for i in range(-7,5):
        stripe = [(-.14+i*.09,.32),(-.1+i*.09,.26),(-.05+i*.09,.26),(-.09+i*.09,.32)]
        shape(pen, stripe, (250,220,60) if i%2 else (200,50,40))


def recycling_mark(
    pen:Pen, # where to draw
    colour, # of the arrows
):
    "Three arrows that chase each other round a triangle"
    for turn in (0,120,240):
        p = part(pen, (0,0), 1, turn)
        shape(p, [(-.42,.5),(.28,.5),(.28,.66),(.62,.4),(.28,.14),(.28,.3),(-.3,.3)], colour)


def draw_garbage_truck(
    pen:Pen, # where to draw
):
    "A garbage truck from the side, often with a bin behind it"
    rng = pen.rng
    c,cab = near(rng, rng.choice(PAINTS)),near(rng, rng.choice(PAINTS[:9]))
    shadow(pen, (0,.66), (1.2,.08))
    if rng.random()<.5:
        bin_pen = part(pen, (-1.16,rng.choice((.42,-.1))), .42, rng.choice((0,-25)))
        dustbin(bin_pen, rng.choice(PAINTS[:7]))
    box(pen, (-.05,.4), (.95,.07), (44,44,48))
    truck_box(pen, c)
    truck_cab(pen, cab)
    if rng.random()<.6: recycling_mark(part(pen, (-.14,-.1), .26), tint(WHITE, -.05) if sum(c)<500 else (50,120,70))
    hub = rng.choice([(190,190,195),(206,60,50),(236,236,230)])
    for x in (.72,-.26,-.66): wheel(pen, (x,.47), .19, hub)
