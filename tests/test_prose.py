"Numbers in a chapter's prose: each that has decimals, or is a percentage or points, stands in an output above it, or is known from elsewhere."
import json, re
from pathlib import Path

import pytest

NBS = sorted(Path(__file__).parent.parent.glob('nbs/[01]*.ipynb'))

# What no output of the chapter shows: facts of the book, of papers and of tables elsewhere, sums done in a sentence.
ELSEWHERE = {
}

WRITTEN = re.compile(r'(?<![\w.,/^*–-])[−-]?\d[\d,]*\.\d+|(?<![\w.,/^*–-])[−-]?\d[\d,]*(?=\s?(?:%|points?\b))')

def number(text): return abs(float(text.replace(',', '').replace('−', '-')))

def shown(cell):
    "All numbers of a code cell: of its outputs and of its source."
    texts = [''.join(cell['source'])]
    for o in cell['outputs']: texts += [''.join(o.get('text', '')), *(''.join(v) for k,v in o.get('data', {}).items() if k.startswith('text/'))]
    return [number(o) for t in texts for o in re.findall(r'\d[\d,]*\.?\d*(?:e[-+]?\d+)?', t)]

def unknown(cells, elsewhere=()):
    "Numbers of the prose that no output before them shows, rounded as they are, or as a share. An opening may look ahead."
    res, seen = [], [v for c in cells if c['cell_type'] == 'code' for v in shown(c)]
    for i,c in enumerate(cells):
        if c['cell_type'] == 'code': continue
        body = re.sub(r'\$\$?.*?\$\$?|`[^`]*`|\]\([^)]*\)|<[^>]*>|\barXiv[: ]\S+', ' ', ''.join(c['source']), flags=re.S)
        for text in WRITTEN.findall(body):
            tol = .51*10**-len(text.split('.')[1]) if '.' in text else .51
            if text.lstrip('−-') not in elsewhere and not any(abs(k*x - number(text)) <= tol for x in seen for k in (1, 100)): res.append((i, text))
    return res

@pytest.mark.parametrize('file', NBS, ids=lambda f: f.stem)
def test_numbers_of_the_prose_stand_in_an_output(file):
    assert not unknown(json.loads(file.read_text())['cells'], ELSEWHERE.get(file.stem[:2], ''))

def test_a_number_that_has_changed_is_found():
    def code(text): return dict(cell_type='code', source=['x'], outputs=[dict(text=[text])])
    def words(text): return dict(cell_type='markdown', source=[text])
    assert unknown([code('accuracy 0.8835'), words('It reaches 88.3%, or 88.4 with luck; 5 runs, `0.7`.')]) == [(1, '88.4')]
    assert unknown([code('-1.23'), words('It loses 1.2 points, in 12,000 steps 1,234.5.')]) == [(1, '1,234.5')]
    assert unknown([words('The book has 82.5%.')], ['82.5']) == []
