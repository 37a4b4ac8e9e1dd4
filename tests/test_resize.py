"Sizes, stages and their records, the growing batch, and what is refused."
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from PIL import Image
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.transforms.v2 import functional as TF

from imagenette_course.baseline import compare, fit, get_learner
from imagenette_course.core import BadInput
from imagenette_course.files import short_sides
from imagenette_course.dataset import get_dls, subset
from imagenette_course.resize import *
from imagenette_course.speed import cached_dls
from fastai.vision.all import Callback, CrossEntropyLossFlat, Learner, Normalize, Transform, imagenet_stats, xresnet18, xresnet18_deep, xresnet50, xse_resnext18

class Pool(nn.Sequential):
    "A network of milliseconds: mean colour, and one linear layer."
    def __init__(self, n_out): super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, n_out))

class Halving(nn.Sequential):
    "Three layers that halve, without padding at their border: below 8 px there is nothing left."
    def __init__(self, n_out): super().__init__(*[nn.MaxPool2d(2) for _ in range(3)], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, n_out))

class Watch(Callback):
    "Notes, for each batch: side, number of images, rate; the sides in validation; a sum that tells batches apart."
    order = 99
    def __init__(self): self.train, self.valid, self.sums = [], set(), []
    def before_batch(self):
        if not self.training: self.valid.add(self.x.shape[-1]); return
        self.train.append((self.x.shape[-1], len(self.x))); self.sums.append(self.x.sum().item())

@pytest.fixture(scope='module')
def dls(tiny): return get_dls(tiny, 8, 32, workers=0)

stage_lists = st.lists(st.tuples(st.integers(1, 6), st.integers(8, 300), st.integers(1, 70), st.floats(1e-6, 1)), min_size=1, max_size=5,
                       unique_by=lambda o: o[1]).map(lambda o: sorted(o, key=lambda s: s[1]))

# -- maps

@pytest.mark.smoke
@pytest.mark.parametrize('arch,size', [(xresnet50, 50), (xse_resnext18, 32)])
def test_maps_against_a_real_forward_pass(arch, size):
    model, seen = arch(n_out=3), []
    for m in model.modules():
        if max(np.atleast_1d(getattr(m, 'stride', 1))) > 1: m.register_forward_hook(lambda m,i,o: seen.append(i[0].shape[-1]))
    model(torch.rand(2, 3, size, size))
    assert map_sides(model, size) == list(dict.fromkeys(seen)) and len(map_sides(model, size)) == 5

@pytest.mark.parametrize('arch,halvings', [(xresnet18, 5), (xresnet18_deep, 7)])
def test_smallest_size_of_the_xresnets(arch, halvings):
    model = arch(n_out=3)
    n = smallest_size(model)
    assert n == 2**(halvings-1) + 1
    assert min(map_sides(model, n)) == 2 and min(map_sides(model, n-1)) == 1

