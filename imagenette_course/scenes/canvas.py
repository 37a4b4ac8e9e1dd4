"What all scenes share: the pen, shapes, colours, places, small things and light."
import math
import random

import numpy as np
from PIL import Image, ImageDraw


# ---- The pen

class Pen:
    "Draws in an object's own units: x to the right, y down, (0, 0) in its middle"
    def __init__(self,
        im:Image.Image, # picture to draw on, in mode 'RGB'
        rng:random.Random, # every chance is taken from here
        frame:np.ndarray, # 2x2 matrix from units to pixels
        middle:np.ndarray, # pixel that (0, 0) falls on
    ):
        self.im,self.rng,self.frame,self.middle,self.bend = im,rng,frame,middle,0.
        self.draw,self.unit = ImageDraw.Draw(im, 'RGBA'),math.sqrt(abs(np.linalg.det(frame)))

    def pixels(self,
        points, # pairs of x and y in units
    )->list: # x, y, x, y, ... in pixels
        "`points` bent, turned, scaled and moved to where they belong on the picture"
        p = np.array(points, dtype=float)
        p[:,1] += self.bend*p[:,0]**2
        return (p@self.frame.T + self.middle).ravel().tolist()


def part(
    pen:Pen, # pen of the whole object
    at, # where the part's (0, 0) lies in the whole
    size=1., # units of the whole for one unit of the part
    turn=0., # degrees, clockwise
    flip=1, # -1 mirrors the part
    lean=0., # how far one unit down moves a point to the right
)->Pen: # pen that draws the part
    "A pen for a part of what `pen` draws, with its own middle, size, turn and lean"
    c,s = math.cos(math.radians(turn)),math.sin(math.radians(turn))
    frame = pen.frame @ np.array([[c,-s],[s,c]]) @ np.array([[flip,lean],[0,1.]]) * size
    return Pen(pen.im, pen.rng, frame, np.array(pen.pixels([at])))


# ---- Shapes and lines

def shape(
    pen:Pen, # where to draw
    points, # corners
    fill, # colour, with a fourth number where it lets light through
):
    "A filled polygon"
    pen.draw.polygon(pen.pixels(points), fill)


def line(
    pen:Pen, # where to draw
    points, # path
    fill, # colour
    width=.02, # thickness in units
):
    "A line along `points`, at least one pixel thick"
    pen.draw.line(pen.pixels(points), fill, max(1, round(width*pen.unit)), joint='curve')


def smooth(
    points, # pairs of x and y
    closed=True, # does the last point join the first?
    steps=6, # points on the curve for each point given
)->np.ndarray: # points on the curve
    "A round curve through `points` (a Catmull-Rom spline)"
    p = np.array(points, dtype=float)
    p = np.vstack([p[-1:], p, p[:2]] if closed else [2*p[:1]-p[1:2], p, 2*p[-1:]-p[-2:-1]])
    a,b,c,d = [p[i:len(p)-3+i, None] for i in range(4)]
    t = np.linspace(0, 1, steps, endpoint=False)[None,:,None]
    curve = (2*b + (c-a)*t + (2*a-5*b+4*c-d)*t**2 + (3*b-a-3*c+d)*t**3).reshape(-1, 2)/2
    return curve if closed else np.vstack([curve, p[-2]])


def arc(
    at, # middle
    radii, # half width and half height
    start=0., # degrees; 0 is right, 90 is down
    stop=360., # degrees
    n=36, # how many points
)->np.ndarray: # points from `start` to `stop`
    "Points along an ellipse"
    a = np.radians(np.linspace(start, stop, n))
    return np.stack([at[0]+radii[0]*np.cos(a), at[1]+radii[1]*np.sin(a)], 1)


def oval(
    pen:Pen, # where to draw
    at, # middle
    radii, # half width and half height, or one radius
    fill, # colour
):
    "A filled ellipse"
    if not isinstance(radii, tuple): radii = radii,radii
    shape(pen, arc(at, radii, n=12 if max(radii)*pen.unit<10 else 40), fill)


