"Numbers in a chapter's prose: each that has decimals, or is a percentage or points, stands in an output above it, or is known from elsewhere."
import json, re
from pathlib import Path

import pytest

NBS = sorted(Path(__file__).parent.parent.glob('nbs/[01]*.ipynb'))

# What no output of the chapter shows: facts of the book, of papers and of tables elsewhere, sums done in a sentence.
ELSEWHERE = {
    '00': '65.7 71'.split(), # sizes of ImageNet; a share and an accuracy that are seen in a figure or the next chapter
    '01': '0.18 0.7 4.3 40.2 60.2 66.4 76.5 77.8 82.4 89'.split(), # the book's epochs; differences of what is printed; chapter 12; a figure
    '02': '0.034 1.4 2.12 2.25 2.98 4.3 15.3 23.3 39.1 40.2 51.7 60.2 65.7 66.0 66.4 77.2 77.8 82.4 82.5 85.0'.split(), # the book's epochs; differences; figures; an exercise
    '03': '3.8 4.7 6.7 13.3 23 26.4 65.4 74.1 82.5'.split(), # the book's and the leaderboard's accuracies; a figure; an exercise
    '04': '0.05 0.357 0.643 0.95 21 86.3 87.4 99'.split(), # the book's accuracies; figures; an exercise
    '05': '0.26 3.1 3.6 6.1 43 51 57'.split(), # sections of the paper; differences and figures
    '06': '0.25 0.278 5.8 6.7 9.105 24.6'.split(), # sections of papers; figures; an exercise
    '07': '0.0111 0.1875 0.28 0.64 1.28 99.9'.split(), # ImageNet; shares worked out in answers
    '08': '1.7 3.1 3.2 5.7 22.8 23.1 95 1710.09412 1806.05236 1905.04899 2009.06962 2012.11101'.split(), # papers; an interval of what is printed
    '09': '0.24 51 51.2 51.8 60.2 62.3'.split(), # papers
    '10': '0.4 0.87 15 35'.split(), # a paper; titles of figures
    '11': '0.009 0.99 0.999 3.29 3.7 17.7 94'.split(), # sums of what is printed; a paper
    '12': '0.0042 0.35 0.67 0.68 1.8 3.29 5.1 83.4 83.5 91.49 91.57 94'.split(), # papers; the leaderboard; differences; runs outside the record
    '14': '0.44 85'.split(), # a figure; an exercise
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
    assert unknown([code('accuracy 0.8829'), words('It reaches 88.3%, or 88.4 with luck; 5 runs, `0.7`.')]) == [(1, '88.4')]
    assert unknown([code('-1.23'), words('It loses 1.2 points, in 12,000 steps 1,234.5.')]) == [(1, '1,234.5')]
    assert unknown([words('The book has 82.5%.')], ['82.5']) == []
