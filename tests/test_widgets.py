"""The widgets of the site: their numbers beside the package's, their data beside what make.py makes, and a page with
all of them in a browser. Needs Node or, in its place, Playwright with Chromium; the page needs the latter."""
import importlib.util, json, math, random, re, shutil, subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from conftest import ROOT
from imagenette_course.core import BadInput
from imagenette_course.mixup import blend, mixup
from imagenette_course.questionnaire import KINDS, _show, is_right, parse_numbers
from imagenette_course.smoothing import logit_gap, smooth_cross_entropy, smooth_targets
from imagenette_course.tta import combine_views
from scipy import stats

WIDGETS = ROOT/'docs/widgets'
NAMES = ['mixup', 'smoothing', 'views', 'ladder', 'quiz']
CHROMIUM = shutil.which('chromium') or '/usr/bin/chromium'

spec = importlib.util.spec_from_file_location('make_widgets', WIDGETS/'make.py')
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)

def data_of(name, folder=WIDGETS):
    "What a widget loads, as Python reads it."
    text = (folder/f'{name}.data.js').read_text()
    head = f'courseData("{name}", '
    assert text.startswith(head) and text.endswith(')\n')
    return json.loads(text[len(head):-2])

# ---- browsers and Node

@pytest.fixture(scope='module')
def browser():
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    if not Path(CHROMIUM).exists(): pytest.skip('chromium is not installed')
    with sync_api.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield found
        found.close()

# calls functions of numbers.js; what they throw is given back as a string with a mark before it
CALL = """calls => calls.map(([name, ...args]) => {
    const c = globalThis.courseNumbers
    const asked = (seed, n) => { const all = c.questions(seed); return Array.from({length: n}, () => all.next().value) }
    try { return name === 'asked' ? asked(...args) : c[name](...args) }
    catch (e) { if (e instanceof c.BadInput) return `BadInput: ${e.message}`; throw e }
})"""

@pytest.fixture(scope='module')
def js(request):
    "A function that takes calls, lists of a name and arguments, and gives back their results."
    if node := shutil.which('node'):
        code = f'require({json.dumps(str(WIDGETS/"numbers.js"))}); const f = {CALL}\n' \
               'console.log(JSON.stringify(f(JSON.parse(require("fs").readFileSync(0, "utf8")))))'
        def run(calls):
            proc = subprocess.run([node, '-e', code], input=json.dumps(calls), capture_output=True, text=True)
            assert proc.returncode == 0, proc.stderr
            return json.loads(proc.stdout)
        return run
    page = request.getfixturevalue('browser').new_page() # skips with its reason where that is missing, too
    page.add_script_tag(path=WIDGETS/'numbers.js')
    return lambda calls: page.evaluate(CALL, calls)

def close(a, b, tol=1e-6): assert np.allclose(np.array(a, float), np.array(b, float), rtol=0, atol=tol), (a, b)

# ---- the same numbers as in Python

def test_mixup_is_that_of_the_package(js):
    rng, calls, want = random.Random(1), [], []
    for _ in range(60):
        a,b = ([rng.random() for _ in range(12)] for _ in range(2))
        t,n = rng.choice([0, 1, rng.random()]), rng.randint(2, 12)
        i,j = rng.randrange(n), rng.randrange(n)
        calls += [['blend', a, b, t], ['mixedTarget', i, j, t, n]]
        want.append(blend(torch.tensor(a).double(), torch.tensor(b).double(), t).tolist())
        want.append(mixup(torch.zeros(2, 1).double(), torch.tensor([i, j]), t, torch.tensor([1, 0]), n)[1][0].tolist())
    for got,w in zip(js(calls), want, strict=True): close(got, w)

def test_smoothing_is_that_of_the_package(js):
    rng, calls, want = random.Random(2), [], []
    for _ in range(80):
        n,eps,gap = rng.randint(2, 40), rng.choice([.01, .1, .3, rng.uniform(.001, .99)]), rng.uniform(-5, 40)
        z = torch.zeros(1, n, dtype=torch.float64)
        z[0,0] = gap
        z.requires_grad_()
        loss = smooth_cross_entropy(z, torch.tensor([0]), eps)
        [slope] = torch.autograd.grad(loss, z)
        q = smooth_targets(torch.tensor([0]), n, eps)[0]
        calls += [['smoothLoss', gap, eps, n], ['smoothSlope', gap, eps, n], ['confidence', gap, n],
                  ['logitGap', eps, n], ['smoothTarget', eps, n]]
        want += [loss.item(), slope[0,0].item(), z.softmax(1)[0,0].item(), logit_gap(eps, n),
                 dict(right=q[0].item(), other=q[1].item())]
    for got,w in zip(js(calls), want, strict=True):
        if isinstance(w, dict): close([got['right'], got['other']], [w['right'], w['other']])
        else: close(got, w)

