"An English springer, a spaniel in two colours."
import math

from .canvas import PAINTS, WHITE, Pen, arc, line, near, oval, part, shadow, shape, smooth, tint

FUR = [(104,54,32),(124,68,40),(88,44,30),(42,34,34)]


def freckles(
    pen:Pen, # where to draw
    at, # middle
    radii, # half width and half height of the speckled place
    fill, # colour
    n=12, # how many
):
    "Small spots scattered over an ellipse"
    for _ in range(n):
        a,r = pen.rng.uniform(0,6.3),math.sqrt(pen.rng.random())
        oval(pen, (at[0]+radii[0]*r*math.cos(a), at[1]+radii[1]*r*math.sin(a)), pen.rng.uniform(.008,.022), fill)


def spaniel_ears(
    pen:Pen, # where to draw
    c, # colour of the fur
    swing, # how far the ears are blown outwards
):
    "Two long ears that hang down beside the face, wavy at the end"
    for s in (-1,1):
        ear = [(.3,-.5),(.52,-.42),(.72,-.05),(.78+swing,.35),(.7+swing,.66),(.56+swing,.6),(.48+swing,.68),
               (.42,.4),(.4,.05)]
        shape(pen, smooth([(s*x,y) for x,y in ear]), tint(c, -.18))
        for x in (.5,.58,.66):
            lock = [(s*x,-.1),(s*(x+.06),.15),(s*(x+.02+swing),.5)]
            line(pen, smooth(lock, False), tint(c, .16), .03)


def muzzle(
    pen:Pen, # where to draw
    c, # colour of the freckles
):
    "The white muzzle with its nose, mouth and, at times, the tongue"
    if pen.rng.random()<.45: shape(pen, smooth([(-.1,.4),(.1,.4),(.11,.62),(0,.7),(-.11,.62)]), (226,110,116))
    for x in (-.12,.12): oval(pen, (x,.3), (.19,.18), tint(WHITE, -.08))
    for x in (-.11,.11): oval(pen, (x,.28), (.17,.16), WHITE)
    freckles(pen, (0,.3), (.24,.11), c, 14)
    shape(pen, smooth([(-.13,.1),(0,.06),(.13,.1),(.08,.2),(0,.24),(-.08,.2)]), (28,22,22))
    oval(pen, (-.03,.11), (.04,.018), (120,112,112))
    line(pen, [(0,.22),(0,.34)], (60,40,40), .022)
    for s in (-1,1): line(pen, arc((s*.1,.33), (.1,.09), 10, 170, 8), (60,40,40), .02)


def spaniel_face(
    pen:Pen, # where to draw
    c, # colour of the fur
    look, # where it looks: -1 is left, 1 is right
):
    "White blaze, dark mask, brown eyes, speckled muzzle and black nose"
    face = [(-.42,-.42),(-.2,-.6),(.2,-.6),(.42,-.42),(.44,-.05),(.3,.3),(0,.5),(-.3,.3),(-.44,-.05)]
    shape(pen, smooth(face), WHITE)
    dx = .12*look
    for s in (-1,1):
        mask = [(.09,-.56),(.3,-.56),(.43,-.38),(.43,.02),(.3,.24),(.2,.1),(.13,-.12),(.07,-.3)]
        shape(pen, smooth([(s*x+dx*.5,y) for x,y in mask]), c)
        oval(pen, (s*.23+dx,-.14), (.1,.085), tint(c, -.45))
        oval(pen, (s*.23+dx,-.14), .066, (70,38,20))
        oval(pen, (s*.23+dx,-.14), .04, (12,10,10))
        oval(pen, (s*.23+dx-.02,-.165), .018, WHITE)
    muzzle(part(pen, (dx*1.6,0)), c)


def spaniel_head(
    pen:Pen, # where to draw
    c, # colour of the fur
):
    "A spaniel's head from the front"
    rng = pen.rng
    spaniel_ears(pen, c, rng.uniform(-.04,.2))
    spaniel_face(pen, c, rng.uniform(-1,1))


def spaniel_portrait(
    pen:Pen, # where to draw
    c, # colour of the fur
):
    "Head and white chest of a spaniel that looks at you"
    shape(pen, smooth([(-.35,.3),(.35,.3),(.75,.8),(.9,1.5),(-.9,1.5),(-.75,.8)]), tint(WHITE, -.06))
    for s in (-1,1): shape(pen, smooth([(s*.6,.75),(s*.8,.95),(s*.95,1.5),(s*.55,1.5)]), c)
    freckles(pen, (0,.95), (.5,.3), c, 12)
    spaniel_head(pen, c)