def box(
    pen:Pen, # where to draw
    at, # middle
    half, # half width and half height
    fill, # colour
    r=0., # radius of the corners
):
    "A filled rectangle, its corners rounded by `r`"
    (x,y),(w,h) = at,half
    if not r: return shape(pen, [(x-w,y-h),(x+w,y-h),(x+w,y+h),(x-w,y+h)], fill)
    corners = [(x+w-r,y+h-r,0),(x-w+r,y+h-r,90),(x-w+r,y-h+r,180),(x+w-r,y-h+r,270)]
    shape(pen, np.vstack([arc((a,b), (r,r), d, d+90, 6) for a,b,d in corners]), fill)


# ---- Colours

PAINTS = [(206,48,44),(232,118,36),(240,188,46),(70,150,70),(36,110,90),(46,104,180),
          (30,54,110),(120,80,150),(226,226,220),(64,66,72),(150,154,160),(120,74,48)]
SKIN = [(240,205,178),(224,178,142),(190,136,100),(140,94,66),(98,64,46)]
WHITE = (246,244,238)


def tint(
    colour, # red, green, blue
    by=0., # -1 is black, 0 leaves it, 1 is white
    clear=None, # fourth number, 0 (nothing to be seen) to 255 (solid)
)->tuple: # the new colour
    "`colour` made lighter or darker, at times see-through"
    goal = 255 if by>0 else 0
    c = tuple(round(v+(goal-v)*abs(by)) for v in colour[:3])
    return c if clear is None else (*c,clear)


def near(
    rng:random.Random, # the chances
    colour, # red, green, blue
    by=18, # largest step for each
)->tuple: # the new colour
    "A colour like `colour`"
    return tuple(min(255, max(0, round(v+rng.uniform(-by,by)))) for v in colour)


# ---- Things that several scenes contain

def tube(
    pen:Pen, # where to draw
    points, # path
    colour, # of the lit side's middle
    width, # thickness in units
):
    "A round pipe along `points`: dark outline, colour, and a light streak"
    p = np.array(points, dtype=float)
    line(pen, p, tint(colour, -.45), width)
    line(pen, p, colour, width*.76)
    line(pen, p+(-width*.12,-width*.12), tint(colour, .5), width*.22)


def shadow(
    pen:Pen, # where to draw
    at, # middle
    radii, # half width and half height
):
    "A soft dark pool below an object"
    for k in (1,.85,.7,.5): oval(pen, at, (radii[0]*k,radii[1]*k), (10,12,25,34))


def wheel(
    pen:Pen, # where to draw
    at, # middle
    r, # radius
    hub=(190,190,195), # colour of the rim
):
    "A tyre with its rim and five bolts"
    oval(pen, at, r, (32,32,36))
    oval(pen, at, r*.86, (52,52,56))
    oval(pen, at, r*.58, hub)
    oval(pen, at, r*.42, tint(hub, -.3))
    oval(pen, at, r*.17, tint(hub, .3))
    for a in range(0,360,72): oval(pen, arc(at, (r*.3,r*.3), a, a, 1)[0], r*.06, tint(hub, -.7))


def speaker(
    pen:Pen, # where to draw
    at, # middle
    r, # radius
    rim, # colour of the ring
):
    "A round loudspeaker"
    for k,c in ((1,rim),(.9,(28,28,30)),(.78,(66,66,70)),(.5,(48,48,52)),(.26,tint(rim, -.2))): oval(pen, at, r*k, c)
    oval(pen, (at[0]-r*.08,at[1]-r*.08), r*.1, tint(rim, .4))
    for a in range(0,360,45): oval(pen, arc(at, (r*.64,r*.64), a, a, 1)[0], r*.05, (110,110,114))


def dustbin(
    pen:Pen, # where to draw
    c, # its colour
):
    "A bin on two wheels"
    shape(pen, [(-.3,-.4),(.3,-.4),(.24,.5),(-.24,.5)], c)
    for x in (-.12,.02,.16): line(pen, [(x,-.3),(x*.85,.42)], tint(c, -.25), .05)
    box(pen, (0,-.44), (.36,.07), tint(c, -.3), .05)
    oval(pen, (-.2,.5), .1, (30,30,32))


