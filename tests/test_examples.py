"The examples in the docstrings of the plain modules: each runs as it stands, in a folder of its own."
import doctest, importlib, re

import pytest
from test_repo import PLAIN

def docstring(name): return importlib.import_module(f'imagenette_course.{name}').__doc__

WITH = [o for o in PLAIN if '>>>' in docstring(o)]

@pytest.mark.parametrize('name', WITH)
def test_the_example_of(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(docstring(name), {}, name, None, 0)
    told, runner = [], doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=told.append)
    assert runner.tries == len(test.examples) > 1 and not runner.failures, ''.join(told)

def test_each_command_shows_a_line():
    "And most other modules an example."
    assert set(PLAIN) - set(WITH) == {'page', 'train', 'export'}
    for o in ('train', 'predict', 'study', 'export'): assert re.search(rf'\n    imagenette_{o} \S', docstring(o)), o