@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 200))
def test_maps_are_halved_and_rounded_up(size):
    sides = map_sides(_xresnet, size)
    assert sides[0] == size and all(b == -(-a//2) for a,b in zip(sides, sides[1:]))

_xresnet = xresnet18(n_out=3)

def test_looking_at_maps_changes_nothing():
    model = xresnet18(n_out=3, p=.5).bfloat16()
    model[0].eval()
    state, modes, rng = {k: v.clone() for k,v in model.state_dict().items()}, [m.training for m in model.modules()], torch.get_rng_state()
    map_sides(model, 40)
    assert all(torch.equal(v, state[k]) for k,v in model.state_dict().items()) and modes == [m.training for m in model.modules()]
    assert torch.equal(rng, torch.get_rng_state()) and not any(m._forward_hooks for m in model.modules())
    for m in model.children(): m.compile(backend='aot_eager') # nor is it compiled for these shapes
    assert map_sides(model, 64) == [64, 32, 16, 8, 4]

def test_smallest_size_without_padding():
    assert smallest_size(nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.Conv2d(4, 4, 3))) == 9 # 9 -> 3 -> 1
    assert smallest_size(Halving(10)) == 8
    check_map(Halving(10), 8); check_map(Pool(10), 1)
    with pytest.raises(BadInput, match='size=7: too small for this network, use 8 or more'): check_map(Halving(10), 7)

# -- loaders

def test_at_size_keeps_files_split_and_settings(tiny):
    d = get_dls(tiny, 8, 32, stats=None, presize=40, noise=50, files=subset(tiny, 3), workers=0)
    e = at_size(d, 64, 4)
    assert e.settings == dict(d.settings, size=64, bs=4, presize=80)
    assert list(e.train.items) == list(d.train.items) and list(e.valid.items) == list(d.valid.items)
    assert [y for _,y in e.train_ds] == [y for _,y in d.train_ds] and e.vocab == d.vocab
    assert e.valid.one_batch()[0].shape == (4, 3, 64, 64) and at_size(d, 16).bs == 8
    assert e.device == d.device and at_size(e, 32, 8).settings == d.settings
    assert at_size(d, 32) is d is at_size(d, 32, 8) and at_size(d, 32, 4) is not d # nothing changes

@settings(max_examples=5, deadline=None)
@example(size=54, presize=200) # exactly half a pixel
@given(size=st.integers(8, 100), presize=st.integers(32, 200))
def test_presize_keeps_its_ratio(tiny, size, presize):
    got = at_size(get_dls(tiny, 8, 32, presize=presize, workers=0), size).settings['presize']
    assert got >= size and 2*abs(32*got - presize*size) <= 32 # half a pixel at the most, in whole numbers: floats miss an exact half

@pytest.mark.parametrize('size,words', [(7, 'size=7'), (32., 'size=32.0')])
def test_at_size_refuses(dls, size, words):
    with pytest.raises(BadInput, match=words): at_size(dls, size)

def test_at_size_needs_loaders_of_the_course(dls):
    with pytest.raises(BadInput, match='dls has no settings: make it with get_dls'): at_size(dls.new_empty(), 64)

# -- stages

@settings(max_examples=50, deadline=None)
@given(stages=stage_lists, n=st.integers(1, 5000))
def test_pixels_against_a_loop_over_batches(stages, n):
    pixels = 0
    for i,(epochs,size,bs,lr) in enumerate(stages):
        for _ in range(epochs + (1 if i else 0)):
            left = n
            while left >= bs: pixels += bs*size*size; left -= bs
    assert pixels_seen(stages, n) == pixels
    assert sum(n_epochs(stages)) == sum(o[0] for o in stages) + len(stages) - 1

def test_the_books_pixels():
    stages = [(4, 128, 1, 3e-3), (5, 224, 1, 1e-3)]
    assert (pixels_seen(stages, 1), n_epochs(stages)) == (366_592, [4, 6])
    with pytest.raises(BadInput, match='n_images=0'): pixels_seen(stages, 0)

@pytest.mark.parametrize('stages,words', [
    ([], 'stages=.*list of one or more'), ('4:128', 'stages=.4:128.: it must be a list'), ([(4, 128, 64)], r'stages\[0\]=\(4, 128, 64\): it must be'),
    ([(0, 32, 8, 1e-3)], r'stages\[0\] epochs=0'), ([(1, 32, 8, float('nan'))], r'stages\[0\] lr=nan'),
    ([(1, 32, 8, 1e-3), (1, 64, 8, 1e-3), (1, 48, 8, 1e-3)], r'stages\[2\] size=48: sizes must grow, and the stage before has 64')])
def test_bad_stages(dls, stages, words):
    for f in (n_epochs, lambda o: pixels_seen(o, 10), lambda o: progressive_fit(get_learner(dls, Pool), o)):
        with pytest.raises(BadInput, match=words): f(stages)

@pytest.mark.smoke
@settings(max_examples=50, deadline=None)
@given(stages=stage_lists)
def test_parse_reads_what_was_written(stages):
    full = ','.join(f'{e}:{s}:{bs}:{lr!r}' for e,s,bs,lr in stages)
    assert parse_stages(full, 1, 1.) == stages and all(isinstance(o, Stage) for o in parse_stages(full, 1, 1.))
    assert parse_stages(', '.join(f'{e}:{s}' for e,s,*_ in stages), 7, .5) == [(e, s, 7, .5) for e,s,*_ in stages]
    assert parse_stages(','.join(f'{e}:{s}:{bs}' for e,s,bs,_ in stages), 7, .5) == [(e, s, bs, .5) for e,s,bs,_ in stages]

@pytest.mark.parametrize('text', ['4x128', '4:128,', '4:128:64:1e-3:1'])
def test_parse_refuses_what_it_can_not_read(text):
    with pytest.raises(BadInput, match="it must be epochs:size, or epochs:size:bs:lr") as e: parse_stages(text, 64, 3e-3)
    assert repr(text) in str(e.value) and '\n' not in str(e.value)

def test_parse_refuses_what_can_not_be_trained():
    for text,words in (('4:128,5:99', 'sizes must grow'), ('4:128:0', 'bs=0')):
        with pytest.raises(BadInput, match=words): parse_stages(text, 64, 3e-3)
    with pytest.raises(BadInput, match='bs=2.5'): parse_stages('4:128', 2.5, 3e-3)

# -- training in stages

two = [(1, 16, 16, 1e-2), (2, 24, 8, 1e-2)]

@pytest.mark.smoke
def test_one_record_of_all_stages(dls):
    watch, learn = Watch(), get_learner(dls, Pool, seed=3)
    run = progressive_fit(learn, two, name='two', cbs=watch, show=False)
    assert [o['epoch'] for o in run.history] == [1, 2, 3, 4] and (run.name, run.epochs, run.lr, run.seed) == ('two', 4, 1e-2, 3)
    secs = [o['seconds'] for o in run.history]
    assert secs == sorted(set(secs)) and run.seconds == secs[-1] > 0
    assert watch.train == [(16, 16)]*2 + [(24, 8)]*15 and watch.valid == {16, 24}
    assert sum(s*s*n for s,n in watch.train) == pixels_seen(two, len(dls.train_ds))
    assert run.settings['stages'] == two and (run.settings['size'], run.settings['bs'], run.settings['presize']) == (24, 8, 48)
    assert run.settings['cbs'] == ['Watch'] and learn.dls.settings['size'] == 24
    assert compare([run]).loc['two', 'epochs'] == 4
    with learn.no_bar(): assert run.accuracy == pytest.approx(learn.validate()[1]) # the last row is of the last size

def test_stages_against_fastai_by_hand(dls):
    "The same weights as `fit_one_cycle`, then `fine_tune`, with the seeds that two fits of one learner get."
    from imagenette_course.record import _seed_batches, no_output
    weights = lambda learn: nn.utils.parameters_to_vector(learn.model.parameters())
    a, b = (get_learner(dls, Pool, seed=5) for _ in range(2))
    progressive_fit(a, two, show=False)
    with no_output(b):
        b.dls = get_dls(dls.path, 16, 16, workers=0); _seed_batches(b); b.fit_one_cycle(1, 1e-2)
        b.dls = get_dls(dls.path, 8, 24, workers=0); _seed_batches(b); b.fine_tune(2, 1e-2)
    assert torch.allclose(weights(a), weights(b), atol=1e-6)
    assert not torch.allclose(weights(a), weights(get_learner(dls, Pool, seed=5)), atol=1e-3)

def test_one_stage_is_an_ordinary_fit(dls):
    a = progressive_fit(get_learner(dls, Pool), [(2, 32, 8, 1e-2)], show=False)
    b = fit(get_learner(dls, Pool), 2, 1e-2, show=False)
    drop = lambda run: [{k: v for k,v in o.items() if k != 'seconds'} for o in run.history]
    assert drop(a) == drop(b) and a.epochs == b.epochs == 2
    assert {k: v for k,v in a.settings.items() if k != 'stages'} == b.settings

def test_stages_repeat_with_the_seed(dls):
    def sums(seed):
        torch.rand(3); list(dls.train) # other uses of the generators and the loader
        watch = Watch()
        run = progressive_fit(get_learner(dls, Pool, seed=seed), two, cbs=watch, show=False)
        return watch.sums, [o['train_loss'] for o in run.history]
    assert sums(1) == sums(1) != sums(2)

def test_lines_count_through_the_stages(dls, capsys):
    progressive_fit(get_learner(dls, Pool), two)
    assert [o.split('  ')[0] for o in capsys.readouterr().out.splitlines()] == [f'epoch {i}/4' for i in range(1, 5)]
    progressive_fit(get_learner(dls, Pool), two, show=False)
    assert capsys.readouterr().out == ''

def test_a_learner_made_elsewhere(dls):
    learn = Learner(dls, Pool(10), loss_func=CrossEntropyLossFlat(), metrics=get_learner(dls, Pool).metrics)
    run = progressive_fit(learn, two, show=False)
    assert run.seed is None and len(run.history) == 4
    with pytest.raises(BadInput, match='needs the metric accuracy'): progressive_fit(Learner(dls, Pool(10), loss_func=CrossEntropyLossFlat()), two)

def vit(size):
    "A network for images of one size alone."
    return lambda n_out: VisionTransformer(size, patch_size=8, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8, num_classes=n_out)

@pytest.mark.parametrize('arch,stages,words', [
    (xresnet18, [(1, 16, 8, 1e-3), (1, 32, 8, 1e-3)], 'size=16: too small for this network, use 17 or more'),
    (vit(32), [(1, 32, 8, 1e-3), (1, 64, 8, 1e-3)], 'size=64: this network takes images of another size alone, such as 32 px'),
    (vit(24), [(1, 16, 8, 1e-3), (1, 24, 8, 1e-3)], 'model is a VisionTransformer that takes images of none of the sizes 1, 2, 4 to 4096 px: a network for one size'),
    (Pool, [(1, 16, 8, 1e-3), (1, 32, 41, 1e-3)], r'stages\[1\] bs=41: use the number of training images, 40, or less')])
def test_refused_before_training(dls, arch, stages, words):
    learn, watch = get_learner(dls, arch), Watch()
    with pytest.raises(BadInput, match=words) as e: progressive_fit(learn, stages, cbs=watch, show=False)
    assert not watch.train and learn.dls is dls and learn.n_fits == 0 and '\n' not in str(e.value)

# -- resolution of the files

def test_short_sides(own):
    files = sorted((own/'train').rglob('*.JPEG'))
    for i,f in enumerate(files): Image.new('RGB', (30+i, 20+i) if i % 2 else (20+i, 30+i)).save(f)
    assert short_sides(files) == [20+i for i in range(len(files))]
    some = short_sides(files, 3)
    assert some == [20, 20+(len(files)-1)//2, 20+len(files)-1]

def test_sizes_past_the_files_warn(own):
    for f in own.rglob('*.JPEG'): Image.new('RGB', (40, 30)).save(f)
    learn = get_learner(get_dls(own, 8, 16, workers=0), Pool)
    with pytest.warns(UserWarning, match='size=31 is more than the files have: 30 of 30 looked at have a shorter side, half of them 30 px or less'):
        progressive_fit(learn, [(1, 16, 8, 1e-3), (1, 31, 8, 1e-3)], show=False)
    grow = ProgressiveResize(16, 40, step=8)
    with pytest.warns(UserWarning, match='size=40 is more than the files have'): fit(get_learner(at_size(learn.dls, 40), Pool), 1, 1e-3, cbs=grow, show=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        progressive_fit(learn, [(1, 16, 8, 1e-3), (1, 30, 8, 1e-3)], show=False)

# -- the growing batch

@pytest.mark.smoke
@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 3), c=st.integers(1, 4), h=st.integers(2, 40), w=st.integers(2, 40), data=st.data())
def test_resize_against_torchvision_and_pillow(n, c, h, w, data):
    size = data.draw(st.integers(1, min(h, w)))
    x = torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(h*w))
    got = resize_batch(x, size)
    assert torch.allclose(got, TF.resize(x, [size, size], antialias=True), atol=1e-6)
    pillow = np.array(Image.fromarray(x[0,0].numpy()).resize((size, size), Image.Resampling.BILINEAR))
    assert np.allclose(got[0,0].numpy(), pillow, atol=1e-5)
    assert x.min()-1e-6 <= got.min() and got.max() <= x.max()+1e-6 # weighted means

