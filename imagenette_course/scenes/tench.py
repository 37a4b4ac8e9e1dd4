"A tench, a fish of still water."
import numpy as np

from .canvas import PAINTS, SKIN, WHITE, Pen, hand, line, near, oval, part, person, shape, smooth, tint


def fish_fins(
    pen:Pen, # where to draw
    c, # colour of the fins
):
    "The tail and the rounded fins of a tench"
    shape(pen, smooth([(-.58,-.12),(-.78,-.24),(-1,-.3),(-.95,0),(-1,.3),(-.78,.24),(-.58,.12)]), c)
    for fin in ([(.22,-.34),(.12,-.6),(-.12,-.58),(-.2,-.28)], [(.14,.34),(.02,.58),(-.14,.5),(-.06,.32)],
                [(-.26,.24),(-.4,.46),(-.52,.38),(-.46,.18)]):
        shape(pen, smooth(fin), c)
        (ax,ay),(bx,by),(dx,dy),(ex,ey) = fin
        for k in (.25,.5,.75): line(pen, [(ax+(ex-ax)*k,ay+(ey-ay)*k),(bx+(dx-bx)*k,by+(dy-by)*k)], tint(c, -.3), .012)
    for k in (-.2,-.1,0,.1,.2): line(pen, [(-.66,k*.6),(-.93,k*1.15)], tint(c, -.3), .012)


def fish_body(
    pen:Pen, # where to draw
    c, # colour of the flank
):
    "The body of a tench: dark back, golden belly, fine scales"
    back = [(.95,-.02),(.82,-.17),(.48,-.33),(.1,-.39),(-.3,-.28),(-.64,-.13)]
    belly = [(-.64,.13),(-.3,.26),(.1,.37),(.5,.31),(.82,.14)]
    shape(pen, smooth(back+belly), c)
    shape(pen, smooth(back+[(-.62,-.02),(-.2,-.08),(.3,-.1),(.75,-.06)]), tint(c, -.5, 120))
    shape(pen, smooth(belly+[(.9,.06),(.4,.17),(-.2,.14)]), (250,222,120,110))
    for x in np.arange(-.55, .5, .1):
        for y in np.arange(-.2, .24, .1):
            if abs(y)<.3-.25*abs(x): line(pen, [(x,y-.04),(x-.03,y),(x,y+.04)], tint(c, -.5, 110), .012)
    line(pen, [(-.6,0),(-.1,-.03),(.45,-.05)], tint(c, -.4, 150), .014)


def fish_head(
    pen:Pen, # where to draw
    c, # colour of the flank
):
    "Gill cover, breast fin, red eye, mouth and barbel"
    shape(pen, smooth([(.52,-.24),(.44,0),(.5,.24),(.74,.16),(.84,0),(.76,-.16)]), tint(c, .12, 150))
    line(pen, smooth([(.54,-.26),(.44,0),(.5,.26)], False), tint(c, -.55), .03)
    shape(pen, smooth([(.46,.1),(.32,.06),(.18,.16),(.24,.26),(.42,.22)]), tint(c, -.4))
    oval(pen, (.72,-.08), .062, (226,96,40))
    oval(pen, (.72,-.08), .034, (16,14,14))
    oval(pen, (.735,-.095), .012, WHITE)
    line(pen, [(.95,.02),(.84,.07)], tint(c, -.6), .025)
    line(pen, smooth([(.86,.07),(.9,.14),(.88,.19)], False), tint(c, -.4), .018)


def draw_tench(
    pen:Pen, # where to draw
):
    "A tench from the side, at times held by an angler"
    rng = pen.rng
    c = near(rng, rng.choice([(134,124,52),(156,128,48),(104,108,54),(168,142,70)]))
    held,skin,coat = rng.random()<.45,rng.choice(SKIN),rng.choice(PAINTS)
    if held: person(part(pen, (rng.uniform(-.2,.2),-.3), .95), skin, coat)
    pen.bend = rng.uniform(-.22,.22)
    fish_fins(pen, tint(c, -.45))
    fish_body(pen, c)
    fish_head(pen, c)
    pen.bend = 0.
    if held:
        for x in (-.45,.4):
            wrist = part(pen, (x+rng.uniform(-.1,.1),.3), .42, rng.uniform(-20,20))
            hand(wrist, skin, tint(coat, -.15))
