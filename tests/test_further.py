"Corner crops: where they lie, that they come from the whole image, and what `tta` makes of them."
import numpy as np
import pytest
import torch
from fastai.vision.all import Learner, Normalize, PILImage, nn
from hypothesis import given, settings, strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from imagenette_course.baseline import get_learner
from imagenette_course.core import BadInput
from imagenette_course.dataset import get_dls
from imagenette_course.further import *
from imagenette_course.speed import cached_dls, fast_learner

class Pool(nn.Sequential):
    "A network of milliseconds."
    def __init__(self, n_out): super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, n_out))

@settings(max_examples=60, deadline=None)
@given(h=st.integers(1, 30), w=st.integers(1, 30), lead=st.lists(st.integers(1, 3), min_size=1, max_size=2), data=st.data())
def test_places(h, w, lead, data):
    size = data.draw(st.integers(1, min(h, w)))
    x = torch.arange(h*w).view(h, w).expand(*lead, h, w)
    v = corner_views(x, size)
    top, left = round((h - size)/2), round((w - size)/2)
    for got, (a, b) in zip(v, [(0, 0), (0, w-size), (h-size, 0), (h-size, w-size), (top, left)]):
        assert torch.equal(got, x[..., a:a+size, b:b+size])
    assert v.shape == (5, *lead, size, size) and v.dtype == x.dtype

def test_together_they_cover_the_image():
    "Squares of more than half of the long side."
    x = torch.arange(8*12).view(1, 8, 12)
    assert set(corner_views(x, 7).flatten().tolist()) == set(range(8*12))

def test_bad_input(tiny):
    x = torch.zeros(3, 8, 9)
    for args,words in (((x, 9), 'size=9'), ((x, 2.5), 'size=2.5'), ((x[0], 4), 'dimensions of x=2: it must be .* 3 or more'),
                       (([1], 1), 'dimensions of x=None')):
        with pytest.raises(BadInput, match=words): corner_views(*args)
    dl = get_dls(tiny, 8, 32, workers=0).valid
    for kw,words in ((dict(size=0), 'size=0'), (dict(size=8, zoom=1.1), 'zoom=1.1')):
        with pytest.raises(BadInput, match=words): corner_dl(dl, **kw)

def by_hand(files, size, zoom=7/8):
    "All five views of image files, normalized: (5, n, 3, size, size)."
    mean, std = torch.tensor([.485, .456, .406]).view(3, 1, 1), torch.tensor([.229, .224, .225]).view(3, 1, 1)
    shrunk = [TF.pil_to_tensor(TF.resize(Image.open(f).convert('RGB'), round(size/zoom), antialias=True)) for f in files]
    return torch.stack([(corner_views(o, size)/255 - mean)/std for o in shrunk], 1)

def passes(dl, n=4):
    with dl.dataset.set_split_idx(0): views = [torch.cat([b[0] for b in dl]).cpu().as_subclass(torch.Tensor) for _ in range(n)]
    return views, torch.cat([b[0] for b in dl]).cpu().as_subclass(torch.Tensor)

@pytest.mark.parametrize('make,workers', [(get_dls, 0), (get_dls, 2), (cached_dls, 0)])
def test_the_loader_shows_corners_of_the_files(tiny, make, workers):
    dls = make(tiny, 8, 32, workers=workers)
    dl = corner_dl(dls.valid, 32)
    views, plain = passes(dl)
    for got, want in zip([*views, plain], by_hand(dls.valid.items, 32)): assert torch.allclose(got, want, atol=1e-4)
    again, _ = passes(dl) # the same corners once more
    assert all(torch.equal(a, b) for a, b in zip(views, again))

def test_not_from_the_middle_square(tmp_path):
    "A wide image: red on the left, green in the middle square, blue on the right."
    a = np.zeros((40, 120, 3), np.uint8)
    a[:,:40,0] = a[:,40:80,1] = a[:,80:,2] = 255
    for part in ('train', 'val'):
        for k in ('x', 'y'): (tmp_path/part/k).mkdir(parents=True); Image.fromarray(a).save(tmp_path/part/k/'a.png')
    dl = corner_dl(get_dls(tmp_path, 2, 16, stats=None, workers=0).valid, 16, zoom=1)
    views, plain = passes(dl)
    colour = lambda o: o[0].mean((1, 2)).round().tolist()
    assert [colour(o) for o in views] == [[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]] and colour(plain) == [0, 1, 0]

@pytest.mark.parametrize('make', [get_learner, fast_learner])
def test_the_mean_of_five(tiny, make):
    dls = (get_dls if make is get_learner else cached_dls)(tiny, 8, 32, workers=0)
    learn = make(dls, Pool)
    with learn.no_bar(): preds, targs = corner_tta(learn, 32)
    learn.model.cpu().eval()
    with torch.no_grad(): want = torch.stack([learn.model(o).softmax(1) for o in by_hand(dls.valid.items, 32)]).mean(0)
    assert torch.allclose(preds, want, atol=1e-3) and targs.tolist() == [int(y) for _, y in dls.valid_ds]
    assert dls.valid_ds.split_idx == 1

def test_other_files(tiny):
    dls = cached_dls(tiny, 8, 32)
    learn = get_learner(dls, Pool)
    with learn.no_bar():
        preds, targs = corner_tta(learn, 32, dl=learn.dls.test_dl(dls.valid.items[:3]))
        assert torch.allclose(preds, corner_tta(learn, 32)[0][:3], atol=1e-5) and targs is None