@pytest.mark.parametrize('dtype,tol', [(torch.float32, 0), (torch.bfloat16, 1e-2)])
def test_types(dtype, tol):
    x = torch.rand(2, 3, 33, 33)
    got = resize_batch(x.to(dtype), 20)
    assert got.dtype == dtype and got.shape == (2, 3, 20, 20)
    assert torch.allclose(got.float(), resize_batch(x, 20), atol=tol)
    assert resize_batch(x, 33) is x

def test_float64_keeps_its_precision():
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    assert torch.equal(resize_batch(x, 9), torch.nn.functional.interpolate(x, (9, 9), mode='bilinear', antialias=True))

@pytest.mark.parametrize('size,words', [(0, 'size=0'), (9, 'size=9: it must be a whole number between 1 and 8')])
def test_resize_refuses(size, words):
    with pytest.raises(BadInput, match=words): resize_batch(torch.rand(1, 3, 8, 12), size)
    with pytest.raises(BadInput, match='x is a .*: it must be a float tensor with 4 dimensions'): resize_batch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 4)

def test_resize_compiled():
    x = torch.rand(2, 3, 32, 32).bfloat16()
    f = torch.compile(resize_batch, fullgraph=True, backend='aot_eager')
    for size in (16, 24, 32): assert torch.allclose(f(x, size).float(), resize_batch(x, size).float(), atol=1e-6)

