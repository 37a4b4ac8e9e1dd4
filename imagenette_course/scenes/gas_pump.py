"A gas pump, new or old."
from .canvas import PAINTS, Pen, arc, box, line, near, oval, part, shadow, shape, smooth, tint, tube


def nozzle(
    pen:Pen, # where to draw: grip in the middle, spout to the upper left
    c, # colour of the grip
):
    "The pistol-shaped nozzle"
    line(pen, [(-.3,-.16),(-.06,-.1)], (190,192,196), .06)
    shape(pen, [(-.12,-.2),(.12,-.16),(.16,.3),(.04,.32),(-.02,0),(-.14,-.04)], c)
    line(pen, [(-.1,.02),(-.1,.22),(.06,.28)], (60,60,64), .03)


def hose(
    pen:Pen, # where to draw
    side, # x of the pump's side
    top, # y where the hose leaves the pump
):
    "A black hose that hangs in a loop beside the pump, and its nozzle"
    deep,wide = pen.rng.uniform(.45,.8),pen.rng.uniform(.22,.5)
    path = [(side-.04,top),(side+wide*.6,top+.05),(side+wide,.2),(side+wide*.6,deep),(side+.16,deep-.1),(side+.12,.06)]
    tube(pen, smooth(path, False), (46,46,50), .08)
    box(pen, (side+.06,-.1), (.08,.16), (70,70,74), .03)
    nozzle(part(pen, (side+.1,-.16), .8), pen.rng.choice([(40,40,44),(200,50,44),(40,130,70)]))


def pump_display(
    pen:Pen, # where to draw
    half, # half the width
):
    "Two rows of digits, and buttons for the sorts of fuel"
    for y in (-.1,.12):
        box(pen, (0,y), (half,.09), (206,222,196), .02)
        for i in range(4):
            x = half*(-.6+.4*i)
            for dy in (-.05,0,.05):
                if pen.rng.random()<.8: box(pen, (x,y+dy), (half*.12,.012), (30,40,36))
            for dx in (-1,1):
                if pen.rng.random()<.7: box(pen, (x+half*.12*dx,y), (.012,.055), (30,40,36))
    for i,c in enumerate([(200,50,44),(240,190,50),(60,140,80)]): oval(pen, (half*(-.6+.6*i),.3), .06, c)


def modern_pump(
    pen:Pen, # where to draw
    c, # colour of the pump
):
    "A square pump: sign on top, display, hose at the side"
    w = pen.rng.uniform(.34,.46)
    box(pen, (0,.92), (w+.12,.06), (150,150,150))
    hose(pen, w, pen.rng.uniform(-.8,-.6))
    box(pen, (0,0), (w,.9), tint(c, -.3), .05)
    box(pen, (-.02,-.02), (w-.03,.87), c, .05)
    box(pen, (0,-.75), (w-.04,.1), tint(c, .65), .03)
    oval(pen, (-w*.5,-.75), .07, tint(c, -.4))
    box(pen, (w*.2,-.75), (w*.4,.035), tint(c, -.4))
    box(pen, (0,-.24), (w-.06,.36), (52,54,60), .04)
    pump_display(part(pen, (0,-.34)), w-.12)
    box(pen, (0,.5), (w-.06,.3), (235,232,224), .03)
    box(pen, (0,.5), (w-.06,.07), tint(c, -.2))


def dial(
    pen:Pen, # where to draw
):
    "A round meter with eight marks and a red hand"
    oval(pen, (0,0), .66, (70,70,74))
    oval(pen, (0,0), .58, (248,244,232))
    for a in range(0,360,45): oval(pen, arc((0,0), (.46,.46), a, a, 1)[0], .055, (50,50,54))
    line(pen, [(0,0),arc((0,0), (.42,.42), pen.rng.uniform(180,360), 0, 1)[0]], (200,40,36), .08)


def old_pump(
    pen:Pen, # where to draw
    c, # colour of the pump
):
    "A pump of the old sort: round shoulders, a dial, a glass globe on top"
    w = pen.rng.uniform(.26,.34)
    oval(pen, (0,-.95), .24, tint(c, -.3))
    oval(pen, (0,-.95), .2, (248,244,232))
    shape(pen, [(-.1,-1.05),(.12,-.95),(-.1,-.85)], c)
    hose(pen, w, pen.rng.uniform(-.5,-.3))
    box(pen, (0,.9), (w+.1,.07), (70,70,74), .02)
    box(pen, (0,.1), (w,.82), tint(c, -.3), .16)
    box(pen, (-.02,.1), (w-.04,.8), c, .14)
    dial(part(pen, (0,-.35), w))
    box(pen, (0,.08), (w*.6,.09), (206,222,196), .02)
    for x in (-.1,0,.1): box(pen, (x,.08), (.025,.05), (40,46,44))
    box(pen, (-w*.55,.45), (.03,.32), tint(c, .5, 150))


def draw_gas_pump(
    pen:Pen, # where to draw
):
    "One gas pump, or two of them side by side"
    rng = pen.rng
    c,pump = near(rng, rng.choice(PAINTS[:9])),rng.choice([modern_pump,modern_pump,old_pump])
    spots = [(-.6,.9),(.5,.9)] if rng.random()<.2 else [(0,1)]
    for x,size in spots:
        p = part(pen, (x,0), size)
        shadow(p, (.1,.96), (.7,.08))
        pump(p, c)