def arch(
    pen:Pen, # where to draw
    at, # middle of the bottom edge
    size, # width and height
    fill, # colour
):
    "A window or door with a round top, in a pale frame"
    (x,y),(w,h) = at,size
    for k,c in ((w*.64,(236,230,216)),(w*.5,fill)):
        shape(pen, np.vstack([[(x-k,y)], arc((x,y-h+w/2), (k,k), 180, 360, 9), [(x+k,y)]]), c)
    line(pen, [(x,y-h),(x,y)], (236,230,216,160), .012)


def person(
    pen:Pen, # where to draw: head at the top, hips at y = 1
    skin, # colour of the face
    coat, # colour of the jacket
):
    "Somebody from the front: cap, face, jacket, trousers"
    shape(pen, [(-.5,1),(.5,1),(.5,3),(.06,3),(0,1.5),(-.06,3),(-.5,3)], (58,62,78))
    shape(pen, smooth([(-.3,-.3),(.3,-.3),(.62,-.1),(.72,.5),(.56,1.1),(-.56,1.1),(-.72,.5),(-.62,-.1)]), coat)
    shape(pen, smooth([(-.02,-.3),(.1,.1),(.04,1.05),(-.06,1.05)]), tint(coat, -.3))
    box(pen, (0,-.38), (.12,.14), tint(skin, -.15), .05)
    oval(pen, (0,-.66), (.25,.31), skin)
    for x in (-.09,.09): oval(pen, (x,-.66), .03, (40,30,30))
    line(pen, arc((0,-.56), (.09,.05), 20, 160, 8), tint(skin, -.5), .025)
    hat = pen.rng.choice(PAINTS)
    shape(pen, arc((0,-.74), (.27,.27), 180, 360, 16), hat)
    box(pen, (0,-.75), (.34,.035), tint(hat, -.3), .03)


def hand(
    pen:Pen, # where to draw: wrist below, fingers upwards
    skin, # its colour
    sleeve, # colour of the sleeve
):
    "A hand that holds something: sleeve, palm and four fingers"
    line(pen, [(0,.9),(0,.35)], sleeve, .5)
    oval(pen, (0,.2), (.3,.27), skin)
    for i,x in enumerate((-.24,-.08,.08,.24)):
        top = -.2-.06*(i in (1,2))
        line(pen, [(x,.2),(x,top)], tint(skin, -.25), .17)
        line(pen, [(x,.2),(x,top)], skin, .14)
        oval(pen, (x,top), .075, skin)


def tuft(
    pen:Pen, # where to draw
    wide, # half the width
    tall, # height of the longest blade
    c, # colour
    n=14, # how many blades
):
    "Blades of grass that stand up from y = 0"
    for _ in range(n):
        x,h = pen.rng.uniform(-wide,wide),tall*pen.rng.uniform(.4,1)
        shape(pen, [(x-.03,.04),(x+pen.rng.uniform(-.14,.14),-h),(x+.03,.04)], near(pen.rng, c))


# ---- Small things that lie about

def leaf(
    pen:Pen, # where to draw
    c, # its colour
):
    "A leaf with its middle rib"
    shape(pen, smooth([(-1,0),(-.4,-.4),(.4,-.35),(1,0),(.4,.35),(-.4,.4)]), c)
    line(pen, [(-1.2,0),(.9,0)], tint(c, -.3), .06)


def coil(
    pen:Pen, # where to draw
    c, # its colour
):
    "A coil of rope or hose"
    for r in (1,.78,.56): tube(pen, arc((0,0), (r,r*.9)), c, .2)


def crate(
    pen:Pen, # where to draw
    c, # its colour
):
    "A box with a lid and a label"
    box(pen, (0,0), (1,.8), c, .08)
    box(pen, (0,-.6), (1.06,.2), tint(c, -.25), .06)
    box(pen, (.1,.2), (.5,.3), tint(c, .55))
    for y in (.1,.28): line(pen, [(-.25,y),(.45,y)], tint(c, -.4), .06)