@settings(max_examples=100, deadline=None)
@given(n=st.integers(2, 8), end=st.floats(.01, .99), pcts=st.lists(st.floats(0, 1), min_size=2, max_size=9).map(sorted))
def test_sizes_grow_and_end_full(n, end, pcts):
    sizes = [32*i for i in range(1, n+1)]
    got = [size_at(p, sizes, end) for p in pcts]
    assert got == sorted(got) and set(got) <= set(sizes)
    assert all(o == sizes[-1] for o,p in zip(got, pcts) if p >= end) and size_at(0, sizes, end) == sizes[0]

def test_sizes_share_the_time_equally():
    got = [size_at((i+.5)/800, [8, 16, 24, 32, 40], .5) for i in range(800)]
    assert [got.count(o) for o in (8, 16, 24, 32, 40)] == [100, 100, 100, 100, 400]

def test_steps():
    for args,sizes in (((32, 64, .75, 8), [32, 40, 48, 56, 64]), ((32, 64), [32, 64]), ((30, 64, .5, 20), [30, 50, 64]), ((32, 33), [32, 33])):
        assert ProgressiveResize(*args).sizes == sizes

@pytest.mark.parametrize('kwargs,words', [
    (dict(first=64, last=64), 'first=64: sizes must grow, and last is 64'), (dict(first=32, last=4096), 'last=4096'),
    (dict(first=32, last=64, step=0), 'step=0'), (dict(first=32, last=64, end=1.), 'end=1.0: .*between 0 and 1')])
