"""Makes what the widgets show, from the package and its record: `NAME.data.js`, `NAME.png` and `NAME.txt`.

    python docs/widgets/make.py          # all of it, in seconds
    python docs/widgets/make.py views    # before that, views.json anew: trains a small network, about a minute

`views.json` holds predictions that were made once. All else is made from functions of the package each time.
"""
import argparse, ast, base64, inspect, io, json, random, textwrap
from pathlib import Path

import matplotlib
matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageOps
from scipy import stats
from imagenette_course.answers import recorded
from imagenette_course.dataset import CLASSES
from imagenette_course.mixup import blend, mixup
from imagenette_course.questionnaire import smoothed_question
from imagenette_course.scenes import draw_scene
from imagenette_course.smoothing import logit_gap, smooth_cross_entropy, smooth_targets
from imagenette_course.tta import combine_views, tta

HERE = Path(__file__).parent
NAMES = list(CLASSES.values())
BLUE, ORANGE, GREEN, GREY = '#0072B2', '#D55E00', '#009E73', '#8a8f98' # the first three as in the chapters

def default(f, name): return inspect.signature(f).parameters[name].default

def as_png(im):
    "A picture as the address of an image."
    file = io.BytesIO()
    im.save(file, 'png', optimize=True)
    return 'data:image/png;base64,' + base64.b64encode(file.getvalue()).decode()

def as_image(address): return Image.open(io.BytesIO(base64.b64decode(address.split(',')[1])))

# ---- mixup: the church and the gas pump of chapter 05

def pictures(side=160):
    "The two drawings, cut to squares."
    drawn = (draw_scene(kind, random.Random(seed)).convert('RGB')
             for kind,seed in (('church', 'mixup/5'), ('gas pump', 'mixup/7')))
    return [ImageOps.fit(o, (side, side)) for o in drawn]

def mixup_data():
    church,pump = pictures()
    return dict(classes=NAMES, share=.3, first=dict(name='church', index=NAMES.index('church'), png=as_png(church)),
                second=dict(name='gas pump', index=NAMES.index('gas pump'), png=as_png(pump)))

def mixup_still(data):
    images = torch.stack([torch.tensor(np.array(o)).permute(2, 0, 1)/255 for o in pictures()])
    y,lam = torch.tensor([data[k]['index'] for k in ('first', 'second')]), data['share']
    [target,_] = mixup(images, y, lam, torch.tensor([1, 0]), len(NAMES))[1].tolist()
    fig,axs = plt.subplots(1, 4, figsize=(9, 2.7), layout='constrained', width_ratios=(1, 1.35, 1, 1.5))
    for ax,o,title in zip(axs, (images[1], blend(*images, lam), images[0]),
                          ('gas pump', f'{1-lam:.1f} · gas pump + {lam:.1f} · church', 'church')):
        ax.imshow(o.permute(1, 2, 0).numpy()); ax.axis('off'); ax.set_title(title, size=10)
    axs[3].barh(NAMES, target, color=[BLUE if k == y[0] else ORANGE for k in range(len(NAMES))])
    for k,v in enumerate(target): axs[3].text(v + .03, k, f'{v:.2f}', va='center', size=8.5)
    axs[3].set(xlim=(0, 1), title='the target'); axs[3].title.set_size(10)
    axs[3].invert_yaxis(); bare(axs[3])
    return fig, (f'A drawn gas pump, a drawn church, and between them their blend: {1-lam:.1f} of the pump and '
                 f'{lam:.1f} of the church. Bars show its target: church {target[y[0]]:.1f}, '
                 f'gas pump {target[y[1]]:.1f}, all others 0.')

# ---- smoothing: the loss over the gap between the right logit and the others

def smoothing_data():
    return dict(n=len(NAMES), eps=default(smooth_cross_entropy, 'eps'), gap=6, most=.3, widest=10)

def losses(gaps, eps, n):
    "The smoothed loss of each gap: the right logit leads n - 1 others, which are equal."
    z = torch.zeros(len(gaps), n, dtype=torch.float64)
    z[:,0] = torch.as_tensor(gaps, dtype=torch.float64)
    return smooth_cross_entropy(z, torch.zeros(len(gaps), dtype=torch.int64), eps, reduction='none').numpy()