def bottle(
    pen:Pen, # where to draw
    c, # its colour
):
    "A bottle with a label"
    shape(pen, smooth([(-.15,-1),(.15,-1),(.17,-.5),(.42,-.2),(.42,.9),(-.42,.9),(-.42,-.2),(-.17,-.5)], steps=4), c)
    box(pen, (0,.3), (.4,.3), tint(c, .6))


def post(
    pen:Pen, # where to draw
    c, # its colour
):
    "A post with a round or pointed sign"
    box(pen, (0,.4), (.08,1.4), (120,120,124))
    if pen.rng.random()<.5: oval(pen, (0,-.9), .5, c)
    else: shape(pen, [(-.5,-.6),(0,-1.5),(.5,-.6)], c)
    box(pen, (0,-.9), (.28,.09), WHITE)


THINGS = [leaf, coil, crate, bottle, post, dustbin,
          lambda pen,c: wheel(pen, (0,0), .8, c),
          lambda pen,c: oval(pen, (0,0), .7, c),
          lambda pen,c: speaker(pen, (0,0), .8, c),
          lambda pen,c: arch(pen, (0,.6), (.7,1.3), tint(c, -.3))]


def clutter(
    page:Pen, # pen of the whole page
    n, # how many things
):
    "Scatters `n` small things that have nothing to do with the object"
    rng,wide = page.rng,page.im.size[0]/page.im.size[1]
    for _ in range(n):
        pen = part(page, (rng.uniform(-wide,wide),rng.uniform(.3,.95)), rng.uniform(.09,.2), rng.uniform(-25,25))
        c = near(rng, rng.choice(PAINTS))
        rng.choice(THINGS)(pen, c)


# ---- Places

def fade(
    page:Pen, # pen of the whole page
    top, # colour above
    bottom, # colour below
    start=-1., # y where the colours begin
    stop=1., # y where they end
):
    "Fills the page from `start` to `stop` with a smooth change of colour"
    w = page.im.size[0]
    a,b = [round(page.pixels([(0,y)])[1]) for y in (start,stop)]
    if b<=a: return
    t = np.linspace(0, 1, b-a)[:,None]
    ramp = (np.array(top)*(1-t)+np.array(bottom)*t).astype(np.uint8)[:,None]
    page.im.paste(Image.fromarray(ramp).resize((w,b-a), Image.NEAREST), (0,a))


SKIES = [((96,160,220),(206,228,240)),((150,180,200),(224,226,224)),((70,90,150),(244,178,120)),
         ((120,130,150),(190,196,200)),((56,120,200),(170,210,236)),((40,46,80),(150,110,120))]


def sky(
    page:Pen, # pen of the whole page
    low=1., # y where the sky ends
):
    "Sky of some weather, with clouds"
    rng,wide = page.rng,page.im.size[0]/page.im.size[1]
    top,bottom = rng.choice(SKIES)
    fade(page, near(rng, top), near(rng, bottom), -1, low)
    for _ in range(rng.choice((0,1,2,4))):
        x,y,s = rng.uniform(-wide,wide),rng.uniform(-.95,low-.2),rng.uniform(.1,.35)
        for dx,dy,r in ((-1,.1,.6),(0,-.1,.85),(.9,.1,.6),(.3,.15,.8)):
            oval(page, (x+dx*s,y+dy*s), (s*r,s*r*.5), tint(bottom, .55))


def hills(
    page:Pen, # pen of the whole page
    y, # height of the horizon
):
    "Rolling hills from `y` down to the bottom"
    for k in range(2):
        x = np.linspace(-2.2, 2.2, 12)
        top = y+.12*k+page.rng.uniform(.02,.12)*np.sin(x*page.rng.uniform(1,3)+page.rng.uniform(0,6))
        c = near(page.rng, page.rng.choice([(96,140,80),(120,150,90),(86,120,100),(150,140,90)]))
        shape(page, [(-2.2,1),*zip(x, top),(2.2,1)], c)


