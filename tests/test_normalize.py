"Statistics of images, and the file that carries them with the weights."
import json, os, pickle
from functools import cache, partial

import numpy as np
import pytest
import torch
from PIL import Image
from fastai.vision.all import Learner, MaxPool, first, imagenet_stats, xresnet18
from hypothesis import given, settings, strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision.transforms import v2

from imagenette_course import models
from imagenette_course.core import BadInput, write_aside
from imagenette_course.files import image_files
from imagenette_course.dataset import get_dls
from imagenette_course.baseline import fit, get_learner
from imagenette_course.models import *
from imagenette_course.normalize import *

_clf = cache(load_model)
few = settings(deadline=None, max_examples=25)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 7), st.integers(1, 7))
def images(shape, seed, dtype=torch.float32, scale=1., shift=0.):
    return (shift + scale*torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)

# ---- statistics

@pytest.mark.smoke
@few
@given(shapes, st.integers(0, 999), st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]), st.floats(1e-3, 50), st.floats(-20, 20))
def test_batch_stats_are_numpys(shape, seed, dtype, scale, shift):
    x = images(shape, seed, dtype, scale, shift)
    mean,std = batch_stats(x)
    a = x.double().numpy()
    np.testing.assert_allclose(mean, a.mean((0,2,3)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(std, a.std((0,2,3)), rtol=1e-3, atol=1e-4)
    assert mean.dtype == std.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)

def test_batch_stats_compiled():
    x = images((4, 3, 8, 8), 0)
    for a,b in zip(torch.compile(batch_stats, fullgraph=True, backend='aot_eager')(x), batch_stats(x)): torch.testing.assert_close(a, b)

@few
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 999), st.floats(1e-6, 10), st.floats(-1e3, 1e3))
def test_dataset_stats_are_the_two_pass_result(lengths, seed, scale, shift):
    x = images((sum(lengths), 3, 4, 5), seed, torch.float64, scale, shift)
    mean,std = dataset_stats(x.split(lengths))
    two_pass = (x - x.mean((0,2,3), keepdim=True)).square().mean((0,2,3)).sqrt()
    torch.testing.assert_close(mean, x.mean((0,2,3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(std, two_pass, rtol=0, atol=1e-6)
    assert mean.dtype == std.dtype == torch.float64

@few
@given(st.floats(0, 1e6), st.sampled_from([torch.float32, torch.float64]))
def test_constant_images_do_not_vary(value, dtype):
    mean,std = dataset_stats(torch.full((23, 3, 6, 6), value, dtype=dtype).split(5))
    torch.testing.assert_close(mean, torch.full((3,), value, dtype=dtype).double(), rtol=1e-12, atol=0)
    assert (std <= 1e-6).all() and not std.isnan().any()

def test_dataset_stats_of_a_loader_are_those_of_the_files(tiny):
    dls = get_dls(tiny, 16, 32, stats=None)
    dl = dls.test_dl(dls.train_ds.items)
    x = torch.cat([b[0] for b in dl]).as_subclass(torch.Tensor).double()
    mean,std = dataset_stats(dl)
    assert len(x) == 40
    torch.testing.assert_close(mean, x.mean((0,2,3)), rtol=0, atol=1e-6); torch.testing.assert_close(std, x.std((0,2,3), correction=0), rtol=0, atol=1e-6)

def test_dataset_stats_of_a_torch_loader():
    ds = torch.utils.data.TensorDataset(images((7, 3, 4, 4), 0), torch.arange(7))
    got = dataset_stats(torch.utils.data.DataLoader(ds, batch_size=3))
    for a,b in zip(got, batch_stats(ds.tensors[0].double())): torch.testing.assert_close(a, b)

def test_batch_stats_refuses():
    for x,words in ((torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 'torch.uint8'), (torch.zeros(3, 4, 4), r'shape \(3, 4, 4\)'),
                    (torch.zeros(0, 3, 4, 4), 'holds no pixels'), (None, 'NoneType')):
        with pytest.raises(BadInput, match=words): batch_stats(x)

def test_dataset_stats_refuses(tiny):
    for dl,words in (([], 'dl is empty'), ([torch.zeros(2, 3, 4, 4, dtype=torch.uint8)], 'dl is a torch.uint8'), (get_dls(tiny, 16, 32).train, 'drop_last=False')):
        with pytest.raises(BadInput) as e: dataset_stats(dl)
        assert words in str(e.value)

@pytest.mark.gpu
def test_statistics_on_the_gpu():
    x = images((64, 3, 32, 32), 0)
    for f in (batch_stats, lambda x: dataset_stats(x.split(10))):
        for a,b in zip(f(x.cuda()), f(x)): assert a.is_cuda; torch.testing.assert_close(a.cpu(), b)

# ---- the file

@pytest.fixture(scope='module')
def learn(tiny):
    learn = get_learner(get_dls(tiny, 8, 32), xresnet18)
    fit(learn, 1, 3e-3, show=False)
    return learn

@pytest.fixture(scope='module')
def file(learn, tmp_path_factory):
    path = tmp_path_factory.mktemp('model')/'m.safetensors'
    save_model(learn, path)
    return path

@pytest.mark.smoke
def test_round_trip(learn, file):
    clf = load_model(file)
    x = learn.dls.valid.one_batch()[0].as_subclass(torch.Tensor)
    with torch.no_grad(): torch.testing.assert_close(clf.model(x.cpu()), learn.model.cpu().eval()(x.cpu()), rtol=0, atol=1e-6)
    assert clf.facts == model_facts(learn) and clf.classes == list(learn.dls.vocab) and clf.size == 32

def test_accuracy_is_measured_or_given(learn, file, tmp_path, monkeypatch):
    assert load_model(file).facts['accuracy'] == pytest.approx(learn.validate()[1])
    monkeypatch.setattr(Learner, 'get_preds', None) # and is not measured then
    save_model(learn, tmp_path/'m.safetensors', accuracy=0.25)
    assert load_model(tmp_path/'m.safetensors').facts['accuracy'] == .25

@pytest.mark.smoke
@few
@given(st.integers(1, 90), st.integers(1, 90), st.booleans(), st.booleans())
def test_any_size_against_torchvision(file, h, w, as_float, one):
    clf = _clf(file)
    x = (255*images((1 if one else 3, 3, h, w), h*w)).byte()
    square = x[..., (h-min(h,w))//2:, (w-min(h,w))//2:][..., :min(h,w), :min(h,w)]/255
    big = v2.functional.resize(square, [64, 64], antialias=True)
    small = torch.nn.functional.interpolate(big, size=(32, 32), mode='bilinear', align_corners=True) # what a grid of samples comes to
    with torch.no_grad(): want = clf.model(v2.functional.normalize(small, *imagenet_stats)).softmax(1)
    got = clf((x/255 if as_float else x)[0] if one else (x/255 if as_float else x))
    for p,q in zip([got] if one else got, want):
        assert list(p.values()) == sorted(p.values(), reverse=True) and sum(p.values()) == pytest.approx(1, abs=1e-5)
        assert [p[c] for c in clf.classes] == pytest.approx(q.tolist(), abs=1e-5)

def test_a_path_a_picture_and_a_tensor_are_the_same(file, tiny, tmp_path):
    clf, f = load_model(file), image_files(tiny)[0]
    im = Image.open(f)
    want = clf(v2.functional.pil_to_tensor(im.convert('RGB')))
    assert clf(f) == clf(str(f)) == clf(im) == want
    im.convert('L').save(tmp_path/'grey.png')
    assert len(clf(tmp_path/'grey.png')) == 10
    with pytest.raises(FileNotFoundError, match='gone.jpg'): clf('gone.jpg')
    (tmp_path/'text.jpg').write_text('no image')
    with pytest.raises(BadInput, match='text.jpg is not a readable image'): clf(tmp_path/'text.jpg')

def test_it_answers_as_the_pipeline_does(learn, file):
    dls, clf = learn.dls, _clf(file)
    x = torch.cat([b[0] for b in dls.valid]).as_subclass(torch.Tensor)
    for want,f in zip(x, dls.valid_ds.items):
        got = clf.prepare(v2.functional.pil_to_tensor(Image.open(f).convert('RGB'))[None])[0]
        assert (got - want).abs().mean() < .01 and (got - want).abs().max() < .05 # rounding to bytes, divided by std

def test_other_dtypes(file):
    x = (255*images((2, 3, 40, 50), 0)).byte()
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        for p,q in zip(load_model(file).to(dtype)(x), _clf(file)(x)): assert p == pytest.approx(q, abs=.05)

def test_it_is_never_in_training_mode(file):
    clf = load_model(file)
    x, before = (255*images((2, 3, 40, 50), 0)).byte(), [b.clone() for b in clf.model.buffers()]
    clf.train()(x)
    assert not clf.model.training and all(torch.equal(a, b) for a,b in zip(before, clf.model.buffers()))

def test_weights_of_half_precision_are_read_as_floats(file, tmp_path):
    save_file({k: v.bfloat16() if v.is_floating_point() else v for k,v in load_file(file).items()}, tmp_path/'m.safetensors',
              metadata={'imagenette_course': json.dumps(load_model(file).facts)})
    assert next(load_model(tmp_path/'m.safetensors').model.parameters()).dtype == torch.float32

def test_other_statistics_and_none(tiny, tmp_path):
    for stats in (None, ([.1, .2, .3], [.4, .5, .6])):
        save_model(get_learner(get_dls(tiny, 8, 32, stats=stats), xresnet18), tmp_path/'m.safetensors', .1)
        clf = load_model(tmp_path/'m.safetensors')
        mean,std = stats or ([0.]*3, [1.]*3)
        torch.testing.assert_close(clf.mean, torch.tensor(mean)); torch.testing.assert_close(clf.std, torch.tensor(std))

def test_the_model_moves_as_one(file):
    clf = load_model(file).to('meta')
    assert clf.mean.is_meta and clf.std.is_meta and next(clf.model.parameters()).is_meta
    assert {'mean', 'std'}.isdisjoint(dict(clf.named_parameters())) # nothing is trained along

def with_metadata(file, to, **change):
    "A copy of `file` with changed facts; None takes one away."
    facts = {**load_model(file).facts, **change}
    tensors = {k: v.contiguous() for k,v in load_file(file).items()}
    save_file(tensors, to, metadata={'imagenette_course': json.dumps({k: v for k,v in facts.items() if v is not None})})

def test_a_truncated_file(file, tmp_path):
    bad, data = tmp_path/'m.safetensors', file.read_bytes()
    for cut in (0, 4, 8, 100, 10_000, -1):
        bad.write_bytes(data[:cut])
        with pytest.raises(BadInput, match='damaged or no .safetensors file') as e: load_model(bad)
        assert len(str(e.value).splitlines()) == 1

def test_a_pickle_is_never_read(tmp_path):
    class Bomb:
        def __reduce__(self): return os.system, (f'touch {tmp_path/"ran"}',)
    (tmp_path/'m.safetensors').write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match='damaged or no'): load_model(tmp_path/'m.safetensors')
    torch.save(Bomb(), tmp_path/'n.safetensors')
    with pytest.raises(BadInput, match='damaged or no'): load_model(tmp_path/'n.safetensors')
    assert not (tmp_path/'ran').exists()

def test_files_that_do_not_fit(file, tmp_path):
    for change,words in [
            (dict(mean=None), 'lacks mean'), (dict(classes=None, size=None), 'lacks classes, size'), (dict(arch='vgg16'), "'vgg16' is not known"),
            (dict(arch='xresnet34'), 'does not fit the network xresnet34'), (dict(classes=['a', 'b']), 'does not fit the network xresnet18 with 2 classes: size mismatch'),
            (dict(size=10**6), 'size=1000000'), (dict(size='32'), "size='32'"), (dict(std=[1., 0., 1.]), 'std'), (dict(mean=[1.]), 'mean'), (dict(mean='abc'), 'mean'),
            (dict(classes='abc'), 'classes'), (dict(classes=['a']*10), 'different names'), (dict(classes=[]), 'different names'), (dict(presize=8), 'presize=8'),
            (dict(std=[1., float('nan'), 1.]), 'std'), (dict(mean=[0., float('inf'), 0.]), 'mean'), (dict(classes=[str(i) for i in range(300_000)]), 'size mismatch')]:
        bad = tmp_path/'m.safetensors'
        with_metadata(file, bad, **change)
        with pytest.raises(BadInput) as e: load_model(bad)
        assert words in str(e.value) and str(bad) in str(e.value) and len(str(e.value).splitlines()) == 1, str(e.value)

def test_files_without_facts(tmp_path):
    for metadata,words in [(None, 'lacks the metadata'), ({'x': 'y'}, 'lacks the metadata'), ({'imagenette_course': '{'}, 'is no JSON'), ({'imagenette_course': '{}'}, 'lacks arch'), ({'imagenette_course': '[]'}, 'a list and no dict'), ({'imagenette_course': '5'}, 'an? int and no dict'),
                                     ({'imagenette_course': '['*200_000}, 'is no JSON')]:
        save_file({'w': torch.zeros(2)}, tmp_path/'m.safetensors', metadata=metadata)
        with pytest.raises(BadInput, match=words): load_model(tmp_path/'m.safetensors')

def test_numbers_that_overflow(file, tmp_path):
    for old,new,words in [('"size": 32', f'"size": {"9"*5000}', 'is no JSON'), ('"mean": [', f'"mean": [1e308, {"9"*400}, ', 'mean is no list of three'),
                                    ('"mean": [', '"mean": [1e308, 1, 1], "unused": [', 'mean is no list of three'), ('"std": [', '"std": [1e-300, 1, 1], "unused": [', 'std is'),
                                    ('"arch"', '"blur": "yes", "arch"', 'neither true nor false')]:
        with safe_open(file, 'pt') as f: facts = f.metadata()['imagenette_course']
        assert facts.count(old) == 1
        save_file(load_file(file), tmp_path/'m.safetensors', metadata={'imagenette_course': facts.replace(old, new)})
        with pytest.raises(BadInput, match=words): load_model(tmp_path/'m.safetensors')

def test_weights_that_are_no_numbers(file, tmp_path):
    for change in [lambda v: v*float('nan'), lambda v: v/0, lambda v: v.to(torch.complex64)]:
        with safe_open(file, 'pt') as f: metadata = f.metadata()
        save_file({k: change(v) if v.is_floating_point() else v for k,v in load_file(file).items()}, tmp_path/'m.safetensors', metadata=metadata)
        with pytest.raises(BadInput, match='its weights are not all numbers'): load_model(tmp_path/'m.safetensors')

def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='is not a file'): load_model(tmp_path/'no.safetensors')

def test_a_file_that_may_not_be_read(file, monkeypatch):
    "Of such a file, too, safetensors says that there is none."
    def refuse(*args, **kwargs): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(models, 'open', refuse, raising=False) # to the superuser nothing is forbidden
    with pytest.raises(PermissionError, match=rf"{file} can't be read \(Permission denied\): change its permissions"): load_model(file)

def test_inputs_that_are_refused(file):
    for x,words in [
            (torch.zeros(3, 8, 8, dtype=torch.int64), 'torch.int64'), (torch.full((3, 8, 8), 1.5), 'values from 1.5 to 1.5'), (-torch.ones(3, 8, 8), 'floats must be in 0..1'),
            (torch.full((3, 8, 8), float('nan')), 'values from nan'), (torch.zeros(1, 8, 8), 'shape (1, 8, 8)'), (torch.zeros(8, 8), 'shape (8, 8)'), (torch.zeros(2, 3, 0, 8), 'with a pixel'),
            (np.zeros((3, 8, 8)), 'x is a ndarray'), (b'a.jpg', 'x is a bytes'),
            (torch.zeros(8, 9, 3), 'permute(2, 0, 1) puts the colours first')]:
        with pytest.raises(BadInput) as e: _clf(file)(x)
        assert words in str(e.value)

def test_what_cannot_be_described(tiny, learn, tmp_path):
    with pytest.raises(BadInput, match='would not make this network, resnet18, .*give the function that makes it'): save_model(_named(learn, 'resnet18'), tmp_path/'m.safetensors')
    with pytest.raises(BadInput, match='must end in .safetensors'): save_model(learn, tmp_path/'m.pth')
    with pytest.raises(OSError, match='could not be written.*there is no folder'): save_model(learn, tmp_path/'no'/'m.safetensors', .1)
    assert list(tmp_path.iterdir()) == []

def _named(learn, arch):
    other = Learner(learn.dls, learn.model, loss_func=learn.loss_func)
    other.arch = arch
    return other

def test_write_aside_leaves_nothing_when_stopped(tmp_path, monkeypatch):
    def stop(fd): raise KeyboardInterrupt
    monkeypatch.setattr(os, 'fsync', stop)
    with pytest.raises(KeyboardInterrupt): write_aside(tmp_path/'a', b'new')
    assert list(tmp_path.iterdir()) == []

def test_write_aside_keeps_the_old_file(tmp_path, monkeypatch):
    f = tmp_path/'a'
    write_aside(f, b'old')
    def full(fd): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left on device.*make room'): write_aside(f, b'new')
    assert f.read_bytes() == b'old' and [o.name for o in tmp_path.iterdir()] == ['a']

@pytest.mark.gpu
def test_the_loaded_model_on_the_gpu(file):
    x = (255*images((3, 3, 40, 50), 0)).byte()
    a,b = load_model(file)(x), load_model(file).cuda()(x.cuda())
    for p,q in zip(a, b): assert p == pytest.approx(q, abs=1e-3)

# ---- what is loaded is what was saved

def test_a_changed_network_is_refused_or_comes_back(tiny, tmp_path):
    "A pooling that leaves no trace in the weights; without the function that makes it the file can't be written, nor read."
    dls, arch = get_dls(tiny, 8, 32), partial(xresnet18, widen=.25, pool=MaxPool)
    learn = get_learner(dls, arch)
    for name in ('xresnet18', 'mine'):
        learn.arch = name
        with pytest.raises(BadInput, match='give the function that makes it'): save_model(learn, tmp_path/'m.safetensors', .5)
        assert not (tmp_path/'m.safetensors').exists()
    with pytest.raises(BadInput, match='give the function'): save_model(learn, tmp_path/'m.safetensors', .5, arch=partial(xresnet18, widen=.25))
    save_model(learn, tmp_path/'m.safetensors', .5, arch=arch)
    with pytest.raises(BadInput, match='give the function'): load_model(tmp_path/'m.safetensors')
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad(): torch.testing.assert_close(load_model(tmp_path/'m.safetensors', arch).model(x), learn.model.cpu().eval()(x), rtol=0, atol=1e-6)