def smoothing_still(data):
    n,eps,gap = data['n'], data['eps'], data['gap']
    gaps = np.linspace(0, data['widest'], 201)
    wall,q = logit_gap(eps, n), smooth_targets(torch.tensor([0]), n, eps)[0]
    (here,least),odds = losses([gap, wall], eps, n), (q[0]/q[1]).item()
    fig,ax = plt.subplots(figsize=(7.5, 3.8), layout='constrained')
    ax.plot(gaps, losses(gaps, 0, n), color=ORANGE, ls='--', label='hard target')
    ax.plot(gaps, losses(gaps, eps, n), color=BLUE, lw=2, label=f'smoothed, eps = {eps}')
    ax.axvline(wall, color=GREY, ls=':')
    ax.annotate(f'the wall: ln {odds:.0f} = {wall:.2f}', (wall, 1.9), (6, 0), textcoords='offset points', size=10)
    ax.plot(gap, here, 'o', color=BLUE, ms=9)
    ax.annotate(f'gap {gap}: loss {here:.3f}', (gap, here), (0, 12), textcoords='offset points', ha='center', size=10)
    ax.set(xlabel='gap: the right logit minus the others', ylabel='loss', xlim=(0, data['widest']), ylim=(0, None),
           title=f'Smoothed, the loss is lowest at a gap of {wall:.2f}; hard, it falls forever')
    ax.legend(frameon=False); ax.spines[['top', 'right']].set_visible(False)
    return fig, (f'Loss against the gap between the right logit and the nine others. The hard target\'s curve falls '
                 f'forever; the smoothed one, at eps {eps}, is lowest at a gap of ln {odds:.0f} = {wall:.2f}, with a '
                 f'loss of {least:.3f}, and rises beyond it.')

# ---- views: what a network said to a middle square and four random views

def views():
    """Trains chapter 04's network, two epochs on the drawn sample, and writes views.json: pictures and probabilities of
    the scene that four random views rescued most clearly. Of several draws of views, the first in which they disagree
    and their mean is right. About a minute on one core; another machine rounds differently, and may find another
    scene."""
    from fastai.vision.all import set_seed
    from imagenette_course.baseline import fit
    from imagenette_course.dataset import folder_label, make_sample
    from imagenette_course.speed import cached_dls
    from imagenette_course.sprint import sprint_learner, sprintnet_small
    torch.set_num_threads(1)
    dls = cached_dls(make_sample(), 32, 64, min_scale=.5)
    learn = sprint_learner(dls, sprintnet_small, seed=0)
    run = fit(learn, 2, .17, show=False, schedule='linear')
    set_seed(0)
    with learn.no_bar(): (p0,y),(p4,_) = tta(learn, n=0), tta(learn)
    files,rescued = dls.valid.items, (p0.argmax(1) != y) & (p4.argmax(1) == y)
    stats_ = [torch.tensor(o)[:,None,None] for o in dls.settings['stats']]

    def look(i, split_idx, n):
        "Views of one scene: the network's input (n, 3, h, w), and its probabilities (n, classes)."
        dl = dls.test_dl([files[i]]*n)
        with dl.dataset.set_split_idx(split_idx): x = dl.one_batch()[0].as_subclass(torch.Tensor).cpu()
        with torch.no_grad(): return x, learn.model.cpu().eval()(x).double().softmax(1)

    i = ((p4 - p0)[range(len(y)), y] + rescued).argmax().item()
    for seed in range(100):
        set_seed(seed)
        (x0,p0),(x,p) = look(i, 1, 1), look(i, 0, 4)
        right = (p.argmax(1) == y[i]).sum()
        if 0 < right < 4 and combine_views(p0, p[:,None]).argmax() == y[i]: break
    else: raise RuntimeError('in no draw of views do they disagree and is their mean right')

    def picture(o):
        "What the network saw, as pixels again."
        o = (o*stats_[1] + stats_[0]).clamp(0, 1)*255
        return Image.fromarray(o.permute(1, 2, 0).round().byte().numpy())
    whole = Image.open(files[i]).convert('RGB')
    whole.thumbnail((240, 240))
    w,h = whole.size
    res = dict(made='once, by views() in make.py, and stored: make.py alone does not train',
               network=f'sprintnet_small after {run.epochs} epochs on the drawn sample at 64 px, right on '
                       f'{100*run.accuracy:.0f}% of its validation images',
               label=folder_label(files[i]), index=y[i].item(), classes=list(dls.vocab), seed=seed,
               whole=dict(png=as_png(whole.quantize(128)), width=w, height=h,
                          square=[(w-min(w, h))/2, (h-min(w, h))/2, min(w, h)]),
               views=[dict(png=as_png(picture(o)), probs=[round(v, 7) for v in q.tolist()])
                      for o,q in zip((x0[0], *x), (p0[0], *p))])
    write(HERE/'views.json', json.dumps(res, indent=1, ensure_ascii=False))

