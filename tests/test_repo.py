"What holds for the whole tree: exports, notebooks, README, imports, and nothing that must not be committed."
import ast, json, os, re, shutil, subprocess, sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

NBS = sorted((ROOT/'nbs').glob('*.ipynb')) # the last is the index
MODULES = ['core', 'scenes', 'files', 'record', 'data', 'page', 'dataset', 'baseline', 'normalize', 'resize', 'tta', 'mixup', 'smoothing', 'questionnaire', 'mixing', 'techniques', 'further',
           'store', 'loader', 'speed', 'sprint', 'models', 'checkpoint', 'distributed', 'options', 'train', 'predict', 'export', 'study', 'answers'] # a module may import those before it, never one after it
KINDS = [o.stem for o in (ROOT/'imagenette_course/scenes').glob('*.py')] # of scenes
PLAIN = ['core', 'files', 'data', 'page', 'record', 'store', 'loader', 'models', 'distributed', 'options', 'train', 'predict', 'export', 'study', 'answers'] # written by hand; the others are exported from a notebook

def cells(nb, kind): return [''.join(o['source']) for o in json.loads(nb.read_text())['cells'] if o['cell_type'] == kind]
def outputs(nb): return [o for c in json.loads(nb.read_text())['cells'] for o in c.get('outputs', [])]

def test_readme_is_rendered_from_the_index(tmp_path):
    cmd = [sys.executable, '-m', 'nbconvert', '--config', ROOT/'nbs/readme_config.py', '--FilesWriter.build_directory', tmp_path, ROOT/'nbs/index.ipynb']
    subprocess.run(cmd, check=True, capture_output=True)
    assert (tmp_path/'README.md').read_text() == (ROOT/'README.md').read_text(), 'render README.md again, see CONTRIBUTING.md'

def test_links_lead_somewhere():
    "Those of the pages and of the notebooks."
    texts = {ROOT/o: (ROOT/o).read_text() for o in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'nbs/commands.md', 'nbs/plain_pytorch.md', 'nbs/results/README.md')}
    texts |= {o: '\n'.join(cells(o, 'markdown')) for o in NBS}
    links = [(page, l) for page,text in texts.items() for l in re.findall(r'\]\(((?!https?:|#)[^)]+)\)', text)]
    assert len(links) > 100, 'the links were not found'
    assert not [(page.name, l) for page,l in links if not (page.parent/l).exists()]

@pytest.mark.smoke
def test_export_is_in_sync(tmp_path):
    "Exports a copy of the tree and compares the modules; with nbdev 2, which writes the committed ones."
    if not version('nbdev').startswith('2.'): pytest.skip('the committed modules are written by nbdev 2')
    for o in ('settings.ini', 'pyproject.toml', 'setup.py'): shutil.copy(ROOT/o, tmp_path)
    shutil.copytree(ROOT/'nbs', tmp_path/'nbs')
    (tmp_path/'imagenette_course').mkdir()
    for o in ('__init__.py', 'all.py', *(f'{o}.py' for o in PLAIN)): shutil.copy(ROOT/'imagenette_course'/o, tmp_path/'imagenette_course')
    shutil.copytree(ROOT/'imagenette_course/scenes', tmp_path/'imagenette_course/scenes', ignore=shutil.ignore_patterns('__pycache__'))
    env = {k: v for k,v in os.environ.items() if k != 'IN_TEST'} # nbdev exports nothing under test
    subprocess.run([Path(sys.executable).with_name('nbdev_export')], cwd=tmp_path, check=True, capture_output=True, env=env)
    for o in (ROOT/'imagenette_course').glob('*.py'):
        assert (tmp_path/'imagenette_course'/o.name).read_text() == o.read_text(), o.name

def test_notebooks_hold_clean_outputs():
    "Executed, without an error, a warning or a path of somebody's machine."
    for nb in NBS[:-1]:
        assert outputs(nb), f'{nb.stem} was not executed'
        assert not [o for o in outputs(nb) if o['output_type'] == 'error' or o.get('name') == 'stderr'], nb.stem
        assert not re.search(r'Warning|Traceback|/home/|/root/|/tmp/|/Users/|site-packages', json.dumps(outputs(nb))), nb.stem

def test_exported_functions_are_documented():
    "Each public function and class has a docstring, and each parameter a comment on its own line."
    exported = [(nb, source) for nb in NBS for source in cells(nb, 'code') if re.match(r'#\|\s*exporti?\b', source)]
    assert len(exported) > 100, 'the cells were not found'
    plain = [ROOT/f'imagenette_course/{o}.py' for o in PLAIN]
    for nb,source in exported + [(o, o.read_text()) for o in plain]:
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith('_'): continue
            assert ast.get_docstring(node), f'{nb.stem}.{node.name} has no docstring'
            functions = [node] if isinstance(node, ast.FunctionDef) else [o for o in node.body if getattr(o, 'name', '') == '__init__']
            for f in functions:
                for a in [*f.args.args, *f.args.kwonlyargs, *filter(None, [f.args.kwarg])]:
                    assert a.arg == 'self' or '#' in lines[a.lineno-1], f'{nb.stem}.{node.name}: {a.arg} has no comment'

def test_the_program_in_the_readme(tmp_path):
    "As it stands there, in a folder and a process of its own."
    text = (ROOT/'README.md').read_text()
    program = re.search(r'## Use it in your project\n.*?```python\n(.*?)```', text, re.S)[1]
    assert len([o for o in program.splitlines() if o]) <= 10
    proc = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, 'IN_TEST': '1', 'FASTAI_HOME': str(tmp_path)})
    assert proc.returncode == 0 and proc.stderr == '' and 'over five views' in proc.stdout and "'tench': " in proc.stdout, proc.stderr
    assert (tmp_path/'model.safetensors').exists()

