"A French horn."
from .canvas import PAINTS, SKIN, Pen, arc, line, near, oval, part, person, shadow, shape, smooth, tint, tube

BRASS = [(214,168,66),(196,146,60),(222,186,104),(196,200,206),(186,120,70)]


def horn_bell(
    pen:Pen, # where to draw
    c, # colour of the brass
    view, # how far we look into the bell: 0 from the side, 1 straight
):
    "The flare and the large mouth of the horn"
    flare = [(-.62,.32),(-.3,.5),(0,.44),(.3,.18),(.62,-.12),(.98,.5),(.5,.62),(.1,.74),(-.3,.72),(-.66,.5)]
    shape(pen, smooth(flare), tint(c, -.4))
    shape(pen, smooth([(x*.97,y*.985) for x,y in flare]), c)
    shape(pen, smooth([(-.4,.54),(0,.5),(.34,.28),(.6,.08),(.64,.2),(.3,.44),(0,.58),(-.3,.62)]), tint(c, .5, 150))
    mouth = part(pen, (.74,.3), 1, 32)
    for k,d in ((1,tint(c, -.45)),(.94,tint(c, .35)),(.86,tint(c, -.2)),(.62,tint(c, -.45)),(.3,tint(c, -.72))):
        oval(mouth, (-(1-k)*.12,0), (.52*view*k,.52*k), d)
    shape(mouth, smooth([(.52*view*x,.52*y) for x,y in ((.3,-.75),(.68,-.3),(.72,.1),(.45,-.2))]), tint(c, .6, 110))


def horn_coil(
    pen:Pen, # where to draw
    c, # colour of the brass
):
    "The wound pipes: two large rings, slides and the mouth pipe"
    tube(pen, arc((0,0), (.62,.6), 20, 330, 48), c, .12)
    for x in (-.3,-.12,.06):
        slide = [(x,-.32),(x-.03,.1),(x+.05,.26),(x+.13,.1),(x+.1,-.3)]
        tube(pen, smooth(slide, False), tint(c, -.08), .055)
    tube(pen, arc((.04,.02), (.45,.43), 0, 360, 40), c, .1)
    tube(pen, smooth([(.5,-.4),(.2,-.62),(-.2,-.66),(-.62,-.75),(-.95,-.86)], False), c, .07)
    line(pen, [(-.95,-.86),(-1.08,-.9)], tint(c, .3), .1)


def horn_valves(
    pen:Pen, # where to draw
    c, # colour of the brass
):
    "Three valves in a row with their levers"
    for i in range(3):
        x,y = -.24+i*.2,-.2+i*.05
        line(pen, [(x,y),(x-.16,y-.22)], tint(c, -.35), .035)
        oval(pen, (x-.17,y-.24), (.06,.035), tint(c, .4))
        for r,d in ((.1,tint(c, -.5)),(.085,tint(c, .2)),(.05,tint(c, -.3))): oval(pen, (x,y), r, d)


def draw_french_horn(
    pen:Pen, # where to draw
):
    "A French horn: coil, three valves and the wide bell"
    rng = pen.rng
    c = near(rng, rng.choice(BRASS))
    if rng.random()<.3: person(part(pen, (-.5,-.3), 1.1), rng.choice(SKIN), rng.choice(PAINTS))
    else: shadow(pen, (.1,.85), (.9,.1))
    horn_coil(pen, c)
    horn_valves(pen, c)
    horn_bell(pen, c, rng.uniform(.35,.95))