def open_sky(
    page:Pen, # pen of the whole page
):
    "Nothing but sky, at times with land far below"
    sky(page)
    if page.rng.random()<.4: hills(page, page.rng.uniform(.6,.85))


def blades(
    page:Pen, # pen of the whole page
    y, # where the grass begins
    c, # its colour
    n=60, # how many
):
    "Blades of grass, longer the nearer they are"
    for _ in range(n):
        k = page.rng.random()
        x,b = page.rng.uniform(-1.6,1.6),y+(1.05-y)*k
        line(page, [(x,b),(x+page.rng.uniform(-.04,.04),b-.05-.12*k)], tint(c, page.rng.uniform(-.3,.25)), .012)


def meadow(
    page:Pen, # pen of the whole page
):
    "Sky, hills and a field of grass"
    y = page.rng.uniform(-.1,.5)
    sky(page, y+.2)
    hills(page, y-.1)
    c = near(page.rng, page.rng.choice([(104,150,66),(124,152,74),(150,146,80),(78,130,70)]))
    fade(page, c, tint(c, -.25), y+.1, 1)
    blades(page, y+.1, c, 50)


def lawn(
    page:Pen, # pen of the whole page
):
    "Short grass seen from above, with a few leaves or flowers"
    c = near(page.rng, page.rng.choice([(96,150,64),(84,134,62),(120,150,80),(134,140,76)]))
    fade(page, tint(c, page.rng.uniform(-.1,.2)), tint(c, page.rng.uniform(-.3,0)))
    blades(page, -.9, c, 110)
    for _ in range(page.rng.choice((0,3,6))):
        at = page.rng.uniform(-1.5,1.5),page.rng.uniform(-1,1)
        oval(page, at, (.04,.03), page.rng.choice([WHITE,(240,210,70),(170,110,60)]))


def lake(
    page:Pen, # pen of the whole page
):
    "Water with ripples below a shore and sky, or nothing but water"
    rng,y = page.rng,page.rng.choice((-1.1,-.4,0,.3))
    c = near(rng, rng.choice([(90,130,150),(70,110,120),(110,140,130),(60,100,150)]))
    sky(page, y+.1)
    if y>-1: hills(page, y-.12)
    fade(page, tint(c, .25), tint(c, -.25), max(y, -1), 1)
    for _ in range(36):
        k = rng.random()
        x,b,w = rng.uniform(-1.6,1.6),y+(1-y)*k,.06+.2*k
        ripple = smooth([(x-w,b),(x-w/2,b-.02),(x,b+.01),(x+w/2,b-.02),(x+w,b)], False, 3)
        line(page, ripple, tint(c, rng.uniform(-.2,.5), 150), .012)


def street(
    page:Pen, # pen of the whole page
):
    "Houses, a pavement and a road"
    rng,y = page.rng,page.rng.uniform(.1,.5)
    sky(page, y)
    x = -1.8
    while x<1.8:
        w,top = rng.uniform(.3,.6),rng.uniform(-.9,-.1)
        c = near(rng, rng.choice([(196,170,140),(170,120,96),(180,180,176),(214,204,180),(140,150,160)]))
        box(page, (x+w/2,(top+y)/2), (w/2,(y-top)/2), c)
        for a in np.arange(x+.1, x+w-.08, .16):
            for b in np.arange(top+.14, y-.1, .24): box(page, (a,b), (.04,.07), tint(c, rng.choice((-.5,-.45,.4))))
        x += w
    fade(page, (176,174,168), (160,158,152), y, y+.12)
    fade(page, (100,102,108), (80,82,88), y+.12, 1)
    for x in np.arange(-1.7+rng.random()*.3, 1.7, .5): box(page, (x,(y+1.1)/2), (.12,.015), (226,224,210))