def views_data(): return {**json.loads((HERE/'views.json').read_text()), 'beta': default(combine_views, 'beta')}

def views_still(data):
    plain,*rest = (torch.tensor(o['probs'], dtype=torch.float64)[None] for o in data['views'])
    means = combine_views(plain, torch.stack(rest), data['beta'])[0]
    y,answer = data['index'], means.argmax().item()
    fig = plt.figure(figsize=(9, 3.6), layout='constrained')
    left,right = fig.subfigures(1, 2, width_ratios=(1.15, 1))
    axs = left.subplots(2, 3)
    left.suptitle(f"probability of {data['label']}, by view", size=10)
    axs[0,0].imshow(as_image(data['whole']['png']).convert('RGB')); axs[0,0].set_title('the drawing', size=10)
    sx,sy,side = data['whole']['square']
    axs[0,0].add_patch(plt.Rectangle((sx, sy), side-1, side-1, fill=False, ec=ORANGE, lw=2))
    for k,(ax,o) in enumerate(zip(axs.flat[1:], data['views'])):
        ax.imshow(as_image(o['png']))
        ax.set_title(f"{'view ' + str(k) if k else 'middle'}: {o['probs'][y]:.0%}", size=10)
    for ax in axs.flat: ax.axis('off')
    ax = right.subplots()
    bars = [BLUE if k == y else ORANGE if k == answer else GREY for k in range(len(means))]
    ax.barh(data['classes'], means.numpy(), color=bars)
    for k,v in enumerate(means.tolist()): ax.text(v + .01, k, f'{v:.0%}', va='center', size=8.5)
    ax.set(xlim=(0, means.max().item()*1.15)); ax.invert_yaxis(); bare(ax)
    ax.set_title('mean of the middle square and four views', size=10)
    each = ', '.join(f"{o['probs'][y]:.0%}" for o in data['views'][1:])
    said = data['classes'][plain.argmax()]
    return fig, (f"A drawn {data['label']}, its middle square and four random views. The middle square is taken for a "
                 f"{said}; the right class has {plain[0,y]:.0%} there and {each} in the views. On average it has "
                 f"{means[y]:.0%}, and the answer is {data['classes'][answer]}.")

# ---- ladder: the sprint, step by step, as chapter 12 lists it

CHANGES = dict( # what each rung does to the one before it
    baseline='The plain run of chapter 01: xresnet18 at 64 px, 64 images per batch, AdamW, one cycle.',
    network='sprintnet_small in place of xresnet18: 7 convolutions instead of 22.',
    whitening='The first layer is computed from training images, and no longer trained.',
    muon='Muon in place of AdamW for the kernels of the convolutions, with a rate of its own.',
    batch='128 images per batch instead of 64, and a rate of 0.17 instead of 0.12.',
    schedule='The rate rises and falls in straight lines; the momentum stays at 0.6.',
    smoothing='Labels are smoothed by 0.1.',
    crops='Training crops hold at least half of the image\'s area, instead of three quarters.',
    growing='Images grow from 48 to 96 px, instead of 64 px in all epochs.',
    wide='sprintnet in place of sprintnet_small: more maps per layer. Images grow up to 112 px.',
    sprint='Crops hold at least three quarters again. Images grow up to 128 px. This is the recipe.')

def of_chapter(name, file=HERE.parents[1]/'nbs/12_sprint.ipynb'):
    "The value of a table that chapter 12 assigns to `name`: a dict, written out."
    for cell in json.loads(file.read_text())['cells']:
        if cell['cell_type'] != 'code': continue
        for o in ast.parse(''.join(cell['source'])).body:
            if not (isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '') == name): continue
            if isinstance(o.value, ast.Call): return {k.arg: ast.literal_eval(k.value) for k in o.value.keywords}
            return ast.literal_eval(o.value)
    raise LookupError(f'{file.name} assigns nothing to {name}')

def ladder_data():
    table = recorded('sprint')
    def rung(t, name, change):
        t = t.sort_values('seed')
        return dict(name=name, change=change, seeds=t.seed.tolist(), accuracy=(100*t.accuracy).round(6).tolist(),
                    seconds=t.seconds.round(6).tolist())
    five = table[table.epochs == 5]
    rungs = [rung(five[five.kind == k], name, CHANGES[k]) for k,name in of_chapter('names').items()]
    beside = rung(table[table.kind == 'fast'], 'small network, 3 epochs',
                  'Beside the ladder: sprintnet_small for 3 epochs, images of at most 80 px, crops from half the area.')
    most = max(len(o['seeds']) for o in rungs)
    return dict(rungs=rungs, beside=beside, lines=[[k, v] for k,v in of_chapter('others').items()],
                t={n: round(stats.t.ppf(.975, n), 9) for n in range(1, most)})

