"The site: what its pages are made of, and what a browser says to each of them."
import functools, json, re, shutil, subprocess, sys, threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT/'docs'))
import pages

def cell(source, *outputs, kind='code'): return dict(cell_type=kind, source=source, outputs=list(outputs), metadata={})

# ---- sources

def test_a_link_that_leads_nowhere():
    text = '[a](01_baseline.ipynb#train) [b](https://x.org/c.md) [d](#e)'
    assert pages.relink(text, 'nbs/00_dataset.ipynb') == text
    with pytest.raises(pages.BadSource, match='nbs/00_dataset.ipynb links to 99_gone.ipynb, which does not exist'):
        pages.relink('see [it](99_gone.ipynb)', 'nbs/00_dataset.ipynb')

REPO = 'https://github.com/imagenette-course/imagenette_course'

@pytest.mark.parametrize('page,link,leads', [
    ('nbs/14_does_it_help.ipynb', 'results/README.md', 'record.md'),
    ('nbs/14_does_it_help.ipynb', 'results/cpu.csv', 'tables.md#cpu'),
    ('nbs/00_dataset.ipynb', '../imagenette_course/core.py', 'api/core.md'),
    ('nbs/index.ipynb', '../images/sprint.png', 'images/sprint.webp'),
    ('nbs/index.ipynb', '../LICENSE', f'{REPO}/blob/main/LICENSE'),
    ('nbs/results/README.md', '../../imagenette_course/plans/cpu.toml',
     f'{REPO}/blob/main/imagenette_course/plans/cpu.toml')])
def test_where_links_lead(page, link, leads): assert pages.target(page, link) == leads

@pytest.mark.parametrize('source,line', [
    ('#| export\n@dataclass\nclass Run:\n    x:int', 'class Run'),
    ('#| export\ndef _a(x): pass\n\ndef mixup(\n    x, # y\n): pass', 'def mixup(…)'),
    ('#| export\nSIZES = 3\nNAMES = 4', 'SIZES = 3 …'),
    ('import os\nfrom x import (\n    y,\n)', 'import os …'), ('import os', 'import os')])
def test_collapsed_cells(source, line):
    shown = pages.code_cell(cell(source))
    assert shown['metadata']['tags'] == ['hide-input'] and '#|' not in shown['source']
    assert shown['metadata']['mystnb']['code_prompt_show'] == line

def test_lesson_cells_are_open_and_hidden_ones_are_away():
    assert 'tags' not in pages.code_cell(cell('#| eval: false\nimport os\nx = 3'))['metadata']
    assert pages.code_cell(cell('#| hide\nx = 3')) is None
    assert pages.code_cell(cell('#| default_exp mixup')) is None

def test_what_is_left_of_a_progress_bar_is_not_shown():
    def out(html): return dict(output_type='display_data', data={'text/html': [html]}, metadata={})
    shown = pages.code_cell(cell('x', out(''), out('\n<style>\n progress {}'), out('<table>')))
    assert [o['data']['text/html'] for o in shown['outputs']] == [['<table>']]

def test_widgets(tmp_path, monkeypatch):
    from PIL import Image
    (tmp_path/'docs/widgets').mkdir(parents=True)
    monkeypatch.setattr(pages, 'ROOT', tmp_path)
    with pytest.raises(pages.BadSource, match='no docs/widgets/dial.js'): pages.widgets('a\n\n<!-- widget: dial -->\n')
    (tmp_path/'docs/widgets/dial.js').touch()
    (tmp_path/'docs/widgets/dial.txt').write_text('a "dial"\n')
    Image.new('RGB', (6, 4)).save(tmp_path/'docs/widgets/dial.png')
    assert ('<figure class="widget" data-widget="dial"><img src="_static/widgets/dial.png" alt="a &quot;dial&quot;" '
            'width="6" height="4"></figure>' in pages.widgets('a\n\n<!-- widget: dial -->\n'))
    assert pages.widgets('`<!-- widget: gone -->` in a sentence') == '`<!-- widget: gone -->` in a sentence'

def test_a_downloaded_notebook_installs_the_package():
    nb = pages.download('05_mixup')
    install, text = nb['cells'][0]['source'], json.dumps(nb)
    assert "find_spec('imagenette_course') is None" in install and f'%pip install -q git+{REPO}' in install
    assert 'imagenette_course/06_label_smoothing.html)' in text and '](06_label_smoothing.ipynb)' not in text
    original = json.loads((ROOT/'nbs/05_mixup.ipynb').read_text())
    def code(cells): return [c for c in cells if c['cell_type'] == 'code']
    assert code(nb['cells'][1:]) == code(original['cells'])

def test_functions_come_with_their_comments():
    text,doc = pages.module_page('mixup', pages.MODULES['mixup'])
    assert doc == 'Train on blends of two images, and ask for the blend of their two labels.'
    assert '## mix_pairs\n\n```python\nmix_pairs(x, lam, perm)\n```' in text
    assert '| `t` | `float` | share of `a`, 0..1 |' in text and '| *returns* | `torch.Tensor` | t*a + (1-t)*b |' in text
    options = pages.module_page('options', pages.MODULES['options'])[0]
    assert '| `seed` | `int` | `42` | of weights, batches and augmentation |' in options
    assert '_mix(' not in text