def test_resizing_refuses(kwargs, words):
    with pytest.raises(BadInput, match=words): ProgressiveResize(**kwargs)

def test_the_size_grows_in_training_only(dls):
    watch, learn = Watch(), get_learner(dls, Pool)
    cbs, settings = learn.cbs.map(type), dict(learn.dls.settings)
    fit(learn, 4, 1e-2, cbs=[ProgressiveResize(16, 32, end=.5, step=8), watch], show=False)
    assert [o[0] for o in watch.train] == [16]*5 + [24]*5 + [32]*10 and watch.valid == {32}
    assert learn.cbs.map(type) == cbs and learn.dls is dls and dls.settings == settings
    with learn.no_bar(): learn.get_preds()
    assert dls.train.one_batch()[0].shape[-1] == 32

def test_the_batch_is_the_loaders_one_made_smaller(dls):
    class Keep(Callback):
        def __init__(self, order): self.order, self.xs, self.ys = order, [], []
        def before_batch(self): (self.xs.append(self.x), self.ys.append(self.y)) if self.training else None
    before, after = Keep(-5), Keep(5)
    learn = get_learner(dls, Pool)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-2, cbs=[before, after, ProgressiveResize(16, 32, end=.9, step=16)])
    a,b = (o.xs[0].as_subclass(torch.Tensor) for o in (before, after))
    assert a.shape[-1] == 32 and torch.allclose(b, TF.resize(a, [16, 16], antialias=True), atol=1e-5)
    assert all(torch.equal(p, q) for p,q in zip(before.ys, after.ys)) and type(after.xs[0]) is type(before.xs[0])

def test_growing_repeats_with_the_seed(dls):
    losses = lambda seed: [o['train_loss'] for o in fit(get_learner(dls, Pool, seed=seed), 2, 1e-2, cbs=ProgressiveResize(16, 32, step=8), show=False).history]
    assert losses(1) == losses(1) != losses(2)

