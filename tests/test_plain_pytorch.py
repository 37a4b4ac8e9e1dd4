"The page for plain PyTorch: its program runs as it stands there, with fewer and smaller images, and learns."
import re

import pytest
import torch
from conftest import ROOT
from imagenette_course.data import make_sample

PAGE = (ROOT/'nbs/plain_pytorch.md').read_text()
SMALL = {"imagenette('sample')": 'PATH', 'size, epochs, bs = 64, 5, 32': 'size, epochs, bs = 40, 6, 20', 'side=80': 'side=50', '[::100]': '[::20]'}

@pytest.mark.slow
def test_the_program(tmp_path, capsys):
    blocks = re.findall(r'```python\n(.*?)```', PAGE, re.S)
    program = '\n'.join(blocks)
    assert len(blocks) == 5
    for a,b in SMALL.items():
        assert program.count(a) == 1, a
        program = program.replace(a, b)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    names = dict(PATH=make_sample(tmp_path/'few', 12, 4, seed=3))
    try: exec(compile(program, 'plain_pytorch.md', 'exec'), names)
    finally: torch.set_num_threads(threads)
    out = capsys.readouterr().out
    found = [float(o) for o in re.findall(r'accuracy ([\d.]+)%', out)]
    assert len(found) == 12 and found[5] > 30 and found[11] > 30, out # chance is 10%
    assert type(next(iter(names['train_dl']))[0]) is torch.Tensor and not names['net'].first[0].weight.requires_grad
    assert names['opt'].param_groups[0]['lr'] == 0 and re.search(r'best % +second.*\n0 +\w.*\n1 +\w', out)

def test_its_other_names_are_there():
    "Those of the sentences, which no block runs."
    from imagenette_course import all as ours
    words = re.sub(r'```.*?```', '', PAGE, flags=re.S)
    names = set(re.findall(r'`([a-z]\w*)(?:\([^`]*\))?`', words)) - {'whiten', 'prepare', 'requires_grad_', 'collate_fn', 'num_workers', 'bs', 'lam', 'perm'}
    assert {'mix_pairs', 'whitening_filters', 'export_onnx'} <= names and not [o for o in names if not hasattr(ours, o)]