# ---- the built site

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    pytest.importorskip('myst_nb', reason='the site needs the extra "docs"')
    folder = tmp_path_factory.mktemp('site')/'_site'
    proc = subprocess.run([sys.executable, ROOT/'docs/build.py', folder], capture_output=True, text=True)
    assert proc.returncode == 0 and proc.stdout + proc.stderr == '', proc.stdout + proc.stderr
    return folder

@pytest.mark.slow
def test_every_chapter_is_there(site):
    for o in pages.CHAPTERS:
        text = (site/f'{o}.html').read_text()
        assert f'/blob/gh-pages/notebooks/{o}.ipynb"' in text and f'href="notebooks/{o}.ipynb" download' in text, o
        assert not re.search(r'#\|\s*(export|hide|default_exp|eval)', re.sub('<[^>]+>', '', text)), o
        assert (site/f'notebooks/{o}.ipynb').exists()

@pytest.mark.slow
def test_dead_links_are_found(site, tmp_path):
    import build
    assert list(build.dead_links(site)) == []
    links = ''.join(f'<a href="{o}">{o}</a>' for o in ('#x', '#y', 'b.html', 'https://x.org'))
    (tmp_path/'a.html').write_text(f'<p id="x">{links}</p>')
    assert sorted(build.dead_links(tmp_path)) == ['a.html: #y', 'a.html: b.html']

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip('playwright.sync_api', reason='the browser tests need the extra "docs"')
    chromium = shutil.which('chromium')
    if not chromium: pytest.skip('no chromium: apt-get install chromium')
    with playwright.sync_playwright() as p: yield p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])

@pytest.fixture(scope='module')
def url(site):
    server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()

@pytest.fixture
def page(browser, url):
    "A page of a phone's width; `faults` gathers what the console, the network and other hosts have to say."
    page = browser.new_page(viewport=dict(width=390, height=844))
    page.set_default_timeout(300_000) # for a machine that has much else to do
    page.faults = []
    page.on('console', lambda o: o.type == 'error' and page.faults.append(o.text))
    page.on('pageerror', lambda o: page.faults.append(str(o)))
    page.on('request', lambda o: o.url.startswith((url, 'data:')) or page.faults.append(f'asks for {o.url}'))
    page.on('response', lambda o: o.status < 400 or page.faults.append(f'{o.status} {o.url}'))
    yield page
    page.close()

@pytest.mark.slow
def test_every_page_in_a_browser(page, url, site):
    "No error, no missing picture, no other host, and nothing to scroll sideways on a phone."
    found = {}
    for o in sorted(site.rglob('*.html')):
        name = str(o.relative_to(site))
        page.goto(url + name)
        missing = page.evaluate('''async () => {
            const pictures = [...document.images];
            for (const o of pictures) o.loading = 'eager';
            await Promise.allSettled(pictures.map(o => o.decode()));
            return pictures.filter(o => !o.naturalWidth).map(o => o.src); }''')
        width = page.evaluate('document.documentElement.scrollWidth')
        faults = page.faults + [f'no picture {o}' for o in missing] + ([f'{width} px wide'] if width > 390 else [])
        if faults: found[name] = faults
        page.faults.clear()
    assert not found

@pytest.mark.slow
def test_search_finds_the_chapter(page, url):
    page.goto(url + 'search.html?q=mixup')
    page.wait_for_selector('#search-results li')
    assert page.locator('#search-results a[href*="05_mixup.html"]').count() and not page.faults

@pytest.mark.slow
def test_a_table_is_sorted_from_the_keyboard(page, url):
    page.goto(url + 'tables.html')
    head = page.locator('.sortable').first.get_by_role('button', name='accuracy')
    cells = page.locator('.sortable').first.locator('tbody tr td:nth-child(3)')
    def column(): return [float(o) for o in cells.all_inner_texts()]
    before = column()
    head.focus()
    page.keyboard.press('Enter')
    assert column() == sorted(before) != before
    page.keyboard.press('Enter')
    assert column() == sorted(before, reverse=True)
    assert page.locator('.sortable').first.locator('th[aria-sort=descending]').inner_text().startswith('accuracy')

@pytest.mark.slow
def test_a_laptop_shows_100_characters_of_code(page, url):
    page.set_viewport_size(dict(width=1366, height=768))
    page.goto(url + '05_mixup.html')
    shown = page.evaluate('''() => {
        const pre = document.querySelector('div.cell > .cell_input pre'), ruler = document.createElement('span');
        ruler.textContent = '0'.repeat(100); ruler.style.position = 'absolute'; pre.append(ruler);
        const room = pre.clientWidth - parseFloat(getComputedStyle(pre).paddingLeft);
        return room / ruler.getBoundingClientRect().width*100; }''')
    assert shown >= 100

@pytest.mark.slow
def test_a_collapsed_cell_opens(page, url):
    page.goto(url + '05_mixup.html')
    cell = page.locator('details.hide', has_text='def mixup(…)')
    assert not cell.locator('pre').is_visible()
    cell.locator('summary').click()
    assert cell.locator('pre').is_visible() and 'def mixup(' in cell.locator('pre').inner_text()

@pytest.mark.slow
def test_the_first_page_is_light(page, url):
    "Under a megabyte, uncompressed, with all that it loads."
    sizes = []
    page.on('response', lambda o: sizes.append(len(o.body())))
    page.goto(url, wait_until='networkidle')
    assert len(sizes) > 5 and sum(sizes) < 1e6