def test_the_wall_is_where_the_loss_is_lowest(js):
    [wall,hard] = js([['logitGap', .1, 10], ['smoothLoss', 40, 0, 10]])
    assert wall == pytest.approx(math.log(91)) and hard < 1e-15
    below,at,above = js([['smoothLoss', wall + d, .1, 10] for d in (-.01, 0, .01)])
    assert at < below and at < above

@pytest.mark.parametrize('reduce', ['mean', 'max'])
def test_views_are_combined_as_in_the_package(js, reduce):
    rng, calls, want = np.random.default_rng(3), [], []
    for n in [0, 1, 2, 3, 4]*8:
        p,beta = rng.dirichlet(np.ones(10), n + 1), rng.random()
        calls.append(['combineViews', p[0].tolist(), p[1:].tolist(), beta, reduce])
        want.append(combine_views(torch.tensor(p[:1]), torch.tensor(p[1:,None]), beta, reduce)[0].tolist())
    for got,w in zip(js(calls), want, strict=True): close(got, w)

def test_the_ladder_has_the_means_and_intervals_of_scipy(js):
    data = data_of('ladder')
    [got],before = js([['ladder', data['rungs'], data['t']]]), None
    for rung,o in zip(data['rungs'], got, strict=True):
        acc = dict(zip(rung['seeds'], rung['accuracy'], strict=True))
        close([o['n'], o['accuracy'], o['std'], o['seconds']],
              [len(acc), np.mean(rung['accuracy']), np.std(rung['accuracy'], ddof=1), np.mean(rung['seconds'])])
        if before is None: assert o['gain'] is None and o['half'] is None
        else:
            d = [acc[s] - before[s] for s in acc.keys() & before.keys()]
            low,high = stats.t.interval(.95, len(d) - 1, np.mean(d), stats.sem(d))
            close([o['gain'] - o['half'], o['gain'] + o['half']], [low, high])
        before = acc

def test_the_ladder_is_that_of_chapter_12(js):
    "Its table, as the chapter's output shows it."
    cells = json.loads((ROOT/'nbs/12_sprint.ipynb').read_text())['cells']
    [cell] = [c for c in cells if c['cell_type'] == 'code' and 'ladder.astype' in ''.join(c['source'])]
    table = '\n'.join(''.join(o['data']['text/plain']) for o in cell['outputs'])
    data = data_of('ladder')
    for rung,o in zip(data['rungs'], js([['ladder', data['rungs'], data['t']]])[0], strict=True):
        first,second = re.findall(rf'^{re.escape(rung["name"])} +(.+?) *$', table, re.M)
        shown = [float(v) for v in (first.rstrip('\\ ') + ' ' + second).split()]
        gains = [math.nan if o[k] is None else o[k] for k in ('gain', 'half')]
        want = [o['n'], o['accuracy'], o['std'], *gains, o['seconds']]
        assert np.allclose(shown[:6], want, rtol=0, atol=.0501, equal_nan=True), (rung['name'], shown, want)

def asked(seed, n):
    "The first questions of quiz(seed=seed), drawn as `quiz` draws them."
    rng, kinds, res = random.Random(seed), [], []
    while len(res) < n:
        kinds = kinds or rng.sample(KINDS, len(KINDS))
        res.append(kinds.pop(0)(rng))
    return res

def test_the_quiz_asks_what_python_asks(js):
    "The same words, answers and explanations, from the same seed."
    rng = random.Random(4)
    seeds = [0, 1, 2**32 - 1, *(rng.randrange(2**32) for _ in range(80))]
    for seed,got in zip(seeds, js([['asked', s, 25] for s in seeds]), strict=True):
        for g,q in zip(got, asked(seed, 25), strict=True):
            assert (g['text'], g['why'], tuple(g['answer'])) == (q.text, q.why, q.answer), seed
            assert g['tol'] == pytest.approx(q.tol, abs=1e-9)

