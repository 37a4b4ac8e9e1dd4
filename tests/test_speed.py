"Cached against uncached, geometry of the crops, the store and every way in which it can be bad, the quick training step."
import copy, errno, gc, json, math, os, pickle, resource, shutil, signal, subprocess, sys, warnings, weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from fastai.vision.all import Normalize, PILImage, load_learner, nn, set_seed, xresnet18
from hypothesis import given, settings, strategies as st
from PIL import Image
from scipy import stats
from torchvision.transforms.v2 import functional as TF

from imagenette_course import loader, speed, store as store_module
from imagenette_course.baseline import fit, get_learner
from imagenette_course.core import BadInput
from imagenette_course.files import NamedImage, image_files
from imagenette_course.dataset import get_dls
from imagenette_course.mixup import MixUp
from imagenette_course.models import load_model, save_model
from imagenette_course.resize import ProgressiveResize, at_size, progressive_fit
from imagenette_course.speed import *
from imagenette_course.store import *
from imagenette_course.tta import tta

class Pool(nn.Sequential):
    "A network of milliseconds."
    def __init__(self, n_out): super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, n_out))

@pytest.fixture(scope='module')
def files(tiny): return list(image_files(tiny))

def images(n=4, side=40, seed=0): return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))

# ---- one side as a matrix

@pytest.mark.smoke
@settings(max_examples=60, deadline=None)
@given(n_in=st.integers(1, 60), n_out=st.integers(1, 60), data=st.data())
def test_resize_matrix_against_torch(n_in, n_out, data):
    start = data.draw(st.integers(0, n_in-1)); length = data.draw(st.integers(1, n_in-start))
    row = torch.rand(n_in)
    got = resize_matrix(torch.tensor([start]), torch.tensor([length]), n_in, n_out)[0]
    want = F.interpolate(row[start:start+length].view(1, 1, 1, -1), size=(1, n_out), mode='bilinear', antialias=True).flatten()
    assert got.shape == (n_out, n_in)
    assert torch.allclose(got@row, want, atol=1e-4)
    assert torch.allclose(got.sum(1), torch.ones(n_out), atol=1e-5)
    assert (got[:,:start] == 0).all() and (got[:,start+length:] == 0).all() # nothing from outside of the crop

def boxes_in(side): return st.tuples(*[st.floats(0, 1)]*4).map(lambda o: _box(o, side))
def _box(o, side):
    h, w = (max(1, round(side*v)) for v in o[2:])
    return [round((side-h)*o[0]), round((side-w)*o[1]), h, w]

@pytest.mark.smoke
@settings(max_examples=30, deadline=None)
@given(side=st.integers(2, 48), size=st.integers(1, 48), n=st.integers(1, 4), data=st.data())
def test_both_ways_to_crop_agree(side, size, n, data):
    x, boxes = images(n, side), torch.tensor([data.draw(boxes_in(side)) for _ in range(n)])
    a, b = speed._crop_each(x, boxes, size), speed._crop_by_products(x, boxes, size)
    assert a.shape == b.shape == (n, 3, size, size) and a.dtype == torch.uint8
    assert (a.float() - b).abs().max() <= 1.01 # one of them is rounded to bytes, twice

def test_crop_places(): # a synthetic grid: the value is the column, or the row
    col = torch.arange(40, dtype=torch.uint8).expand(1, 3, 40, 40)
    x = torch.cat([col, col.mT])
    assert torch.equal(crop_resize(x, torch.tensor([[0, 0, 40, 40]]*2), 40), x)
    got = crop_resize(x, torch.tensor([[5, 8, 20, 16]]*2), 4).float()
    assert torch.allclose(got[0,0,0], torch.tensor([8, 12, 16, 20]) + 1.5, atol=1) and (got[0] == got[0,:,:1]).all()
    assert torch.allclose(got[1,0,:,0], torch.tensor([5, 10, 15, 20]) + 2., atol=1) and (got[1] == got[1,:,:,:1]).all()

# ---- the boxes