def forest(
    page:Pen, # pen of the whole page
):
    "Trunks and leaves, with a mossy floor"
    rng,y = page.rng,page.rng.uniform(.1,.6)
    fade(page, near(rng, (120,150,110)), near(rng, (70,100,70)), -1, y)
    fade(page, near(rng, (110,110,66)), near(rng, (70,80,46)), y, 1)
    for _ in range(rng.randrange(5,10)):
        x,w,c = rng.uniform(-1.6,1.6),rng.uniform(.03,.1),near(rng, (92,74,58))
        shape(page, [(x-w,y+w*2),(x-w*.7,-1),(x+w*.7,-1),(x+w,y+w*2)], c)
        shape(page, [(x,y+w*2),(x,-1),(x+w*.7,-1),(x+w,y+w*2)], tint(c, -.3))
    for _ in range(rng.randrange(10,22)):
        at = rng.uniform(-1.6,1.6),rng.uniform(-1.1,-.5)
        radii = rng.uniform(.1,.3),rng.uniform(.08,.2)
        oval(page, at, radii, (*near(rng, (70,120,60)),190))
    blades(page, y, (96,116,60), 30)


def wall(
    page:Pen, # pen of the whole page
):
    "A wall: plain, striped, dotted, tiled or of brick"
    rng = page.rng
    c = near(rng, rng.choice([(214,204,184),(160,180,190),(190,140,110),(150,170,140),(110,112,122),(226,222,214)]))
    fade(page, tint(c, .12), tint(c, -.12))
    style = rng.choice(['plain','stripes','dots','tiles','bricks'])
    gap,d = rng.uniform(.16,.36),tint(c, rng.choice((-.16,.22)))
    for j,y in enumerate(np.arange(-1, 1.1, gap)):
        if style in ('tiles','bricks'): line(page, [(-2,y),(2,y)], d, .018)
        for x in np.arange(-2+(gap/2 if j%2 and style!='tiles' else 0), 2, gap):
            if style=='dots': oval(page, (x,y), .035, d)
            elif style in ('tiles','bricks'): line(page, [(x,y),(x,y+gap)], d, .018)
            elif style=='stripes' and j==0: box(page, (x,0), (gap*.22,1), d)


def table(
    page:Pen, # pen of the whole page
):
    "A table top in front of a wall"
    rng,y = page.rng,page.rng.uniform(-.1,.5)
    wall(page)
    c = near(rng, rng.choice([(160,110,70),(190,146,98),(110,78,56),(200,196,188),(90,96,104)]))
    fade(page, tint(c, .15), tint(c, -.2), y, 1)
    line(page, [(-2,y),(2,y)], tint(c, -.35), .03)
    for _ in range(8):
        x,b = rng.uniform(-1.6,1.6),rng.uniform(y+.05,1)
        line(page, [(x-.5,b),(x+.5,b)], tint(c, -.15, 130), .015)


def studio(
    page:Pen, # pen of the whole page
):
    "A plain cloth, lighter in the middle"
    cloths = [(206,206,204),(236,234,230),(70,72,80),(150,170,190),(200,180,150),(120,60,60),(60,90,90)]
    c = near(page.rng, page.rng.choice(cloths))
    fade(page, tint(c, -.18), tint(c, .08))
    for k in np.arange(.3, 1.6, .1): oval(page, (0,0), (k,k*.8), (255,255,255,5))


# ---- Things in front

def branch(
    page:Pen, # pen of the whole page
):
    "A leafy branch that reaches in from the side"
    rng = page.rng
    pen = part(page, (0,rng.uniform(-.7,.6)), 1, rng.uniform(-35,35), rng.choice((-1,1)))
    end = rng.uniform(-.3,.9)
    tube(pen, smooth([(-2,-.1),(-1,.05),(-.3,-.05),(end,.05)], False), (100,76,56), .07)
    c = near(rng, rng.choice([(70,130,60),(110,140,60),(190,120,50)]))
    for x in np.arange(-1.5, end+.1, .16):
        stem = part(pen, (x,rng.uniform(-.12,.12)), rng.uniform(.09,.17), rng.uniform(0,360))
        leaf(stem, near(rng, c))