def test_asked_is_the_order_of_the_quiz(capsys):
    "So that the test above compares with the quiz itself."
    from imagenette_course.questionnaire import quiz
    quiz(7, ask=lambda _: '', seed=11)
    shown = ' '.join(capsys.readouterr().out.split())
    places = [shown.find(q.text) for q in asked(11, 7)]
    assert min(places) > 0 and places == sorted(places)

REPLIES = ['0.02, 0.92', '[.02 .92]', '1/50 23/25', '87%', '3.5e6', '3,500,000', '120 s', '2 epochs', '1 / 4', '50 %',
           'tensor([0.1, 0.9])', '', 'many', "it's", '1/0', '1e999', '1,2,3', '0.1.2', '-3', '+.5', '5.', '1e-3 2E4',
           '12,34', 'seconds',
           "a\\b", 'x'*40, '7 px', '1;2', '(1)', '"\'']

def test_replies_are_read_as_in_python(js):
    rng = random.Random(5)
    words = ['0.5', '.25', '1/3', '20%', '4e2', '3,500', '7', '-1', 'x', '1/0', ',', ';', '[', ')', ' ', ' / ', ' %',
             ' s', 'px']
    replies = REPLIES + [''.join(rng.choices(words, k=rng.randint(1, 5))) for _ in range(400)]
    cases = [(t, n) for t in replies for n in (1, 2)]
    for (text,n),got in zip(cases, js([['parseNumbers', *c] for c in cases]), strict=True):
        try: want = parse_numbers(text, n)
        except BadInput as e: assert got == f'BadInput: {e}', text
        else: assert not isinstance(got, str), (text, got); close(got, want, 1e-9)

def test_right_and_wrong_are_those_of_the_package(js):
    rng, calls, want = random.Random(6), [], []
    for q in [q for s in range(40) for q in asked(s, 5)]:
        values = [v + rng.choice([0, .5, .99, 1.01, 2])*q.tol*rng.choice([-1, 1]) for v in q.answer]
        for v in (values, values[1:]):
            calls.append(['isRight', dict(answer=q.answer, tol=q.tol), v])
            want.append(is_right(q, v))
    assert js(calls) == want and set(want) == {True, False}

def test_numbers_are_written_as_in_python(js):
    rng = random.Random(7)
    values = [.03125, .09375, .5, 1.25, 2.75, 0., 366592., 12345.678, *(k/32 for k in range(64))]
    values += [rng.uniform(0, 1e5) for _ in range(100)]
    assert js([['show', [v]] for v in values]) == [_show([v]) for v in values]
    assert js([['fixed', v, 1] for v in values]) == [f'{v:.1f}' for v in values]

# ---- data, stills and alternative texts

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('widgets')
    make.main(folder)
    return folder

def pixels(address): return np.array(make.as_image(address).convert('RGB'), float)

def same(a, b):
    "Equal, numbers up to rounding and pictures up to what another Pillow draws otherwise."
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list): return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, str) and a.startswith('data:image'): return abs(pixels(a) - pixels(b)).mean() < 1
    return a == b or (isinstance(a, float) and math.isclose(a, b, abs_tol=1e-6))

@pytest.mark.parametrize('name', NAMES)
def test_make_makes_what_is_there(made, name):
    committed = {o.name for o in WIDGETS.iterdir() if re.search(r'\.(data\.js|png|txt)$', o.name)}
    assert {o.name for o in made.iterdir()} == committed
    if name != 'quiz': assert same(data_of(name), data_of(name, made)), 'run docs/widgets/make.py'
    assert (WIDGETS/f'{name}.txt').read_text() == (made/f'{name}.txt').read_text(), 'run docs/widgets/make.py'
    old,new = (np.array(Image.open(o/f'{name}.png').convert('RGB'), float) for o in (WIDGETS, made))
    assert old.shape == new.shape and abs(old - new).mean() < 4, 'run docs/widgets/make.py'

def test_stills_are_small_and_described():
    for name in NAMES:
        assert (WIDGETS/f'{name}.png').stat().st_size < 60_000, name
        [alt] = (WIDGETS/f'{name}.txt').read_text().splitlines()
        assert 60 < len(alt) < 1000 and '"' not in alt, name

def test_no_file_is_large_and_none_asks_for_another_host():
    for o in WIDGETS.iterdir():
        assert o.is_dir() or o.stat().st_size < 150_000, o.name
        if o.suffix in ('.js', '.css'):
            assert not re.search(r'https?://(?!www\.w3\.org/2000/svg)', o.read_text()), o.name