@settings(max_examples=60, deadline=None)
@given(ratio=st.floats(.05, 20), min_scale=st.floats(.01, 1), n=st.integers(1, 50))
def test_boxes_lie_inside_and_have_the_right_shape(ratio, min_scale, n):
    top, left, h, w = random_boxes(torch.full((n,), ratio), min_scale).unbind(1)
    assert all((o >= -1e-6).all() for o in (top, left)) and (top + h <= 1 + 1e-5).all() and (left + w <= 1 + 1e-5).all()
    shape = ratio*w/h
    assert (shape >= .75 - 1e-3).all() and (shape <= 4/3 + 1e-3).all()

def test_boxes_are_distributed_as_torchvisions(ratio=1.5):
    n, size = 2000, (10_000, round(10_000*ratio)) # large, because torchvision's boxes are whole pixels
    torch.manual_seed(1)
    ours = random_boxes(torch.full((n,), size[1]/size[0]), .35).double().numpy()
    theirs = np.array([torchvision.transforms.RandomResizedCrop.get_params(torch.empty(3, *size, device='meta'), (.35, 1), (3/4, 4/3)) for _ in range(n)])/(*size, *size)
    for f in (lambda b: b[:,2]*b[:,3], lambda b: b[:,3]/b[:,2], lambda b: b[:,0], lambda b: b[:,1]):
        a, b = (f(o).round(2) for o in (ours, theirs)) # boxes of the last resort are all the same, but for rounding
        assert stats.ks_2samp(a, b).statistic < 1.95*math.sqrt(2/n) + .003 # p = 0.001

@settings(max_examples=50, deadline=None)
@given(w=st.integers(1, 500), h=st.integers(1, 500))
def test_the_middle_square(w, h):
    top, left, bh, bw = centre_boxes(torch.tensor([w/h]))[0].tolist()
    assert bh*h == pytest.approx(min(w, h), rel=1e-4) and bw*w == pytest.approx(min(w, h), rel=1e-4)
    assert top + bh/2 == pytest.approx(.5) and left + bw/2 == pytest.approx(.5)

@settings(max_examples=50, deadline=None)
@given(side=st.integers(1, 300), o=st.tuples(*[st.floats(0, 1)]*4))
def test_boxes_in_pixels(side, o):
    h, w = o[2:]
    box = speed._to_pixels(torch.tensor([[o[0]*(1-h), o[1]*(1-w), h, w]]), side)[0].tolist()
    assert all(isinstance(v, int) for v in box) and box[2] >= 1 and box[3] >= 1 and box[0] >= 0 and box[1] >= 0
    assert box[0] + box[2] <= side and box[1] + box[3] <= side

# ---- the colours

def test_colours_against_torchvision():
    "A known change: half the saturation, then 1.2 times the contrast around mid-grey, then 0.1 more light."
    x = torch.rand(2, 3, 6, 7)*.5 + .2
    grey = TF.rgb_to_grayscale(x, 3)
    want = (1.2*(.5*x + .5*grey - .5) + .5 + .1).clamp(0, 1)
    g = torch.tensor([.299, .587, .114]).expand(3, 3)
    m, s = 1.2*(.5*torch.eye(3) + .5*g), torch.full((3, 1), .1 - .1)
    got = recolour(255*x, m.expand(2, 3, 3), s.expand(2, 3, 1), torch.zeros(3), torch.ones(3))
    assert torch.allclose(got, want, atol=1e-3)

@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), strength=st.floats(0, .9))
def test_colours_stay_in_range_and_grey_stays_grey(seed, strength):
    torch.manual_seed(seed)
    m, s = colour_matrices(8, strength, p=1.)
    mean, std = torch.tensor([.4, .5, .6]), torch.tensor([.2, .3, .4])
    x = torch.randint(0, 256, (8, 3, 4, 4))
    y = recolour(x, m, s, mean, std)*std.view(3, 1, 1) + mean.view(3, 1, 1)
    assert y.min() >= -1e-5 and y.max() <= 1 + 1e-5
    y = recolour(x[:,:1].expand(-1, 3, -1, -1), m, s, torch.zeros(3), torch.ones(3))
    assert torch.allclose(y[:,0], y[:,1], atol=1e-5) and torch.allclose(y[:,0], y[:,2], atol=1e-5)

