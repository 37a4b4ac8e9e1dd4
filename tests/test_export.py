"Models as ONNX files: onnxruntime answers as PyTorch does, and nothing is written of what can't be exported."
import json, re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from PIL import Image
from safetensors.torch import save_file

from conftest import ROOT
from imagenette_course import export
from imagenette_course.core import BadInput
from imagenette_course.models import Classifier, load_model, named_network
from imagenette_course.export import export_onnx

SIZES = dict(sprintnet=48, xresnet18=40) # 40 px are halved to 5, and to 3 by a pooling that rounds up

def network(arch):
    "A fresh network whose batch normalization has something to do, and whose answers are not all alike."
    torch.manual_seed(0)
    net = named_network(arch)(n_out=4)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d): m.running_mean.normal_(0, .1); m.running_var.uniform_(.5, 2)
    *_,head = (m for m in net.modules() if isinstance(m, nn.Linear))
    nn.init.normal_(head.weight, std=.5)
    return net

def write_model(path, arch):
    facts = dict(arch=arch, classes=['a b', 'ü', 'c', 'd'], size=SIZES[arch], presize=2*SIZES[arch], mean=[.5, .4, .3], std=[.3, .2, .1], accuracy=.5)
    save_file({k: v.contiguous() for k,v in network(arch).state_dict().items()}, path, metadata={'imagenette_course': json.dumps(facts)})
    return path

@pytest.fixture
def run(in_process): return partial(in_process, 'imagenette_export', export.main)

@pytest.fixture
def onnx():
    for o in ('onnx', 'onnxscript'): pytest.importorskip(o)
    return pytest.importorskip('onnxruntime')

# ---- what is written

@pytest.mark.parametrize('arch', SIZES)
def test_onnxruntime_answers_as_the_model_does(onnx, run, tmp_path, arch):
    "By the command, for one image and for several; the names and sizes are in the file, and no path of this machine."
    model, size = write_model(tmp_path/'m.safetensors', arch), SIZES[arch]
    status,out,err = run(model)
    assert (status, err) == (0, []) and out == f'{tmp_path}/m.onnx: images (n, 3, {size}, {size}) in 0..1 go in, probabilities (n, 4) come out\n'
    assert {o.name for o in tmp_path.iterdir()} == {'m.safetensors', 'm.onnx'} # no weights beside it
    data = (tmp_path/'m.onnx').read_bytes()
    assert b'site-packages' not in data and b'/export.py' not in data
    session = onnx.InferenceSession(data, providers=['CPUExecutionProvider'])
    known = {k: json.loads(v) for k,v in session.get_modelmeta().custom_metadata_map.items()}
    assert known == dict(classes=['a b', 'ü', 'c', 'd'], size=size, presize=2*size, arch=arch, accuracy=.5)
    clf = load_model(model)
    clf.presize = size # images of this size are not resized
    for n in (1, 2, 7):
        x = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
        x[:, :, n:] //= n # so that they are not all alike
        got = session.run(None, {'images': (x/255).numpy()})[0]
        want = np.array([[o[name] for name in clf.classes] for o in clf(x)])
        assert got.shape == (n, 4) and got.dtype == np.float32 and want.std(1).min() > .01
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)

def test_the_model_stays_as_it_was(onnx, tmp_path, monkeypatch):
    "In half precision, too; an older file is replaced."
    clf = Classifier(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), ['a', 'b'], 8, 8, [.5]*3, [.2]*3).half()
    before = {k: v.clone() for k,v in clf.state_dict().items()}
    (tmp_path/'m.onnx').write_text('old')
    monkeypatch.chdir(tmp_path)
    export_onnx(clf, 'm.onnx')
    assert all(v.dtype == torch.half and torch.equal(v, before[k]) for k,v in clf.state_dict().items())
    assert {k: json.loads(v) for k,v in onnx.InferenceSession('m.onnx').get_modelmeta().custom_metadata_map.items()} == dict(classes=['a', 'b'], size=8, presize=8)

def test_the_program_of_the_page(onnx, tmp_path, monkeypatch, capsys):
    "That of the commands' page, which needs no PyTorch: on a wide picture it says what the model says."
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    clf = Classifier(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 4)), ['a', 'b', 'c', 'd'], 32, 32, [.5]*3, [.2]*3)
    export_onnx(clf, 'model.onnx')
    small = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize((160, 96), Image.Resampling.BICUBIC).save('picture.jpg')
    program = re.search(r'NumPy, Pillow and onnxruntime alone:\n\n```python\n(.*?)```', (ROOT/'nbs/commands.md').read_text(), re.S)[1]
    assert 'torch' not in program and 'imagenette' not in program
    names = {}
    exec(program, names)
    want = clf('picture.jpg')
    assert [want[k] for k in names['facts']['classes']] == pytest.approx(names['probabilities'].tolist(), abs=.01) # Pillow resizes in whole numbers
    assert max(want.values()) > .4 and f"'{max(want, key=want.get)}')" in capsys.readouterr().out.split('), (')[0] + ')'

# ---- what is refused

class Own(nn.Module):
    "A network of one's own: colours, and what `f` makes of them."
    def __init__(self, f):
        super().__init__()
        self.f, self.w = f, nn.Parameter(torch.ones(3))
    def forward(self, x): return self.f(x.mean((2, 3)))*self.w

@pytest.mark.parametrize('f,words', [(lambda x: x + torch.rand_like(x), 'does not answer as this one does'), (lambda x: x if x.sum() > 0 else -x, 'this network can not be exported: ')], ids=['chance', 'choice'])
def test_networks_that_can_not_be_exported(onnx, tmp_path, f, words):
    clf = Classifier(Own(f), list('abc'), 8, 8, [.5]*3, [.2]*3)
    with pytest.raises(BadInput, match=words) as e: export_onnx(clf, tmp_path/'m.onnx')
    assert len(str(e.value).splitlines()) == 1 and not list(tmp_path.iterdir())

def test_what_you_can_mend(run, tmp_path, monkeypatch):
    "One line, and nothing written."
    model = write_model(tmp_path/'m.safetensors', 'sprintnet')
    (tmp_path/'text.safetensors').write_text('no')
    monkeypatch.setattr(export, 'find_spec', lambda o: o == 'onnx') # where the words are of missing packages, they come last
    for args,words in (((tmp_path/'gone.safetensors',), 'gone.safetensors is not a file'), ((tmp_path/'text.safetensors',), 'damaged or no .safetensors file'),
                       ((model, '--out', tmp_path/'m.pt'), 'm.pt: the name must end in .onnx'), ((model, '--out', tmp_path/'no/m.onnx'), f'there is no folder {tmp_path}/no'),
                       ((model,), 'an ONNX file needs the packages onnxscript, onnxruntime: pip install onnxscript onnxruntime, or uv run --extra onnx')):
        status,out,err = run(*args)
        assert status == 2 and out == '' and len(err) == 1 and err[0].startswith('imagenette_export: ') and words in err[0], err
    assert {o.name for o in tmp_path.iterdir()} == {'m.safetensors', 'text.safetensors'}

def test_not_a_classifier(tmp_path):
    with pytest.raises(BadInput, match='model is a Linear: it must be one of load_model'): export_onnx(nn.Linear(3, 2), tmp_path/'m.onnx')

def test_version_and_help(run):
    assert run('--version')[1].startswith('imagenette_course ')
    status,out,_ = run('--help')
    assert status == 0 and 'probabilities come out' in ' '.join(out.split()) and '--out' in out