def test_the_stored_views_are_probabilities():
    data = data_of('views')
    assert [len(o['probs']) for o in data['views']] == [10]*5
    for o in data['views']: assert sum(o['probs']) == pytest.approx(1, abs=1e-5) and min(o['probs']) >= 0
    plain,*rest = (torch.tensor(o['probs'])[None] for o in data['views'])
    assert plain.argmax() != data['index'] == combine_views(plain, torch.stack(rest)).argmax() # what the widget tells

# ---- a page in a browser

def alt_of(name): return (WIDGETS/f'{name}.txt').read_text().strip()

class Site:
    "A bare page with the five figures, opened in a browser, and what its console said."
    def __init__(self, browser, folder, width=1100, scheme=None, scripts=True):
        self.errors, self.asked = [], []
        self.page = browser.new_page(viewport=dict(width=width, height=900), java_script_enabled=scripts)
        self.page.set_default_timeout(120_000) # of a busy machine
        self.page.on('console', lambda m: m.type in ('error', 'warning') and self.errors.append(m.text))
        self.page.on('pageerror', lambda e: self.errors.append(str(e)))
        self.page.on('request', lambda r: self.asked.append(r.url))
        file = folder/f'{scheme or "light"}.html'
        images = {o: f'<img src="widgets/{o}.png" alt="{alt_of(o)}">' for o in NAMES}
        figures = ''.join(f'<figure class="widget" data-widget="{o}">{v}</figure>' for o,v in images.items())
        scripts = ''.join(f'<script src="widgets/{o}.js"></script>' for o in ('ui', *NAMES))
        back,ink = ('#14181e', '#e6e9ed') if scheme == 'dark' else ('#fff', '#222')
        file.write_text(f'<!doctype html><html lang="en" data-theme="{scheme or "light"}"><meta charset="utf-8">'
                        '<meta name="viewport" content="width=device-width"><title>widgets</title>'
                        '<link rel="stylesheet" href="widgets/widgets.css"><link rel="icon" href="data:,">'
                        f'{scripts}<body style="margin: 0 auto; max-width: 800px; padding: 16px; '
                        f'font-family: sans-serif; background: {back}; color: {ink}">{figures}', encoding='utf-8')
        self.page.goto(file.as_uri())
    def ready(self):
        for o in NAMES: self.page.wait_for_selector(f'figure[data-widget={o}][data-ready]')
        return self
    def figure(self, name): return self.page.locator(f'figure[data-widget={name}]')
    def bars(self, name): return self.figure(name).locator('.w-bars .w-number').all_text_contents()
    def said(self, name): return self.figure(name).locator('output').text_content()

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "A copy of the widgets, as a built site has them."
    folder = tmp_path_factory.mktemp('site')
    shutil.copytree(WIDGETS, folder/'widgets', ignore=shutil.ignore_patterns('__pycache__', 'make.py'))
    return folder

@pytest.fixture
def opened(browser, site):
    o = Site(browser, site).ready()
    yield o
    o.page.close()
    assert not o.errors
    assert all(url.startswith(('file:', 'data:')) for url in o.asked), 'no network'

def press(slider, *keys):
    slider.focus()
    for k in keys: slider.press(k)

def test_mixup_by_keyboard(opened):
    data, slider = data_of('mixup'), opened.figure('mixup').get_by_role('slider')
    y = torch.tensor([data[k]['index'] for k in ('first', 'second')])
    church,pump = (torch.tensor(pixels(data[k]['png'])) for k in ('first', 'second'))
    for keys,lam in (((), .3), (('ArrowRight',), .31), (('Home',), 0), (('End',), 1), (('ArrowLeft',)*2, .98)):
        press(slider, *keys)
        want = mixup(torch.zeros(2, 1).double(), y, lam, torch.tensor([1, 0]), 10)[1][0]
        assert opened.bars('mixup') == [f'{v:.2f}' for v in want.tolist()]
        assert f'{lam:.2f} · church + {1 - lam:.2f} · gas pump' in opened.said('mixup')
        got = np.array(make.as_image(opened.figure('mixup').locator('canvas').evaluate('o => o.toDataURL()')), float)
        assert got.shape == (160, 160, 4) and (got[...,3] == 255).all()
        assert abs(got[...,:3] - blend(church, pump, lam).numpy()).max() <= .51