def test_only_light_changes_the_middle_grey():
    strength = .8
    torch.manual_seed(0)
    m, s = colour_matrices(1000, strength, p=1.)
    y = recolour(torch.full((1000, 3, 1, 1), 127.5), m, s, torch.zeros(3), torch.ones(3)).flatten(1)
    off = y - .5
    assert off.abs().max() <= strength/2 + 1e-4 and off.min() < -.45*strength and off.max() > .45*strength

def test_the_mean_of_recolouring():
    "A shift that is not zero, and channels normalized apart."
    mean, std = torch.tensor([.1, .2, .3]), torch.tensor([.5, .6, .7])
    x = torch.full((1, 3, 2, 2), 51.) # 0.2
    got = recolour(x, torch.eye(3)[None], torch.full((1, 3, 1), .3), mean, std)
    assert torch.allclose(got[0,:,0,0], (.5 - mean)/std, atol=1e-5)
    m, s = colour_matrices(3, 0.) # no strength is no change
    assert torch.allclose(m, torch.eye(3).expand(3, 3, 3), atol=1e-6) and (s == 0).all()

# ---- the store

@pytest.mark.smoke
def test_store_holds_what_pillow_decodes(files, tiny):
    with warnings.catch_warnings():
        warnings.simplefilter('error') # a mapping that may not be written to is no reason to warn
        store = PixelStore(files, tiny, 40)
    assert len(store) == len(files) and store.pixels.dtype == torch.uint8 and store.pixels.shape == (len(files), 40, 40, 3)
    for i in (0, 7, len(files)-1):
        im = Image.open(files[i]).convert('RGB')
        assert np.array_equal(store.pixels[i].numpy(), np.asarray(im.resize((40, 40), Image.Resampling.BILINEAR)))
        assert store.ratio[i].item() == pytest.approx(im.width/im.height)
    assert store.rows(files[3:5]).tolist() == [3, 4] and store.rows([Path('other.jpg')]) is None and store.rows([np.zeros(3)]) is None

def counting(monkeypatch):
    "Counts how often a store is made."
    made, real = [], store_module._build
    monkeypatch.setattr(store_module, '_build', lambda *a: (made.append(1), real(*a))[1])
    return made

def test_opened_not_made_again(files, tiny, monkeypatch):
    file = PixelStore(files, tiny, 26).file
    made = counting(monkeypatch)
    assert PixelStore(files, tiny, 26).file == file and not made
    PixelStore(files[:-1], tiny, 26) # another choice is another store
    PixelStore(files, tiny, 34) # a side that no other test has
    assert len(made) == 2

def test_one_folder_has_one_store(files, tiny, monkeypatch, tmp_path):
    "However it is named."
    want = PixelStore(files, tiny, 22).file
    made = counting(monkeypatch)
    monkeypatch.chdir(tiny.parent)
    (tmp_path/'link').symlink_to(tiny)
    for path in (Path(tiny.name), Path('..')/tiny.parent.name/tiny.name, tmp_path/'link'):
        store = PixelStore([path/o.relative_to(tiny) for o in files], path, 22)
        assert store.file == want and store.rows([path/files[2].relative_to(tiny)]).tolist() == [2]
    assert not made

def test_open_once_in_a_process(files, tiny, monkeypatch):
    "All loaders of the same images share the pixels and one copy of them on a device, and take both with them when they go."
    read, real = [], store_module._read
    monkeypatch.setattr(store_module, '_read', lambda *a: (read.append(1), real(*a))[1])
    a = PixelStore(files, tiny, 28)
    n = len(read)
    b = PixelStore(files, tiny, 28)
    assert len(read) == n and a.pixels is b.pixels
    there = a.on(torch.device('meta'))
    assert b.on(torch.device('meta')) is there and there[0].shape == a.pixels.shape and there[1].device.type == 'meta'
    gone = [weakref.ref(o) for o in (*there, a.pixels)]
    del a, there
    assert gone[0]() is not None
    del b
    assert [o() for o in gone] == [None]*3

