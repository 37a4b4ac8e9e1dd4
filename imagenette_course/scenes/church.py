"A church with a steeple."
from .canvas import WHITE, Pen, arch, box, line, near, oval, shadow, shape, tint


def cross(
    pen:Pen, # where to draw
    at, # foot of the cross
    size, # height
):
    "A cross on top of a roof"
    x,y = at
    line(pen, [(x,y),(x,y-size)], (60,50,40), .035)
    line(pen, [(x-size*.3,y-size*.66),(x+size*.3,y-size*.66)], (60,50,40), .035)


def clock(
    pen:Pen, # where to draw
    at, # middle
    r, # radius
):
    "A clock face with two hands"
    x,y = at
    oval(pen, at, r, (240,234,216))
    line(pen, [(x,y-.08),(x,y),(x+r*.53,y+.02)], (40,36,36), .018)


def steeple(
    pen:Pen, # where to draw
    x, # middle
    half, # half the width of the tower
    top, # y where the spire begins
    walls, # colour of the walls
    roof, # colour of the roof
):
    "A tower with bell window, clock, pointed spire and cross"
    box(pen, (x,(top+.8)/2), (half,(.8-top)/2), walls)
    box(pen, (x+half*.6,(top+.8)/2), (half*.4,(.8-top)/2), (0,0,0,36))
    tip = top-pen.rng.uniform(.45,.75)
    shape(pen, [(x-half*1.15,top),(x,tip),(x+half*1.15,top)], roof)
    shape(pen, [(x+half*.2,top),(x,tip),(x+half*1.15,top)], (0,0,0,50))
    box(pen, (x,top+.02), (half*1.18,.03), tint(walls, .3))
    cross(pen, (x,tip+.02), .24)
    arch(pen, (x,top+.34), (half*.7,.22), (52,50,60))
    if pen.rng.random()<.6: clock(pen, (x,top+.48), half*.38)
    box(pen, (x,.56), (half*1.04,.015), tint(walls, -.25))


def church_side(
    pen:Pen, # where to draw
    walls, # colour of the walls
    roof, # colour of the roof
    glass, # colour of the windows
):
    "A church from the side: long nave with windows, tower at one end"
    eaves,ridge,end = pen.rng.uniform(.1,.3),pen.rng.uniform(-.3,-.1),pen.rng.uniform(.75,1.1)
    box(pen, ((end-.4)/2,(eaves+.8)/2), ((end+.4)/2,(.8-eaves)/2), tint(walls, -.08))
    shape(pen, [(-.45,eaves),(-.4,ridge),(end-.12,ridge),(end+.06,eaves)], tint(roof, -.08))
    line(pen, [(-.4,ridge),(end-.12,ridge)], tint(roof, .3), .03)
    n = pen.rng.choice((3,4))
    for i in range(n): arch(pen, (-.08+(end-.02)*(i+.5)/n,.68), (.13,.34), glass)
    steeple(pen, -.45, pen.rng.uniform(.2,.27), pen.rng.uniform(-.5,-.25), walls, roof)
    arch(pen, (-.45,.8), (.2,.32), (92,60,40))


def church_front(
    pen:Pen, # where to draw
    walls, # colour of the walls
    roof, # colour of the roof
    glass, # colour of the windows
):
    "A church from the front: gable with rose window, tower in the middle or behind"
    w,eaves,ridge = pen.rng.uniform(.5,.72),pen.rng.uniform(.2,.34),pen.rng.uniform(-.3,-.1)
    behind = pen.rng.random()<.5
    tower = lambda: steeple(pen, 0, pen.rng.uniform(.2,.26), pen.rng.uniform(-.55,-.4), walls, roof)
    if behind: tower()
    shape(pen, [(-w,.8),(-w,eaves),(0,ridge),(w,eaves),(w,.8)], tint(walls, -.1))
    line(pen, [(-w-.08,eaves+.06),(0,ridge),(w+.08,eaves+.06)], roof, .08)
    if not behind: tower()
    else:
        oval(pen, (0,ridge+.36), .15, WHITE)
        oval(pen, (0,ridge+.36), .12, glass)
    for x in (-w*.64,w*.64): arch(pen, (x,.7), (.15,.32), glass)
    arch(pen, (0,.8), (.22,.32), (92,60,40))


def draw_church(
    pen:Pen, # where to draw
):
    "A church with a steeple and a cross, from the side or from the front"
    rng = pen.rng
    walls = near(rng, rng.choice([(240,236,226),(226,206,166),(176,166,152),(170,92,70),(206,196,186)]))
    roof,glass = near(rng, rng.choice([(70,74,86),(150,70,52),(96,60,50),(60,96,90)])),near(rng, (70,96,130))
    shadow(pen, (.2,.82), (1.1,.08))
    rng.choice([church_side,church_front])(pen, walls, roof, glass)
    for x in (-.85,.85):
        if rng.random()<.4: oval(pen, (x,.74), (rng.uniform(.12,.25),rng.uniform(.1,.25)), near(rng, (60,110,60)))