def test_smoothing_by_keyboard(opened):
    figure = opened.figure('smoothing')
    eps,gap = (figure.get_by_role('slider', name=o) for o in ('ε', 'gap'))
    def facts(): return dict(zip(figure.locator('dt').all_text_contents(), figure.locator('dd').all_text_contents()))
    def now(): return facts()['loss here'], facts()['gradient of the right logit']
    def want(e, g):
        z = torch.zeros(1, 10, dtype=torch.float64)
        z[0,0] = g
        z.requires_grad_()
        loss = smooth_cross_entropy(z, torch.tensor([0]), e)
        [slope] = torch.autograd.grad(loss, z)
        return f'{loss.item():.3f}', f'{slope[0,0].item():+.3f}'.replace('-', '−')
    assert facts()['wall'] == 'ln 91 = 4.51' and 'narrows' in opened.said('smoothing')
    assert now() == want(.1, 6)
    press(gap, *['ArrowLeft']*20)
    assert now() == want(.1, 4) and 'widens' in opened.said('smoothing')
    press(eps, *['ArrowRight']*10)
    assert now() == want(.2, 4)
    assert facts()['wall'].endswith(f'{logit_gap(.2, 10):.2f}')
    press(eps, 'Home')
    assert facts()['wall'] == 'none' and facts()['loss here'] == want(0, 4)[0]
    assert figure.locator('svg').get_attribute('aria-label').startswith('Loss over the gap. Gap 4.0, ε 0.00')

def test_views_by_keyboard(opened):
    data, figure = data_of('views'), opened.figure('views')
    p = torch.tensor([o['probs'] for o in data['views']], dtype=torch.float64)
    boxes = figure.get_by_role('checkbox')
    assert boxes.count() == 4
    def want(on, reduce): return combine_views(p[:1], p[1:][on][:,None], data['beta'], reduce)[0]
    def check(on, reduce='mean'):
        values = want(on, reduce)
        assert opened.bars('views') == [f'{100*v:.1f}%' for v in values.tolist()]
        assert data['classes'][values.argmax()] in opened.said('views')
        assert ('Right.' in opened.said('views')) == (values.argmax().item() == data['index'])
    check([])
    assert 'Wrong' in opened.said('views')
    for k in range(4): press(boxes.nth(k), 'Space'); check([*range(k + 1)])
    assert 'Right.' in opened.said('views')
    press(figure.get_by_role('radio', name='mean'), 'ArrowDown')
    check([0, 1, 2, 3], 'max')
    press(boxes.nth(0), 'Space')
    check([1, 2, 3], 'max')
    assert f'add up to {want([1, 2, 3], "max").sum().item():.2f}' in opened.said('views')

def test_ladder_by_keyboard(opened):
    data, figure = data_of('ladder'), opened.figure('ladder')
    rungs = [*data['rungs'], data['beside']]
    slider = figure.get_by_role('slider')
    nxt,back = (figure.get_by_role('button', name=o) for o in ('Next step', 'Back'))
    def check(k):
        o = rungs[k - 1]
        said, mean = opened.said('ladder'), f"{np.mean(o['accuracy']):.1f}%, the mean of {len(o['seeds'])} seeds"
        assert all(part in said for part in (o['name'], o['change'], mean, f"{np.mean(o['seconds']):.0f} s")), said
        assert figure.locator('.w-rungs .w-name').all_text_contents() == [r['name'] for r in rungs[:k]]
        assert figure.locator('circle').count() == k
    check(1)
    assert back.is_disabled()
    nxt.focus(); nxt.press('Enter'); check(2)
    press(slider, 'ArrowRight'); check(3)
    press(slider, 'End'); check(12)
    assert nxt.is_disabled()
    press(slider, 'ArrowLeft'); check(11)
    back.press('Enter'); check(10)
    press(slider, 'Home'); check(1)