@pytest.mark.parametrize('damage', ['byte', 'header', 'truncated', 'empty', 'sizes', 'half a json', 'no json'])
def test_damaged_store_is_made_again(files, tiny, monkeypatch, damage):
    store = PixelStore(files, tiny, 16)
    want, ratio, f = store.pixels.clone(), store.ratio.clone(), store.file
    del store
    data, text = bytearray(f.read_bytes()), f.with_suffix('.json').read_text()
    if damage == 'byte': data[len(data)//2] ^= 1
    if damage == 'header': data[8] = 1
    if damage == 'truncated': data = data[:len(data)//2]
    if damage == 'empty': data = b''
    if damage == 'sizes': facts = json.loads(text); facts['sizes'][0][0] += 1; text = json.dumps(facts)
    if damage == 'half a json': text = text[:len(text)//2]
    f.unlink(); f.write_bytes(data); f.with_suffix('.json').write_text(text)
    if damage == 'no json': f.with_suffix('.json').unlink()
    made = counting(monkeypatch)
    store = PixelStore(files, tiny, 16)
    assert torch.equal(store.pixels, want) and torch.equal(store.ratio, ratio) and len(made) == 1

def test_stale_store_is_made_again(own, monkeypatch):
    fs = list(image_files(own))
    a = PixelStore(fs, own, 16)
    first = a.pixels[0].clone()
    Image.new('RGB', (30, 20), 'red').save(fs[0])
    made = counting(monkeypatch)
    b = PixelStore(fs, own, 16)
    assert len(made) == 1 and a.file == b.file and not torch.equal(b.pixels[0], first) and b.ratio[0].item() == pytest.approx(1.5)
    assert torch.equal(a.pixels[0], first) # whoever has the old one open keeps it
    monkeypatch.setattr(store_module, '_FORMAT', store_module._FORMAT + 1)
    PixelStore(fs, own, 16)
    assert len(made) == 2

def test_an_image_that_changes_while_it_is_decoded(own, monkeypatch):
    fs, real = list(image_files(own)), store_module.squash
    def squash(*a):
        os.utime(fs[0], ns=(0, 0))
        return real(*a)
    monkeypatch.setattr(store_module, 'squash', squash)
    with pytest.raises(BadInput, match='changed while they were decoded: try again'): PixelStore(fs, own, 16)

def test_names_that_are_not_utf8(own):
    f = own/'train'/next((own/'train').iterdir()).name/os.fsdecode(b'caf\xe9.JPEG')
    Image.new('RGB', (30, 20), 'red').save(f)
    for _ in range(2): assert PixelStore(list(image_files(own)), own, 16).rows([f]) is not None

def test_readable_by_the_group(files, tiny):
    before = os.umask(0o027)
    try: f = PixelStore(files, tiny, 14).file
    finally: os.umask(before)
    assert [oct(o.stat().st_mode & 0o777) for o in (f, f.with_suffix('.json'))] == ['0o640']*2

KILLED = """
import os, signal, sys
from pathlib import Path
from imagenette_course import store
from imagenette_course.files import image_files
store.fastai_path, real, n, path = lambda _: Path(sys.argv[2]), store.squash, [], Path(sys.argv[1])
def squash(*a):
    n.append(1)
    if len(n) == 9: os.kill(os.getpid(), signal.SIGKILL)
    return real(*a)
store.squash = squash
store.PixelStore(list(image_files(path)), path, 48)
"""

def test_killed_half_way(files, tiny, tmp_path, monkeypatch):
    proc = subprocess.run([sys.executable, '-c', KILLED, str(tiny), str(tmp_path)])
    assert proc.returncode == -signal.SIGKILL
    monkeypatch.setattr(store_module, 'fastai_path', lambda _: tmp_path)
    assert [o.suffix for o in tmp_path.iterdir()] == ['.partial'] and not store_file(files, tiny, 48).exists()
    assert len(PixelStore(files, tiny, 48)) == len(files)

def test_nothing_is_left_when_it_fails(files, tiny, monkeypatch, own_folder):
    before = set(own_folder.iterdir())
    monkeypatch.setattr(store_module, 'squash', lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt): PixelStore(files, tiny, 17)
    assert set(own_folder.iterdir()) == before

def test_an_image_that_can_not_be_decoded(own, own_folder, monkeypatch):
    fs = list(image_files(own))
    fs[3].write_bytes(fs[3].read_bytes()[:200])
    before = set(own_folder.iterdir())
    with pytest.raises(BadInput, match=f'{fs[3].name} is not a readable image'): cached_dls(own, 8, 32)
    assert set(own_folder.iterdir()) == before
    dls = cached_dls(own, 8, 32, files=[f for f in fs if f != fs[3]])
    assert len(dls.train_ds) + len(dls.valid_ds) == len(fs) - 1
    def refused(*a): raise PermissionError(errno.EACCES, 'Permission denied', 'a/b.JPEG')
    monkeypatch.setattr(store_module, 'squash', refused)
    with pytest.raises(PermissionError, match='Permission denied.*b.JPEG'): PixelStore(fs, own, 19)

def test_no_room(files, tiny, monkeypatch, own_folder):
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match='need 0.00 GB.* 0.00 are free: make room'): PixelStore(files, tiny, 18)
    assert not list(own_folder.glob('*-18-*'))

def test_a_file_that_can_not_be_written(files, tiny, monkeypatch, own_folder):
    before = set(own_folder.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1])) # a real failure of the system
    try:
        with pytest.raises(OSError, match='could not be written .File too large.: make room there'): PixelStore(files, tiny, 20)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    def full(*a): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(store_module, 'squash', full) # at one of the images
    with pytest.raises(OSError, match='could not be written .No space left on device.: make room there') as e: PixelStore(files, tiny, 20)
    assert '\n' not in str(e.value) and set(own_folder.iterdir()) == before