def spaniel_sitting(
    pen:Pen, # where to draw
    c, # colour of the fur
):
    "A spaniel that sits and looks at you"
    shadow(pen, (0,.92), (.75,.14))
    shape(pen, smooth([(-.2,-.35),(.2,-.35),(.42,.2),(.56,.6),(.5,.92),(-.5,.92),(-.56,.6),(-.42,.2)]), tint(c, -.1))
    shape(pen, smooth([(-.22,-.3),(.22,-.3),(.27,.2),(.16,.6),(-.16,.6),(-.27,.2)]), WHITE)
    for s in (-1,1):
        line(pen, [(s*.15,.2),(s*.17,.85)], tint(WHITE, -.1), .2)
        oval(pen, (s*.19,.88), (.15,.08), WHITE)
    freckles(pen, (0,.6), (.25,.28), c, 16)
    spaniel_head(part(pen, (0,-.5), .62, pen.rng.uniform(-14,14)), c)


def spaniel_legs(
    pen:Pen, # where to draw
    far, # is this the pair of legs behind the body?
):
    "Two white legs with feathered backs"
    for x in (-.5,.4):
        x += .1 if far else 0
        step,c = pen.rng.uniform(-.14,.14),tint(WHITE, -.22 if far else -.04)
        leg = [(x-.14,0),(x+.13,0),(x+.08+step*.5,.4),(x+.06+step,.72),(x-.07+step,.72),(x-.1+step*.5,.42)]
        shape(pen, smooth(leg), c)
        oval(pen, (x+.04+step,.73), (.12,.06), c)


def spaniel_side(
    pen:Pen, # where to draw
    c, # colour of the fur
):
    "Head, muzzle, ear and eye of a spaniel from the side, looking right"
    head = [(-.26,-.1),(-.1,-.27),(.12,-.22),(.2,-.06),(.46,-.03),(.48,.1),(.36,.2),(.1,.22),(-.2,.24)]
    shape(pen, smooth(head), WHITE)
    shape(pen, smooth([(-.27,-.08),(-.1,-.28),(.1,-.22),(.18,-.06),(.1,.1),(-.2,.2)]), c)
    shape(pen, smooth([(-.12,-.16),(.02,-.1),(.06,.2),(.02,.46),(-.14,.5),(-.26,.36),(-.24,.05)]), tint(c, -.25))
    for x in (-.16,-.06): line(pen, [(x,.05),(x-.02,.38)], tint(c, .12), .03)
    oval(pen, (.13,-.08), .04, (16,12,12))
    oval(pen, (.46,.02), (.06,.05), (20,16,16))
    freckles(pen, (.32,.1), (.12,.06), c, 7)
    line(pen, [(.44,.13),(.22,.15)], (70,50,50), .022)


def spaniel_trunk(
    pen:Pen, # where to draw
    c, # colour of the fur
):
    "The white trunk of a spaniel from the side, with three dark patches"
    trunk = [(.62,-.42),(.3,-.3),(-.1,-.27),(-.5,-.28),(-.72,-.08),(-.62,.2),(-.2,.16),(.2,.28),(.5,.24),(.72,-.05)]
    shape(pen, smooth(trunk), WHITE)
    shape(pen, smooth([(.02,-.27),(-.2,-.28),(-.34,-.1),(-.26,.1),(-.04,.08),(.06,-.08)]), c)
    shape(pen, smooth([(-.46,-.28),(-.71,-.1),(-.62,.14),(-.46,0)]), c)
    shape(pen, smooth([(.5,-.42),(.66,-.36),(.66,-.14),(.42,-.12),(.36,-.28)]), c)
    freckles(pen, (.25,.05), (.3,.12), c, 14)


def spaniel_standing(
    pen:Pen, # where to draw
    c, # colour of the fur
):
    "A spaniel that stands or walks, from the side"
    rng = pen.rng
    shadow(pen, (0,.78), (.95,.12))
    spaniel_legs(pen, True)
    line(pen, smooth([(-.62,-.16),(-.8,-.26),(-.92,rng.uniform(-.55,-.1))], False), c, .1)
    spaniel_trunk(pen, c)
    spaniel_legs(pen, False)
    line(pen, [(.46,-.36),(.74,-.18)], rng.choice(PAINTS), .07)
    spaniel_side(part(pen, (.68,rng.uniform(-.56,-.44)), .95, rng.uniform(-18,24)), c)


def draw_english_springer(
    pen:Pen, # where to draw
):
    "An English springer: portrait, sitting or standing"
    rng = pen.rng
    form = rng.choice([spaniel_portrait,spaniel_sitting,spaniel_standing,spaniel_standing])
    form(pen, near(rng, rng.choice(FUR), 10))
