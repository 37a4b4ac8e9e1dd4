"What all tests share: a small drawn sample, the real photographs if there are any, and CUDA if there is one."
import os, subprocess, sys, tempfile
from pathlib import Path

os.environ['IN_TEST'] = '1' # as under nbdev_test: the sample is the default, and no progress bar is drawn
os.environ.pop('IMAGENETTE', None)
if 'PYTEST_XDIST_WORKER' in os.environ: os.environ.setdefault('OMP_NUM_THREADS', '1') # tests side by side wait for one another's threads

import pytest
import torch
from imagenette_course import store
from imagenette_course.dataset import make_sample

ROOT = Path(__file__).parent.parent
PROGRAM = Path(sys.executable).with_name('imagenette_train') # the installed command

def pytest_collection_modifyitems(items):
    for o in items:
        if 'gpu' in o.keywords and not torch.cuda.is_available(): o.add_marker(pytest.mark.skip(reason='no CUDA device'))
        if 'real' in o.keywords and not os.getenv('IMAGENETTE_REAL'):
            o.add_marker(pytest.mark.skip(reason='IMAGENETTE_REAL names no folder of photographs'))

@pytest.fixture(scope='session')
def sample(): return make_sample()

@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    "A sample of 4 training and 2 validation images a class; never changed by a test."
    return make_sample(tmp_path_factory.mktemp('data')/'tiny', 4, 2, seed=1)

@pytest.fixture
def own(tmp_path):
    "A tiny sample that a test may damage."
    return make_sample(tmp_path/'own', 3, 1, seed=2)

@pytest.fixture(scope='session')
def photos(): return Path(os.environ['IMAGENETTE_REAL'])

@pytest.fixture
def in_process(monkeypatch, capsys):
    "A command in this process: (exit status, standard output, lines of the standard error)."
    def f(name, main, *args):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        try: main(); status = 0
        except SystemExit as e: status = e.code
        out,err = capsys.readouterr()
        return status, out, err.splitlines()
    return f

@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path_factory):
    "Stores of decoded images that tests make lie in a folder of the tests."
    folder = tmp_path_factory.getbasetemp()/'stores'
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(store, 'fastai_path', lambda _: folder)
    return folder

def command(*args, env=None, **kwargs):
    "Runs `imagenette_train` as a user would, with a fastai folder of its own, and gives back the finished process."
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=600,
                              env={**os.environ, 'FASTAI_HOME': home, **(env or {})}, **kwargs)