def ladder_still(data):
    def at(o): return np.mean(o['seconds']), np.mean(o['accuracy'])
    points = [at(o) for o in data['rungs']]
    x,y = zip(*points)
    fig,ax = plt.subplots(figsize=(9, 5), layout='constrained')
    ax.plot(x, y, color='#bbbbbb', zorder=1)
    ax.scatter(x, y, s=45, color=BLUE, zorder=3)
    ax.scatter(*at(data['beside']), s=45, color=GREEN, zorder=3)
    places = {5: (-8, -1, 'right'), 6: (-8, 2, 'right'), 4: (8, -5, 'left'), 10: (-8, 4, 'right'), 11: (-8, 5, 'right')}
    for k,(o,p) in enumerate(zip(data['rungs'], points), 1):
        dx,dy,ha = places.get(k, (8, 0, 'left'))
        ax.annotate(f"{k} {o['name']}", p, (dx, dy), textcoords='offset points', ha=ha, va='center', size=9)
    ax.annotate(data['beside']['name'], at(data['beside']), (0, -12), textcoords='offset points', ha='center',
                va='center', size=9, color=GREEN)
    for acc,name in data['lines']:
        ax.axhline(acc, color=ORANGE, lw=1, ls='--', zorder=0)
        ax.text(.99, acc + .15, name, color=ORANGE, size=9, ha='right', transform=ax.get_yaxis_transform())
    ax.set(xlabel='seconds of one core, training and validation', ylabel='accuracy (%)', xlim=(0, 750),
           title=f'Five epochs of photographs: from {y[0]:.1f}% to {y[-1]:.1f}%, step by step')
    ax.grid(alpha=.3); ax.spines[['top', 'right']].set_visible(False)
    steps = '; '.join(f"{o['name']} {v:.1f}% in {s:.0f} s" for o,(s,v) in zip(data['rungs'], points))
    return fig, f'Accuracy against seconds of one core, eleven rungs joined by a line: {steps}.'

# ---- quiz: one question, so that the page without scripts shows what it is about

def quiz_data(): return None

def quiz_still(_):
    q = smoothed_question(random.Random(7))
    fig,ax = plt.subplots(figsize=(7.5, 2.9), layout='constrained')
    ax.axis('off')
    def block(text): return textwrap.fill(text, 82)
    ax.text(0, .98, 'A question of the quiz', size=12, weight='bold', va='top')
    ax.text(0, .8, block(q.text), size=11, va='top')
    ax.text(0, .47, block('Answer: ' + ', '.join(f'{v:.2f}' for v in q.answer) + '.'), size=11, va='top', color=BLUE)
    ax.text(0, .33, block(q.why), size=11, va='top')
    ax.text(0, 0, 'In Python: from imagenette_course.all import *; quiz()', size=9.5, color='#5a6470',
            family='monospace')
    return fig, f'A question of the quiz, with its answer: {q.text} {q.why}'

# ---- all of them

WIDGETS = {'mixup': (mixup_data, mixup_still), 'smoothing': (smoothing_data, smoothing_still),
           'views': (views_data, views_still), 'ladder': (ladder_data, ladder_still), 'quiz': (quiz_data, quiz_still)}

def bare(ax):
    "Bars with names, and nothing else."
    ax.spines[['top', 'right', 'bottom']].set_visible(False)
    ax.set_xticks([]); ax.tick_params(length=0, labelsize=8.5)

def write(file, text): file.write_text(text.rstrip('\n') + '\n', encoding='utf-8')

def save_still(fig, file):
    "In at most 128 colours: a still is small."
    raw = io.BytesIO()
    fig.savefig(raw, dpi=110, format='png', facecolor='white')
    plt.close(fig)
    Image.open(raw).convert('RGB').quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)

def script(name, data): return f'courseData({json.dumps(name)}, {json.dumps(data, ensure_ascii=False)})'

def main(dest=HERE):
    "Writes each widget's data, still and alternative text into a folder."
    for name,(data,still) in WIDGETS.items():
        made = data()
        if made is not None: write(Path(dest)/f'{name}.data.js', script(name, made))
        with plt.rc_context({'font.size': 10}): fig,alt = still(made)
        save_still(fig, Path(dest)/f'{name}.png')
        write(Path(dest)/f'{name}.txt', alt)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', nargs='?', choices=['views'], help='make views.json anew first')
    if parser.parse_args().what: views()
    main()