def test_quiz_right_wrong_and_unread(opened):
    figure = opened.figure('quiz')
    seed = int(re.search(r'seed=(\d+)', figure.locator('code').text_content())[1])
    answer, check = figure.get_by_role('textbox'), figure.get_by_role('button', name='Check')
    def reply(values): return ' '.join(f'{v:.4f}' for v in values)
    a,b,c,d,*_ = asked(seed, 5)
    assert figure.locator('.w-question').text_content() == a.text
    answer.fill('many'); answer.press('Enter')
    assert "'many' is not a number" in opened.said('quiz') and not check.is_disabled()
    answer.fill(''); check.press('Enter')
    assert 'Type an answer' in opened.said('quiz')
    answer.fill(reply(a.answer)); answer.press('Enter')
    assert opened.said('quiz') == f'Right. {a.why}' and figure.locator('.w-score').text_content() == '1 of 1 right'
    opened.page.keyboard.press('Enter') # the focus is on the next question
    assert figure.locator('.w-question').text_content() == b.text
    assert answer.evaluate('o => o === document.activeElement')
    opened.page.keyboard.type(reply([v + 3*b.tol + 1 for v in b.answer])); opened.page.keyboard.press('Enter')
    assert opened.said('quiz') == f'No, it is {_show(b.answer)}. {b.why}'
    assert figure.locator('.w-score').text_content() == '1 of 2 right'
    opened.page.keyboard.press('Enter')
    figure.get_by_role('button', name='Show the answer').press('Enter')
    assert opened.said('quiz') == f'The answer is {_show(c.answer)}. {c.why}'
    assert check.is_disabled()
    opened.page.keyboard.press('Enter')
    assert figure.locator('.w-question').text_content() == d.text and opened.said('quiz') == ''

def test_every_control_has_a_name_and_room_to_touch(browser, site):
    o = Site(browser, site, width=390).ready()
    found = o.page.evaluate("""() => [...document.querySelectorAll('input, button, summary')].map(c => {
        const box = (c.matches('[type=checkbox],[type=radio]') ? c.closest('label') : c).getBoundingClientRect()
        const name = [...(c.labels ?? [])].map(l => l.textContent.trim()).join('') || c.textContent.trim()
        return {name, w: box.width, h: box.height}})""")
    assert len(found) > 15
    assert not [c for c in found if not c['name'] or c['h'] < 43.9 or c['w'] < 44], found
    live = o.page.evaluate("() => [...document.querySelectorAll('output')].map(c => c.getAttribute('aria-live'))")
    assert live == ['polite']*len(NAMES)
    o.page.close()

@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_nothing_scrolls_sideways_and_text_can_be_read(browser, site, scheme):
    o = Site(browser, site, scheme=scheme).ready()
    press(o.figure('ladder').get_by_role('slider'), 'End')
    o.figure('views').get_by_text('All probabilities').click()
    for width in (1100, 600, 390):
        o.page.set_viewport_size(dict(width=width, height=900))
        assert o.page.evaluate('document.documentElement.scrollWidth') <= width
        found = o.page.evaluate(CONTRAST)
        assert found['count'] > 150 and not found['low'], found
    assert not o.errors
    o.page.close()

# texts whose colour is too near to what is behind them: less than 4.5 to 1
CONTRAST = """() => {
    const rgb = text => text.match(/[\\d.]+/g).map(Number)
    const linear = v => v <= .03928 ? v/12.92 : ((v + .055)/1.055)**2.4
    const light = ([r, g, b]) => .2126*linear(r/255) + .7152*linear(g/255) + .0722*linear(b/255)
    const behind = o => {
        for (; o; o = o.parentElement) {
            const c = rgb(getComputedStyle(o).backgroundColor)
            if (c.length === 3 || c[3] === 1) return c
        }
        return [255, 255, 255]
    }
    const low = []
    let count = 0
    for (const o of document.querySelectorAll('figure *')) {
        const text = [...o.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())
        if (!text || o.matches(':disabled') || !o.checkVisibility()) continue
        const style = getComputedStyle(o), a = light(rgb(o.namespaceURI.endsWith('svg') ? style.fill : style.color))
        const b = light(behind(o)), ratio = (Math.max(a, b) + .05)/(Math.min(a, b) + .05)
        count++
        if (ratio < 4.5) low.push(`${o.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`)
    }
    return {count, low}
}"""

def test_without_scripts_the_stills_are_there(browser, site):
    o = Site(browser, site, width=390, scripts=False)
    for name in NAMES:
        image = o.figure(name).get_by_role('img')
        box = image.bounding_box()
        assert box['width'] > 200 and box['height'] > 80 and box['x'] + box['width'] <= 390
        assert image.get_attribute('alt') == alt_of(name)
    assert o.page.locator('.w-body').count() == 0
    o.page.close()

def test_with_a_file_missing_the_still_stays(browser, site, tmp_path):
    shutil.copytree(site/'widgets', tmp_path/'widgets')
    (tmp_path/'widgets/mixup.data.js').unlink()
    o = Site(browser, tmp_path)
    o.page.wait_for_selector('figure[data-widget=quiz][data-ready]')
    assert o.figure('mixup').get_by_role('img').is_visible() and any('mixup.data.js' in e for e in o.errors)
    o.page.close()
