"The page of predictions: what is on it, what its names can't do, and that it needs nothing else."
import base64, io, re
from functools import partial
from html.parser import HTMLParser

import pytest
from PIL import Image

from imagenette_course import predict
from imagenette_course.core import BadInput
from imagenette_course.page import check_page, predictions_page, thumbnail
from test_predict import NAMES, odd_names, scene, write_model

class Page(HTMLParser):
    "The elements of a page with their attributes, and its text by the element that it is in."
    def __init__(self, text):
        super().__init__()
        self.tags, self.attrs, self.texts, self.open = [], [], [], []
        self.feed(text)
    def handle_starttag(self, tag, attrs): self.tags.append(tag); self.attrs += attrs; self.open.append(tag)
    def handle_data(self, data):
        if data.strip(): self.texts.append((self.open[-1], data))
    def of(self, tag): return [text for t,text in self.texts if t == tag]

def row(file, probs, fault=None): return dict(file=str(file), probabilities=probs, fault=fault)

@pytest.mark.smoke
def test_what_is_on_it(tmp_path):
    "Each picture, small, beside its three best names; and what could not be read."
    for i,(w,h) in enumerate([(600, 300), (50, 80)]): scene(h, w, seed=i).save(tmp_path/f'{i}.png')
    probs = [dict(church=.9, tench=.06, parachute=.03, golf=.01), dict(cat=1.)]
    text = predictions_page([row(tmp_path/'0.png', probs[0]), row('x.jpg', None, 'empty'), row(tmp_path/'1.png', probs[1])])
    page = Page(text)
    assert page.of('span') == ['church', '90.0%', 'tench', '6.0%', 'parachute', '3.0%', 'cat', '100.0%']
    assert page.of('small') == [f'{tmp_path}/0.png', f'{tmp_path}/1.png'] and page.of('h1') == page.of('title') == ['2 pictures'] and page.of('li') == ['x.jpg: empty\n']
    pictures = [base64.b64decode(v.removeprefix('data:image/jpeg;base64,')) for k,v in page.attrs if k == 'src']
    sizes = [Image.open(io.BytesIO(o)).size for o in pictures]
    assert sizes == [(224, 112), (50, 80)] and pictures[1] == thumbnail(tmp_path/'1.png')
    want = scene(80, 50, seed=1).convert('RGB').getpixel((25, 40))
    assert all(abs(a-b) < 16 for a,b in zip(Image.open(io.BytesIO(pictures[1])).getpixel((25, 40)), want)) # the picture it should be
    assert not re.search('https?:|@import|<script|<link|url\\(', text) and [k for k,_ in page.attrs if k in ('src', 'href')] == ['src']*2
    assert ('name', 'viewport') in page.attrs and 'Could not' not in predictions_page([row(tmp_path/'0.png', probs[0])])

def test_names_are_words_and_nothing_more(odd_names):
    evil = '<img src=x onerror="alert(1)">&amp;.png'
    scene().save(odd_names/evil)
    names = [*NAMES, evil]
    rows = [row(odd_names/o, {'<b>': .5, "'\"&": .5}) for o in names] + [row(f'{odd_names}/<i>', None, '<u>')]
    text = predictions_page(rows)
    page = Page(text)
    assert set(page.tags) <= {'html', 'meta', 'title', 'style', 'h1', 'h2', 'p', 'main', 'figure', 'img', 'figcaption', 'small', 'ol', 'ul', 'li', 'span'}
    assert page.tags.count('img') == len(names) and page.of('span').count('<b>') == page.of('span').count("'\"&") == len(names)
    shown = page.of('small')
    assert shown[-1] == f'{odd_names}/{evil}' and shown[0] == f'{odd_names}/line\\nbreak.png' and all(o.isprintable() for o in shown)
    text.encode() # also of names that are no UTF-8

@pytest.mark.parametrize('name,words', [('a.jpg', 'the name must end in .html'), ('', 'must end'), ('no/page.html', 'there is no folder')])
def test_files_that_are_no_pages(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((BadInput, FileNotFoundError), match=words): check_page(name)

def test_a_picture_that_has_gone(tmp_path):
    with pytest.raises(FileNotFoundError, match='gone.png'): predictions_page([row(tmp_path/'gone.png', dict(a=1.))])

# ---- the command

def test_the_command(tmp_path, in_process):
    "Beside the table and beside JSON; a picture is never replaced, and without an answer there is no page."
    model = write_model(tmp_path/'m.safetensors')
    for i in range(2): scene(seed=i).save(tmp_path/f'{i}.png')
    run = partial(in_process, 'imagenette_predict', predict.main, model)
    a,b,page = tmp_path/'0.png', tmp_path/'1.png', tmp_path/'page.html'
    plain,json = run(a, b), run(a, b, '--json')
    assert plain[0] == 0 and not page.exists() and run(a, b, '--html', page) == plain
    first = page.read_text()
    assert Page(first).of('small') == [str(a), str(b)]
    best = [line.split()[1:] for line in plain[1].splitlines()[1:]]
    shown = [o.removesuffix('%') for o in Page(first).of('span')]
    assert ' '.join(shown) == ' '.join(' '.join(o) for o in best) # as in the table
    page.unlink()
    assert run(a, b, '--json', '--html', page) == json and page.read_text() == first
    before = a.read_bytes()
    status,out,err = run('--html', a, b)
    assert status == 2 and out == '' and 'the name must end in .html' in err[0] and a.read_bytes() == before
    page.unlink()
    assert run('gone.png', '--html', page)[0] == 2 and not page.exists()
    (tmp_path/'text.png').write_text('no')
    assert run(a, tmp_path/'text.png', '--html', page)[0] == 1 and 'text.png: not an image' in page.read_text()