def test_two_builders_at_once(tiny, tmp_path):
    code = ("import sys; from pathlib import Path; from imagenette_course import store; from imagenette_course.dataset import image_files\n"
            "store.fastai_path = lambda _: Path(sys.argv[2])\np = Path(sys.argv[1])\n"
            "print(store.PixelStore(list(image_files(p)), p, 48).pixels.sum().item())")
    procs = [subprocess.Popen([sys.executable, '-c', code, str(tiny), str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    out = [p.communicate(timeout=300)[0] for p in procs]
    assert out[0] == out[1] and all(p.returncode == 0 for p in procs) and sorted(o.suffix for o in tmp_path.iterdir()) == ['.json', '.npy']

# ---- the loaders

def test_same_files_labels_and_settings(tiny):
    book, dls = get_dls(tiny, 8, 32, workers=0), cached_dls(tiny, 8, 32)
    for a, b in zip(book.loaders, dls.loaders): assert a.items == b.items and len(a) == len(b) and a.bs == b.bs
    assert list(book.vocab) == list(dls.vocab) and book.c == dls.c and book.path == dls.path
    assert {k: dls.settings[k] for k in ('bs', 'size', 'stats', 'noise')} == {k: book.settings[k] for k in ('bs', 'size', 'stats', 'noise')}
    want = torch.cat([y for _,y in book.valid]); got = torch.cat([y for _,y in dls.valid])
    assert torch.equal(want, got) and type(got) is type(want)
    assert torch.equal(got, torch.cat([y for _,y in dls.test_dl(dls.valid.items, with_labels=True)]))
    noisy = [make(tiny, 8, 32, noise=50).train_ds for make in (get_dls, cached_dls)]
    assert [int(o[1]) for o in noisy[0]] == loader._labels(noisy[1]).tolist()

def test_validation_pixels(tiny, size=48):
    "The same middle squares, as near to those of one good interpolation as `get_dls` comes, which has two of its own."
    book, ours = (torch.cat([x for x,_ in make(tiny, 8, size, stats=None).valid]).as_subclass(torch.Tensor).cpu() for make in (get_dls, cached_dls))
    files = cached_dls(tiny, 8, size).valid.items
    want = torch.stack([TF.resize(TF.center_crop(TF.pil_to_tensor(im), min(im.size)), [size, size], antialias=True)/255 for im in map(NamedImage.create, files)])
    assert (ours - want).abs().mean() <= (book - want).abs().mean() and (ours - want).abs().mean() < .04
    assert ours.min() >= 0 and ours.max() <= 1

def test_normalization(tiny):
    mean, std = [.4, .5, .6], [.2, .3, .4]
    plain, dls = cached_dls(tiny, 8, 32, stats=None), cached_dls(tiny, 8, 32, stats=(mean, std))
    a, b = (o.valid.one_batch()[0].as_subclass(torch.Tensor) for o in (plain, dls))
    assert torch.allclose(TF.normalize(a, mean, std), b, atol=1e-4)
    assert len(dls.valid.after_batch.fs.filter(lambda o: isinstance(o, Normalize))) == 1
    assert torch.allclose(dls.valid.decode((dls.valid.one_batch()))[0].as_subclass(torch.Tensor), a, atol=1e-4) # show_batch gets its colours back

def test_seed_decides_everything(tiny):
    def epoch(seed):
        dls = cached_dls(tiny, 8, 32)
        set_seed(seed); dls.train.rng.seed(seed)
        return torch.cat([x for x,_ in dls.train])
    assert torch.equal(epoch(1), epoch(1)) and not torch.equal(epoch(1), epoch(2))

@pytest.mark.smoke
def test_each_image_once_an_epoch(tiny):
    dls = cached_dls(tiny, 7, 32) # 40 training images: five batches, and five left out
    n = len(dls.train_ds)
    assert [len(y) for _,y in dls.train] == [7]*(n//7) and n % 7
    rows = [i for b in map(list, loader.chunked(dls.train.get_idxs(), 7, True)) for i in b]
    assert len(set(rows)) == len(rows)
    assert sum(len(y) for _,y in dls.valid) == len(dls.valid_ds)
    one = cached_dls(tiny, 1, 32, files=[dls.train.items[0], dls.valid.items[0]])
    assert one.one_batch()[0].shape == (1, 3, 32, 32) and len(list(one.valid)) == 1

def test_mirrored_half_of_the_time(tiny):
    v = Views(16, None, min_scale=1.)
    x = torch.zeros(400, 20, 20, 3, dtype=torch.uint8); x[:,:,:10] = 255
    y = v(x, torch.ones(400), True)
    left = (y[:,0,:,:8].mean((1, 2)) > y[:,0,:,8:].mean((1, 2))).float().mean().item()
    assert .38 < left < .62

@pytest.mark.parametrize('kw,words', [(dict(bs=0), 'bs=0'), (dict(presize=16), 'presize=16'), (dict(min_scale=0), 'min_scale=0')])
def test_bad_arguments(tiny, kw, words):
    with pytest.raises((BadInput, OSError), match=words): cached_dls(tiny, **{**dict(bs=8, size=32), **kw})

# ---- with the rest of the course

@pytest.fixture
def dls(tiny): return cached_dls(tiny, 8, 32)

def test_training_and_callbacks(dls):
    learn = get_learner(dls, xresnet18, cbs=MixUp(.4))
    run = fit(learn, 2, 1e-3, cbs=ProgressiveResize(24, 32, step=8), show=False)
    assert len(run.history) == 2 and run.settings['size'] == 32
    preds, targs = tta(learn, n=2)
    assert preds.shape == (len(dls.valid_ds), 10) and torch.allclose(preds.sum(1), torch.ones(len(preds)), atol=1e-4)
    with dls.valid_ds.set_split_idx(0): a, b = (torch.cat([x for x,_ in dls.valid]) for _ in range(2))
    c, d = (torch.cat([x for x,_ in dls.valid]) for _ in range(2))
    assert dls.valid_ds.split_idx == 1 and not torch.equal(a, b) and torch.equal(c, d)
    learn.show_results(max_n=2); dls.show_batch(max_n=2); speed.plt.close('all')

def test_at_another_size(dls):
    small = at_size(dls, 24, 4)
    assert type(small.train) is type(dls.train) and small.one_batch()[0].shape == (4, 3, 24, 24)
    assert small.settings['presize'] == dls.settings['presize'] and small.valid.store.pixels is dls.train.store.pixels

def test_export_and_save(dls, tmp_path):
    learn = get_learner(dls, xresnet18)
    f = dls.valid.items[0]
    with learn.no_bar():
        want = learn.predict(f)[2]
        learn.export(tmp_path/'l.pkl')
        again = load_learner(tmp_path/'l.pkl')
        with again.no_bar(): assert torch.allclose(again.predict(f)[2], want, atol=1e-4)
    assert (tmp_path/'l.pkl').stat().st_size < sum(4*p.numel() for p in learn.model.parameters())*1.2
    assert len(dls.valid.store) == 60 and len(again.dls.valid.store) == 0 # without the pixels
    save_model(learn, tmp_path/'m.safetensors', .5)
    probs = load_model(tmp_path/'m.safetensors')(f)
    assert [probs[c] for c in dls.vocab] == pytest.approx(want.tolist(), abs=.02)

def test_split_over_processes(dls):
    "fastai's distributed loader takes `get_idxs`, `create_batches` and `after_batch` of ours for a part of the rows."
    idxs = list(dls.valid.get_idxs())
    parts = [idxs[:len(idxs)//2], idxs[len(idxs)//2:]]
    got = torch.cat([dls.valid.after_batch(b)[0] for p in parts for b in dls.valid.create_batches(iter(p))])
    assert torch.equal(got, torch.cat([x for x,_ in dls.valid]))

# ---- the training step

def test_bf16_only_inside():
    net = use_bf16(Pool(10))
    seen = []
    net[-1].register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    x = torch.rand(2, 3, 8, 8)
    out = net(x)
    out.sum().backward()
    assert out.dtype == torch.float32 and seen == [torch.bfloat16] and all(p.dtype == p.grad.dtype == torch.float32 for p in net.parameters())
    with pytest.raises(RuntimeError): net(torch.rand(2, 5, 8, 8))
    assert not torch.is_autocast_enabled('cpu')
    want = Pool(10); want.load_state_dict(net.state_dict())
    assert torch.allclose(want(x), out, atol=.05)

class Stop(nn.Module):
    def forward(self, x): raise KeyboardInterrupt

def test_bf16_ends_when_it_is_stopped():
    net = use_bf16(nn.Sequential(Stop()))
    with pytest.raises(KeyboardInterrupt): net(torch.rand(2, 3))
    assert not torch.is_autocast_enabled('cpu')

def test_bf16_twice_is_once():
    net = use_bf16(use_bf16(Pool(10)))
    for o in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert o(torch.rand(2, 3, 8, 8)).dtype == torch.float32 and not torch.is_autocast_enabled('cpu')

@pytest.mark.parametrize('replica', [lambda m: m._replicate_for_data_parallel(), copy.copy], ids=['data parallel', 'copy'])
def test_bf16_replicas_use_their_own_weights(replica):
    "As `nn.DataParallel` makes them for each GPU: the same attributes, other tensors."
    class Line(nn.Module):
        def __init__(self): super().__init__(); self.weight = nn.Parameter(torch.ones(3, 2))
        def forward(self, x): return x @ self.weight
    net = use_bf16(Line())
    other = replica(net)
    other._parameters = dict(weight=torch.full((3, 2), 5.))
    x = torch.ones(1, 3)
    assert other(x).tolist() == [[15., 15.]] and net(x).tolist() == [[3., 3.]] and other(x).dtype == torch.float32

ALL = dict(bf16=True, channels_last=True, fused=True)

def test_the_record_tells_settings_apart(dls):
    a,b = (fit(fast_learner(dls, Pool, use=dict(ALL, bf16=o)), 1, 1e-3, show=False).settings for o in (False, True))
    assert a['bf16'] is False and b['bf16'] is True and {k: v for k,v in a.items() if k != 'bf16'} == {k: v for k,v in b.items() if k != 'bf16'}

@pytest.mark.parametrize('amx,avx,bf16', [(True, False, True), (False, False, False)])
def test_settings_of_a_device(monkeypatch, amx, avx, bf16):
    "bfloat16 only where it is not imitated: not on a processor without units for it, nor on cards before Ampere."
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: amx)
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: avx)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: including_emulation)
    assert fast_settings('cpu') == dict(bf16=bf16, channels_last=True, fused=True)
    assert fast_settings('cuda').bf16 is False

def test_fast_learner_learns(dls):
    "With the first weights of `get_learner`."
    learn = fast_learner(dls, xresnet18, use=ALL, cbs=MixUp(.2), seed=3)
    assert torch.equal(next(learn.model.parameters()), next(get_learner(dls, xresnet18, seed=3).model.parameters()))
    run = fit(learn, 2, 3e-3, show=False)
    assert run.history[1]['train_loss'] < 2.6 and run.settings['opt'].startswith('OptimWrapper(opt=AdamW')
    assert all(p.dtype == torch.float32 for p in learn.model.parameters())

# ---- on a GPU

@pytest.mark.gpu
def test_same_views_on_a_gpu(tiny):
    store = PixelStore(list(image_files(tiny)), tiny, 40)
    boxes = speed._to_pixels(random_boxes(store.ratio), 40)
    x = store.pixels.permute(0, 3, 1, 2)
    a, b = crop_resize(x, boxes, 32).float(), crop_resize(x.cuda(), boxes.cuda(), 32).float().cpu()
    assert (a - b).abs().max() <= 2

@pytest.mark.gpu
def test_nothing_waits_for_the_gpu_in_a_step(tiny):
    dls = cached_dls(tiny, 8, 32)
    list(dls.train) # the pixels go to the GPU
    torch.cuda.set_sync_debug_mode('error')
    try: list(dls.train)
    finally: torch.cuda.set_sync_debug_mode('default')

@pytest.mark.gpu
def test_streaming_is_the_same_as_residing(tiny, monkeypatch):
    def epoch():
        dls = cached_dls(tiny, 8, 32)
        return torch.cat([x for x,_ in dls.valid]).cpu()
    want = epoch()
    monkeypatch.setattr(PixelStore, 'fits', lambda self, device: device.type == 'cpu')
    assert torch.equal(epoch(), want)

@pytest.mark.parametrize('make', [cached_dls, get_dls])
def test_all_that_fastai_takes_as_an_image(tiny, tmp_path, make):
    "In `predict`, `test_dl` and `tta`, by a learner, and by one that was exported and loaded."
    learn = get_learner(make(tiny, 8, 32, workers=0), xresnet18)
    f = learn.dls.valid.items[0]
    rgb = np.asarray(Image.open(f).convert('RGB'))
    inputs = [f, str(f), f.read_bytes(), rgb, torch.tensor(rgb), PILImage.create(f), Image.open(f)]
    learn.export(tmp_path/'l.pkl')
    for o in (learn, load_learner(tmp_path/'l.pkl')):
        with o.no_bar():
            want = o.predict(f)[2]
            for x in inputs:
                assert torch.allclose(o.predict(x)[2], want, atol=1e-5), type(x)
                assert tta(o, o.dls.test_dl([x]))[0].shape == (1, 10), type(x)

@pytest.mark.gpu
def test_one_copy_on_a_gpu_and_freed_with_its_loaders(tiny):
    list(cached_dls(tiny, 8, 96).train) # what the libraries keep for themselves
    gc.collect()
    before = torch.cuda.memory_allocated()
    dls = cached_dls(tiny, 8, 64)
    more = [at_size(dls, 32), at_size(dls, 48), cached_dls(tiny, 4, 64)]
    for o in (dls, *more): list(o.train)
    pixels = dls.train.store.pixels.numel()
    assert before + pixels <= torch.cuda.memory_allocated() < before + 1.5*pixels
    del dls, more, o; gc.collect()
    assert torch.cuda.memory_allocated() < before + .1*pixels