@pytest.mark.smoke
def test_imports_follow_the_chapters():
    for i,module in enumerate(MODULES):
        if module == 'scenes': source = ''.join(o.read_text() for o in (ROOT/'imagenette_course/scenes').glob('*.py'))
        else: source = (ROOT/'imagenette_course'/f'{module}.py').read_text()
        source = source.replace(ast.get_docstring(ast.parse(source), clean=False) or '', '') # an example may use what comes later
        tree = ast.walk(ast.parse(source))
        used = {o.module for o in tree if isinstance(o, ast.ImportFrom) and o.level == 1} | set(re.findall(r'imagenette_course\.(\w+)', source))
        used -= {None, 'canvas', *KINDS} if module == 'scenes' else {None}
        assert used <= set(MODULES[:i]), f'{module} imports {used - set(MODULES[:i])}'
        assert module in ('core', 'scenes') or used, f'the imports of {module} were not found'

@pytest.mark.smoke
def test_every_module_is_in_the_list():
    assert {o.stem for o in (ROOT/'imagenette_course').glob('*.py')} - {'__init__', '_modidx', 'all'} == set(MODULES) - {'scenes'}

def test_import_without_gpu_and_network():
    "In a process that sees no GPU and may open no socket; nothing is printed."
    code = ("import socket\ndef no(*a, **k): raise OSError('no network')\nsocket.socket.connect = no\nsocket.create_connection = no\n"
            "from imagenette_course.all import *\nassert callable(get_dls) and callable(fit) and callable(imagenette_train) and not torch.cuda.is_available()")
    proc = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})
    assert proc.returncode == 0 and proc.stdout == proc.stderr == '', proc.stderr

def test_version_is_the_same_everywhere():
    import imagenette_course
    ini = re.search(r'^version = (.+)$', (ROOT/'settings.ini').read_text(), re.M)[1]
    assert imagenette_course.__version__ == ini == version('imagenette_course')
    assert re.search(r'^version: (.+)$', (ROOT/'CITATION.cff').read_text(), re.M)[1] == ini
    assert ini in re.findall(r'^## (.+)$', (ROOT/'CHANGELOG.md').read_text(), re.M)

def test_a_release_needs_the_tag_of_its_version():
    "The first step of the workflow, as the runner would take it; and nothing but publishing may ask for a token."
    flow = yaml.safe_load((ROOT/'.github/workflows/release.yml').read_text())
    build,publish = flow['jobs']['build'],flow['jobs']['publish']
    check = next(o['run'] for o in build['steps'] if o.get('name') == 'The tag is the version')
    ini = re.search(r'^version = (.+)$', (ROOT/'settings.ini').read_text(), re.M)[1]
    def passes(tag): return subprocess.run(['bash', '-ec', check], cwd=ROOT, env={**os.environ, 'GITHUB_REF_NAME': tag}).returncode == 0
    assert passes(f'v{ini}') and not passes(f'v{ini}1') and not passes('v' + ini.replace('.', 'x')) and not passes('v')
    assert publish['needs'] == 'build' and publish['permissions'] == {'id-token': 'write'} and flow['permissions'] == {'contents': 'read'} and 'permissions' not in build
    assert flow[True] == {'push': {'tags': ['v*']}} # YAML reads `on` as true

def test_the_description_has_no_relative_links():
    "What setup.py makes of README.md: elsewhere its links would lead nowhere."
    code = re.search(r'^def readme.*?(?=^\S)', (ROOT/'setup.py').read_text(), re.M | re.S)[0]
    names = dict(re=re, Path=lambda o: ROOT/o, cfg=dict(version='1.2', git_url='https://host/us'))
    exec(code, names)
    text,links = names['readme'](),re.findall(r'\]\(([^)#][^)]*)\)', (ROOT/'README.md').read_text())
    assert len(links) > 20 and not re.search(r'\]\((?!https?:|#)', text)
    assert '(https://host/us/raw/v1.2/images/sprint.png)' in text and '[The commands](https://host/us/blob/v1.2/nbs/commands.md)' in text
    assert re.sub(r'https://host/us/(raw|blob)/v1.2/', '', text) == (ROOT/'README.md').read_text()

def test_nothing_is_tracked_that_must_not_be():
    files = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert files and not [o for o in files if o.endswith(('.lock', '.JPEG', '.safetensors', '.pkl', '.pth')) or o.startswith('runs/')]
    assert not [o for o in files if (ROOT/o).exists() and (ROOT/o).stat().st_size > 1.5e6]

def test_what_all_gives():
    "No name of another meaning, and of fastai's names only those that its docstring says."
    import fastai.vision.all as theirs
    from imagenette_course import all as ours
    mine = {k for k,v in vars(ours).items() if not k.startswith('_') and getattr(v, '__module__', '').startswith('imagenette_course')}
    shadowed = {k for k in mine if hasattr(theirs, k)}
    assert shadowed == {'MixUp', 'CutMix', 'RandomErasing', 'LabelSmoothingCrossEntropy', 'save_model', 'load_model'}
    assert all(f'`{k}`' in ours.__doc__ for k in shadowed)
    assert not mine & {'train', 'rate', 'measure', 'join', 'leave', 'gather', 'chance', 'quote', 'main'}