@pytest.mark.parametrize('arch,args,words', [(Pool, (16, 64), r'last=64: it must be the size of the loaders, \(32, 32\)'),
                                             (xresnet18, (16, 32), 'size=16: too small for this network')])
def test_growth_is_checked_before_training(dls, arch, args, words):
    watch = Watch()
    with pytest.raises(BadInput, match=words): fit(get_learner(dls, arch), 1, 1e-3, cbs=[ProgressiveResize(*args), watch], show=False)
    assert not watch.train

# -- CUDA

@pytest.mark.gpu
def test_resize_on_the_gpu(dtype=torch.bfloat16, tol=1e-2):
    x = torch.rand(4, 3, 64, 64)
    on_gpu = x.to('cuda', dtype)
    torch.cuda.set_sync_debug_mode('error')
    try: got = resize_batch(on_gpu, 40)
    finally: torch.cuda.set_sync_debug_mode('default')
    assert got.is_cuda and got.dtype == dtype and torch.allclose(got.cpu().float(), resize_batch(x, 40), atol=tol)

@pytest.mark.gpu
def test_training_on_the_gpu_waits_for_nothing(tiny):
    class NoSync(Callback):
        "Around the callback's own work only; fastai's recorder does copy the loss."
        order, run_valid = -1, False
        def before_batch(self): torch.cuda.set_sync_debug_mode('error')
    class Sync(Callback):
        order, run_valid = 1, False
        def before_batch(self): torch.cuda.set_sync_debug_mode('default')
    learn, watch = get_learner(get_dls(tiny, 8, 64), xresnet18), Watch()
    run = fit(learn, 2, 1e-3, cbs=[NoSync(), ProgressiveResize(32, 64, step=16), Sync(), watch], show=False)
    assert next(learn.model.parameters()).is_cuda and {o[0] for o in watch.train} == {32, 48, 64} and len(run.history) == 2
    run = progressive_fit(learn, [(1, 32, 8, 1e-3), (1, 64, 8, 1e-3)], show=False)
    assert next(learn.model.parameters()).is_cuda and learn.dls.device.type == 'cuda' and len(run.history) == 3

# -- when something gets in the way

class Stop(Callback):
    "Ctrl-C at the second batch."
    def after_pred(self):
        if self.training and self.iter == 1: raise KeyboardInterrupt

def test_a_stopped_learner_has_the_loaders_of_the_last_stage(dls):
    learn = get_learner(dls, Pool)
    learn.splitter = lambda m: [[m[2].weight], [m[2].bias]]
    with pytest.raises(KeyboardInterrupt): progressive_fit(learn, [(1, 16, 8, 1e-2), (1, 32, 8, 1e-2)], cbs=Stop(), show=False)
    assert learn.dls.settings['size'] == 32 and all(p.requires_grad for p in learn.model.parameters())
    assert not any(isinstance(o, Stop) for o in learn.cbs)

def test_presize_does_not_drift(tiny):
    learn = get_learner(get_dls(tiny, 8, 48, presize=76, workers=0), Pool)
    run = progressive_fit(learn, [(1, 17, 8, 1e-2), (1, 48, 8, 1e-2)], show=False)
    assert learn.dls.settings['presize'] == 76 == run.settings['presize']

@pytest.mark.parametrize('make', [get_dls, cached_dls])
def test_what_was_added_to_loaders_is_carried_over(tiny, make):
    "Normalization of batches, of both parts, and a transform of single images."
    dls = make(tiny, 8, 32, stats=None)
    dls.add_tfms([Normalize.from_stats(*imagenet_stats)], 'after_batch')
    class Mark(Transform):
        def encodes(self, o): return o
    dls.train.after_item.add(Mark())
    new = at_size(at_size(dls, 36), 40)
    for dl in new.loaders: assert [type(o) for o in dl.after_batch.fs].count(Normalize) == 1
    assert sum(type(o).__name__ == 'Mark' for o in new.train.after_item.fs) == 1 and not any(type(o).__name__ == 'Mark' for o in new.valid.after_item.fs)
    assert new.valid.one_batch()[0].min() < -1 and new.valid.one_batch()[0].shape[-1] == 40
    same = at_size(make(tiny, 8, 32), 40)
    assert [type(o).__name__ for o in same.train.after_batch.fs] == [type(o).__name__ for o in make(tiny, 8, 40).train.after_batch.fs]