def bars(
    page:Pen, # pen of the whole page
):
    "One to three bars of a fence, upright or lying"
    rng = page.rng
    pen = part(page, (rng.uniform(-.4,.4),0), 1, rng.choice((0,90))+rng.uniform(-12,12))
    c,w,n = rng.choice(PAINTS),rng.uniform(.05,.12),rng.choice((1,2,3))
    for i in range(n): tube(pen, [((i-(n-1)/2)*.5,-2.2),((i-(n-1)/2)*.5,2.2)], c, w)


def fingers(
    page:Pen, # pen of the whole page
):
    "A hand that reaches in from below or from the side"
    rng = page.rng
    a = rng.choice((0,0,90,-90))
    x,y = {0:(rng.uniform(-.7,.7),.6),90:(-.8,rng.uniform(-.4,.6)),-90:(.8,rng.uniform(-.4,.6))}[a]
    hand(part(page, (x,y), rng.uniform(.35,.6), a+rng.uniform(-20,20)), rng.choice(SKIN), rng.choice(PAINTS))


def grass_front(
    page:Pen, # pen of the whole page
):
    "High grass along the lower edge"
    tall,c = page.rng.uniform(.35,.8),page.rng.choice([(90,130,60),(150,140,70),(60,96,60)])
    tuft(part(page, (0,1.02)), 1.6, tall, c, 50)


def big_leaf(
    page:Pen, # pen of the whole page
):
    "One or two large leaves close to the viewer"
    rng = page.rng
    for _ in range(rng.choice((1,2))):
        at = rng.uniform(-.9,.9),rng.uniform(-.9,.9)
        pen = part(page, at, rng.uniform(.22,.42), rng.uniform(0,360))
        leaf(pen, near(rng, rng.choice([(60,120,60),(150,150,60),(180,90,50)])))


FRONTS = [branch, bars, fingers, grass_front, big_leaf]


# ---- Light and size

LIGHTS = {'day':(1,1,1), 'warm lamp':(1.1,.98,.78), 'shade':(.86,.95,1.1),
          'dusk':(.95,.82,.82), 'night':(.62,.66,.82), 'green':(.92,1.05,.9)}


def light(
    im:Image.Image, # finished drawing, in mode 'RGB'
    rng:random.Random, # the chances
)->Image.Image: # the same scene in some light, slightly noisy
    "Colour of the light, brightness, contrast, a soft gradient, and the noise of a sensor"
    a = np.asarray(im, dtype=np.float32)
    h,w = a.shape[:2]
    cast = np.array(LIGHTS[rng.choices(list(LIGHTS), [6,2,2,2,1,1])[0]], dtype=np.float32)
    angle,steep = rng.uniform(0, 2*math.pi),rng.uniform(0, .25)
    slope = steep*(np.linspace(-1, 1, h)[:,None]*math.sin(angle)+np.linspace(-1, 1, w)[None]*math.cos(angle))
    grain = np.random.default_rng(rng.getrandbits(64)).standard_normal((h,w), dtype=np.float32)*rng.uniform(0,4.5)
    contrast,bright = rng.uniform(.8,1.2),rng.uniform(-15,15)
    a = ((a-120)*contrast+120+bright)*(cast*(1+slope[...,None]).astype(np.float32))+grain[...,None]
    return Image.fromarray(a.clip(0, 255).astype(np.uint8))


def page_size(
    rng:random.Random, # the chances
)->tuple: # width and height in pixels
    "The size of a picture: mostly 4:3, shortest side about 120 to 260 pixels"
    short = round(rng.triangular(120, 260, 170))
    ratio = rng.choices([4/3,3/2,1,3/4,2/3,2], [56,14,10,13,4,3])[0]
    return (round(short*ratio),short) if ratio>=1 else (short,round(short/ratio))


def blank_page(
    size:tuple, # width and height of the picture in pixels
    rng:random.Random, # every chance is taken from here
)->Pen: # pen of the whole page; its picture is `.im`
    "An empty page, twice as wide and high as `size`: (0, 0) in its middle, two units high"
    w,h = size[0]*2,size[1]*2
    return Pen(Image.new('RGB', (w,h)), rng, np.eye(2)*h/2, np.array([w/2,h/2]))
