"Averaged weights, Muon, the flat schedule, random erasing and blurred pooling."
import copy, io, math, pickle, warnings
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from scipy import stats
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from imagenette_course.record import no_output
from imagenette_course.baseline import compare, fit, get_learner
from imagenette_course.core import BadInput
from imagenette_course.dataset import get_dls
from imagenette_course.mixup import MixUp
from imagenette_course.resize import ProgressiveResize, progressive_fit, smallest_size
from imagenette_course.speed import cached_dls, fast_learner
from imagenette_course.techniques import *
from imagenette_course.techniques import RandomErasing # fastai exports another class of this name
from imagenette_course.tta import tta
from fastai.vision.all import (Callback, CancelFitException, CancelValidException, DataLoader, DataLoaders, GradientAccumulation, Learner, OptimWrapper, SGD,
    TensorImage, load_learner, ranger, set_seed, xresnet18)
from torchvision.transforms import v2

quick = settings(deadline=None, max_examples=20)
seeds = st.integers(0, 2**31)
small = partial(xresnet18, widen=.125) # milliseconds

class Net(nn.Sequential):
    "Kernels, batch normalization and a final layer, for images of 8 px."
    def __init__(self, n_out=10):
        super().__init__(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8),
                         nn.ReLU(), nn.Conv2d(8, 6, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 12), nn.Linear(12, n_out))

def plain_dls(n=24, bs=8):
    "Loaders of plain tensors."
    g = torch.Generator().manual_seed(0)
    items = list(zip(torch.randn(n, 3, 8, 8, generator=g), torch.randint(0, 10, (n,), generator=g)))
    return DataLoaders(DataLoader(items, bs=bs, shuffle=False), DataLoader(items[:10], bs=bs), device='cpu')

def net_learner(cbs=None, opt_func=SGD, **kwargs):
    set_seed(1)
    return Learner(plain_dls(), Net(), loss_func=F.cross_entropy, opt_func=opt_func, cbs=cbs, path='.', **kwargs)

def part(net, lo, hi): return [p for m in list(net)[lo:hi] for p in m.parameters()]

def floats(model): return {k: v.detach().clone() for k,v in model.state_dict().items() if v.is_floating_point()}
def same(a, b): return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k,v in a.items())
def close(a, b, tol=1e-5): return a.keys() == b.keys() and all(torch.allclose(v, b[k], atol=tol) for k,v in a.items())

@pytest.fixture(scope='module')
def dls(tiny): return get_dls(tiny, 8, 32, workers=0)

# averaged weights

@quick
@given(n=st.integers(0, 10**6), decay=st.floats(0, 1))
def test_the_decay_grows_to_its_cap(n, decay):
    d = ema_decay(n, decay)
    assert 0 <= d <= decay and d <= ema_decay(n+1, decay) and (d == decay or d == (n+1)/(n+10))

class ByHand(Callback):
    "The average by its definition, from a list of all weights; and what validation computed."
    order = 56
    def __init__(self, decay): self.decay, self.seen, self.ends = decay, [], []
    def before_train(self):
        if self.epoch == 0: self.avg,self.n = {k: v.double() for k,v in floats(self.model).items()},0
    def after_step(self):
        d = min(self.decay, (1+self.n)/(10+self.n))
        self.avg = {k: d*self.avg[k] + (1-d)*v.double() for k,v in floats(self.model).items()}
        self.n += 1
    def after_train(self): self.raw = floats(self.model)
    def after_batch(self):
        if not self.training: self.seen.append(floats(self.model))
    def after_epoch(self): self.ends.append(same(floats(self.model), self.raw))

def test_validation_sees_the_average_and_training_does_not():
    for decay in (0., .9, 1.):
        ref = ByHand(decay)
        learn = net_learner(EMA(decay))
        with no_output(learn): learn.fit(3, .1, cbs=ref)
        avg = {k: v.float() for k,v in ref.avg.items()}
        assert close(ref.seen[-1], avg) and close(floats(learn.model), avg)
        assert ref.ends == [True]*3 # raw weights, after each validation
        assert decay == 0 or not close(avg, ref.raw)

def test_training_goes_as_without():
    losses = []
    for cbs in (None, EMA):
        learn = net_learner(cbs)
        with no_output(learn): learn.fit(3, .1)
        losses.append([o[0] for o in learn.recorder.values]); steps = learn.model[1].num_batches_tracked.item()
    assert losses[0] == losses[1] and steps == 9

def test_against_torchs_averaged_model():
    class Theirs(Callback):
        def before_train(self):
            if self.epoch == 0: self.ref = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(.1), use_buffers=True); self.ref.n_averaged += 1
        def after_step(self): self.ref.update_parameters(self.model)
    learn, theirs = net_learner(EMA(.1)), Theirs()
    with no_output(learn): learn.fit(2, .1, cbs=theirs)
    assert close(floats(learn.model), floats(theirs.ref.module))

def test_what_was_recorded_is_what_is_left(dls, tmp_path):
    "Metrics, validate, predict, tta, save and load, after the fit."
    learn = get_learner(dls, small, cbs=EMA(.5))
    run = fit(learn, 2, 3e-3, show=False)
    learn.path = tmp_path
    with no_output(learn):
        loss,acc = learn.validate()
        assert acc == pytest.approx(run.accuracy, abs=1e-6) and loss == pytest.approx(run.history[-1]['valid_loss'], abs=1e-5)
        x,_ = dls.valid.one_batch()
        with torch.no_grad(): probs = learn.model.eval()(x).softmax(1).as_subclass(torch.Tensor)
        assert torch.allclose(learn.predict(dls.valid.items[0])[2].as_subclass(torch.Tensor), probs[0], atol=1e-5)
        before = floats(learn.model)
        tta(learn, n=1); learn.save('a')
        assert same(before, floats(learn.model)) and same(before, floats(get_other(dls, tmp_path).load('a').model))

def get_other(dls, path):
    learn = get_learner(dls, small, seed=9)
    learn.path = path
    return learn

class Raise(Callback):
    order = 70
    def __init__(self, event, ex): setattr(self, event, self.fail); self.ex = ex
    def fail(self):
        if self.epoch == 1: raise self.ex

@pytest.mark.parametrize('event', ['before_validate', 'after_validate'])
def test_stopped_in_validation(event):
    ref,ex = ByHand(.9),KeyboardInterrupt()
    learn = net_learner(EMA(.9))
    with no_output(learn):
        with pytest.raises(type(ex)): learn.fit(3, .1, cbs=[ref, Raise(event, ex)])
        avg = {k: v.float() for k,v in ref.avg.items()}
        here,there = floats(learn.model), learn.ema.spare
        assert close(here, avg) and close(there, ref.raw) if event == 'before_validate' else close(here, ref.raw) and close(there, avg)
        state = learn.ema.state_dict()
        assert close({k: state[k] for k in avg}, avg) and state.keys() == avg.keys() | {'n_averaged', 'epoch'}
        before = floats(learn.model)
        again = ByHand(.9)
        learn.fit(2, .1, cbs=again) # begins anew, from what is in the network
        assert close(floats(learn.model), {k: v.float() for k,v in again.avg.items()}) and not learn.ema.spare
    assert not same(before, floats(learn.model))

def test_stopped_in_training_and_exchanged_by_hand():
    ref,learn = ByHand(.9),net_learner(EMA(.9))
    class Stop(Callback):
        order = 70
        def after_step(self):
            if self.iter == 1: raise KeyboardInterrupt
    with no_output(learn), pytest.raises(KeyboardInterrupt): learn.fit(1, .1, cbs=[ref, Stop])
    raw,avg = floats(learn.model),{k: v.float() for k,v in ref.avg.items()}
    learn.ema.swap()
    assert close(floats(learn.model), avg)
    learn.ema.swap()
    assert same(floats(learn.model), raw)

def test_a_fit_that_ends_early_leaves_the_average():
    for event in ('before_validate', 'after_batch', 'before_epoch'):
        ref = ByHand(.9)
        learn = net_learner(EMA(.9))
        with no_output(learn): learn.fit(3, .1, cbs=[ref, Raise(event, CancelFitException())])
        assert close(floats(learn.model), {k: v.float() for k,v in ref.avg.items()}) and not learn.ema.spare

def test_a_validation_that_is_left_out():
    ref = ByHand(.9)
    learn = net_learner(EMA(.9))
    with no_output(learn): learn.fit(3, .1, cbs=[ref, Raise('before_validate', CancelValidException())])
    assert close(floats(learn.model), {k: v.float() for k,v in ref.avg.items()}) and ref.ends == [True]*3

def test_predictions_within_a_fit():
    class Predict(Callback):
        order,busy = 70,False
        def after_epoch(self):
            if not self.busy: self.busy = True; self.learn.get_preds(); self.busy = False
    ref,learn = ByHand(.9),net_learner(EMA(.9))
    ref.after_batch = lambda: None
    with no_output(learn):
        learn.fit(1, .1) # sets n_epoch
        start = floats(learn.model)
        learn.fit(3, .1, cbs=[ref, Predict])
    assert close(floats(learn.model), {k: v.float() for k,v in ref.avg.items()}) and not same(start, floats(learn.model))

def test_it_goes_on_from_a_checkpoint():
    "Two epochs and two more, through a file, are four."
    whole = net_learner(EMA(.9))
    with no_output(whole): whole.fit(4, .1)
    class Checkpoint(Callback):
        def after_epoch(self):
            if self.epoch == 1: torch.save(dict(model=self.model.state_dict(), ema=self.learn.ema.state_dict()), self.file); raise CancelFitException
    first = net_learner(EMA(.9)); cb = Checkpoint(); cb.file = file = io.BytesIO()
    with no_output(first): first.fit(4, .1, cbs=cb)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert state['ema']['n_averaged'] == 6 and all(isinstance(o, torch.Tensor) for o in state['ema'].values())
    for start in (2, 0): # told so, or counted anew
        second = net_learner(EMA(.9))
        second.model.load_state_dict(state['model'])
        second.ema.load_state_dict(state['ema'])
        with no_output(second): second.fit(4 if start else 2, .1, start_epoch=start)
        assert close(floats(second.model), floats(whole.model), 1e-6)

def test_state_of_another_network():
    learn = net_learner(EMA)
    learn.ema.load_state_dict(dict(a=torch.zeros(2), n_averaged=torch.tensor(3)))
    with no_output(learn), pytest.raises(BadInput, match='another network'): learn.fit(1)

def test_two_fits_begin_anew():
    learn = net_learner(EMA(.9))
    with no_output(learn):
        learn.fit(1, .1)
        middle,ref = floats(learn.model),ByHand(.9)
        learn.fit(2, .1, cbs=ref)
    assert close(floats(learn.model), {k: v.float() for k,v in ref.avg.items()}) and not close(middle, floats(learn.model))

def test_for_one_fit_alone():
    learn = net_learner()
    with no_output(learn):
        ref = ByHand(.9); learn.fit(2, .1, cbs=[EMA(.9), ref])
        avg = {k: v.float() for k,v in ref.avg.items()}
        assert close(floats(learn.model), avg) and not hasattr(learn, 'ema')
        learn.fit(1, 1e-9)

def test_steps_are_counted_not_batches():
    learn = net_learner()
    class Steps(Callback):
        order = 70
        def after_train(self): self.n = self.learn.ema.n
    count = Steps()
    with no_output(learn): learn.fit(1, .1, cbs=[EMA, GradientAccumulation(16), count])
    assert count.n == 1 # 24 images in steps of 16: one, and a rest

@pytest.mark.parametrize('use', [dict(bf16=True, channels_last=True, fused=True), dict(bf16=False, channels_last=False, fused=False)])
def test_with_the_quick_learner(tiny, use, tmp_path):
    learn = fast_learner(cached_dls(tiny, 8, 32), small, cbs=EMA(.5), use=use)
    ref = ByHand(.5)
    run = fit(learn, 1, 3e-3, cbs=ref, show=False)
    assert close(floats(learn.model), {k: v.float() for k,v in ref.avg.items()})
    assert run.settings['cbs'].count('EMA(decay=0.5)') == 1
    assert learn.model[0][0].weight.is_contiguous(memory_format=torch.channels_last if use['channels_last'] else torch.contiguous_format)
    fit(learn, 1, 3e-3, show=False)
    again = copy.deepcopy(learn.model)
    x,_ = learn.dls.valid.one_batch()
    with torch.no_grad(): assert torch.equal(again.eval()(x), learn.model.eval()(x))

@pytest.mark.filterwarnings('ignore:load_learner')
def test_ema_export(dls, tmp_path):
    learn = get_learner(dls, small, cbs=EMA)
    fit(learn, 1, 3e-3, show=False)
    learn.path = tmp_path
    learn.export('a.pkl')
    loaded = load_learner(tmp_path/'a.pkl')
    assert same(floats(learn.model), floats(loaded.model)) and loaded.ema.decay == .999
    assert pickle.loads(pickle.dumps(EMA(.5))).decay == .5
    with no_output(learn): learn.fit(1)

def test_lr_find_with_ema(dls):
    learn = get_learner(dls, small, cbs=EMA)
    before = floats(learn.model)
    with learn.no_bar(): learn.lr_find(num_it=8, show_plot=False)
    assert same(before, floats(learn.model)) and not learn.ema.spare

def test_stages_with_ema(dls):
    learn = get_learner(dls, small, cbs=EMA)
    run = progressive_fit(learn, [(1, 24, 8, 1e-3), (1, 32, 8, 1e-3)], show=False)
    with no_output(learn): assert learn.validate()[1] == pytest.approx(run.accuracy, abs=1e-6)

# Ranger, flat and then cosine

def test_flat_and_then_cosine(dls):
    learn = get_learner(dls, small, opt_func=ranger)
    run = fit(learn, 4, 2e-3, name='flat', show=False, schedule='flat')
    lrs = np.array(learn.recorder.hps['lr'])
    n = len(lrs)
    pos = np.clip((np.arange(n)/n - .75)/.25, 0, 1)
    assert np.allclose(lrs, 2e-3*1e-5 + 2e-3*(1-1e-5)*(1 + np.cos(np.pi*pos))/2, rtol=1e-4)
    assert run.name == 'flat' and len(run.history) == 4 and run.settings['opt'] == 'ranger' and run.settings['schedule'] == 'flat'
    assert len(compare([run])) == 1
    with pytest.raises(BadInput, match='differ in settings'): compare([run, fit(learn, 4, 2e-3, name='flat', show=False)])

# Muon

formats = [torch.contiguous_format, torch.channels_last]

@quick
@given(shape=st.one_of(st.tuples(*[st.integers(1, 5)]*2), st.tuples(*[st.integers(1, 5)]*3), st.tuples(*[st.integers(1, 4)]*4)), fmt=st.sampled_from(formats))
def test_a_matrix_on_the_same_memory(shape, fmt):
    w = torch.randn(*shape)
    if w.ndim == 4: w = w.to(memory_format=fmt)
    m = as_matrix(w)
    assert m.shape == (shape[0], math.prod(shape[1:])) and m.data_ptr() == w.data_ptr()
    assert torch.equal(m.sort(1)[0], w.flatten(1).sort(1)[0]) # the same numbers in each row
    m.mul_(2.)
    assert torch.equal(w.flatten(1).sort(1)[0], m.sort(1)[0])

def test_memory_with_gaps_is_refused():
    with pytest.raises(RuntimeError): as_matrix(torch.randn(4, 6, 3, 3)[:, ::2])

@quick
@given(seed=seeds, rows=st.integers(1, 12), cols=st.integers(1, 12))
def test_the_order_of_columns_does_not_matter(seed, rows, cols):
    "For torch.optim.Muon itself, whose products are in bfloat16."
    g = torch.Generator().manual_seed(seed)
    grad,perm = torch.randn(rows, cols, generator=g), torch.randperm(cols, generator=g)
    def step(g):
        w = torch.zeros(rows, cols); w.grad = g
        torch.optim.Muon([w], lr=1., weight_decay=0.).step()
        return w
    assert torch.allclose(step(grad)[:,perm], step(grad[:,perm]), atol=.1)

def test_which_weights_are_hidden():
    net = Net()
    assert [id(o) for o in hidden_weights(list(net.parameters()))] == [id(o) for o in (net[3].weight, net[6].weight, net[9].weight)]
    assert hidden_weights([]) == hidden_weights([torch.zeros(3)]) == hidden_weights([torch.zeros(3, 2), torch.zeros(3, 2)]) == []

def columns(w, fmt): return w.permute(0, 2, 3, 1).flatten(1) if w.ndim == 4 and fmt == torch.channels_last else w.flatten(1)
def uncolumns(m, w, fmt): return m.view(w.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2) if w.ndim == 4 and fmt == torch.channels_last else m.view(w.shape)

def backward(net, i=0):
    g = torch.Generator().manual_seed(i)
    net.zero_grad()
    F.cross_entropy(net(torch.randn(8, 3, 8, 8, generator=g)), torch.randint(0, 10, (8,), generator=g)).backward()

@pytest.mark.smoke
@pytest.mark.parametrize('fmt', formats, ids=str)
def test_against_torchs_muon_and_adamw(fmt):
    set_seed(0)
    ours = Net().to(memory_format=fmt)
    theirs = copy.deepcopy(ours)
    hyper = dict(lr=.02, betas=(.9, .99), eps=1e-7, weight_decay=.1)
    opt = MuonAdamW(ours.parameters(), **hyper)
    kernels = hidden_weights(list(theirs.parameters()))
    matrices = [columns(w.detach(), fmt).clone() for w in kernels]
    refs = [torch.optim.Muon(matrices, lr=.02, weight_decay=.1, momentum=.9, adjust_lr_fn='match_rms_adamw'),
            torch.optim.AdamW([p for p in theirs.parameters() if all(p is not k for k in kernels)], **hyper)]
    for i in range(4):
        for net in (ours, theirs): backward(net, i)
        for m,w in zip(matrices, kernels): m.grad = columns(w.grad, fmt)
        for o in (opt, *refs): o.step()
        for m,w in zip(matrices, kernels): w.data.copy_(uncolumns(m, w, fmt))
        assert all(torch.equal(a, b) for a,b in zip(ours.parameters(), theirs.parameters()))

def test_the_step_is_orthogonal():
    set_seed(0)
    net = Net()
    before = [w.detach().clone() for w in hidden_weights(list(net.parameters()))]
    opt = MuonAdamW(net.parameters(), lr=1., betas=(0., .99), weight_decay=0.)
    for p in net.parameters(): p.grad = torch.randn_like(p) # of a batch it could have directions of size 0, which stay 0
    opt.step()
    for a,b in zip(before, hidden_weights(list(net.parameters()))):
        change = (a - b.detach()).flatten(1)
        s = torch.linalg.svdvals(change)/(.2*math.sqrt(max(change.shape)))
        assert s.max() < 1.3 and s.median() > .6

def test_another_order_of_memory_in_the_middle():
    "As when fastai's ChannelsLast moves a network whose optimizer has been made: momentum is not mixed up."
    nets = []
    for steps,move in ((0, False), (4, False), (4, True)):
        set_seed(0)
        net = Net()
        opt = MuonAdamW(net.parameters(), lr=1e-2)
        for i in range(steps):
            if move: net.to(memory_format=formats[i % 2])
            backward(net, i); opt.step()
        nets.append([w.detach() for w in hidden_weights(list(net.parameters()))])
    for start,stay,moved in zip(*nets): assert (stay-moved).norm() < .05*(start-stay).norm()

def test_state_goes_through_a_file():
    set_seed(0)
    whole = Net(); opt = MuonAdamW(whole.parameters(), lr=1e-2)
    for i in range(2): backward(whole, i); opt.step()
    file = io.BytesIO(); torch.save(dict(net=whole.state_dict(), opt=opt.state_dict()), file); file.seek(0)
    state = torch.load(file, weights_only=True)
    other = Net(); opt2 = MuonAdamW(other.parameters(), lr=1.)
    other.load_state_dict(state['net']); opt2.load_state_dict(state['opt'])
    again = copy.deepcopy((other, opt2)); third = pickle.loads(pickle.dumps((other, opt2)))
    backward(whole, 2); opt.step()
    for net,o in ((other, opt2), again, third):
        backward(net, 2); o.step()
        assert same(floats(whole), floats(net))
    a,b = opt.state_dict(), opt2.state_dict()
    assert a['param_groups'] == b['param_groups'] and a['state'].keys() == b['state'].keys()
    for k in a['state']: assert same(a['state'][k], b['state'][k])
    shapes = {tuple(p.shape) for p in whole.parameters()}
    assert all(tuple(v.shape) in shapes | {()} for s in a['state'].values() for v in s.values())

def test_groups_stay_as_they_are_given():
    net = Net()
    learn = net_learner(opt_func=muon, splitter=lambda m: [part(m, 0, 4), part(m, 4, None)])
    with no_output(learn):
        learn.create_opt()
        assert len(learn.opt.param_lists) == 2 and len(learn.opt.hypers) == 2
        learn.freeze()
        before = floats(learn.model)
        learn.fit(1, slice(1e-3, 1e-2), wd=0.)
        after = floats(learn.model)
        assert [h['lr'] for h in learn.opt.hypers] == [1e-3, 1e-2]
        assert all(torch.equal(before[k], after[k]) == (k == '3.weight' or k.startswith('0.')) for k in before if 'weight' in k and k not in ('1.weight',))
    assert len(MuonAdamW(net.parameters()).param_groups) == 1

def test_groups_have_their_own_rates():
    "A group's rate reaches Muon and AdamW in it, and no other group."
    net = Net()
    opt = MuonAdamW([dict(params=part(net, 0, 4), lr=0.), dict(params=part(net, 4, None))], lr=.1, weight_decay=0.)
    before = [p.detach().clone() for p in net.parameters()]
    backward(net); opt.step()
    moved = [not torch.equal(a, b) for a,b in zip(before, net.parameters())]
    n = len(part(net, 0, 4))
    assert not any(moved[:n]) and sum(moved[n:]) >= len(moved[n:])-1

def test_schedules_reach_both():
    for opt_func in (muon, ranger):
        learn = net_learner(opt_func=opt_func)
        seen = []
        class Watch(Callback):
            order = 70
            def before_step(self): seen.append(dict(self.opt.hypers[0]))
        with no_output(learn): learn.fit_one_cycle(2, .01, cbs=Watch)
        hps = learn.recorder.hps
        assert [o['lr'] for o in seen] == pytest.approx(hps['lr']) and [o['mom'] for o in seen] == pytest.approx(hps['mom'])
        assert max(hps['lr']) > 5*min(hps['lr']) and max(hps['mom']) > min(hps['mom'])

def test_momentum_and_decay_reach_both_halves():
    "mom=0 makes the second step of each half independent of the first gradient; wd shrinks weights without a gradient's help."
    learn = net_learner(opt_func=muon)
    learn.create_opt()
    learn.opt.set_hypers(lr=.1, mom=.7, wd=.5, sqr_mom=.9)
    assert learn.opt.opt.param_groups[0]['betas'] == (.7, .9) and learn.opt.opt.param_groups[0]['weight_decay'] == .5
    for p in learn.model.parameters(): p.grad = torch.zeros_like(p)
    before = floats(learn.model)
    learn.opt.step()
    for k,p in learn.model.named_parameters(): assert torch.allclose(p, before[k]*(1-.1*.5), atol=1e-6)

def test_weights_without_a_gradient_stay():
    net = Net(); opt = MuonAdamW(net.parameters(), lr=.1)
    net[3].weight.requires_grad_(False); net[0].weight.requires_grad_(False)
    before = floats(net); backward(net); opt.step()
    assert torch.equal(before['3.weight'], net[3].weight) and torch.equal(before['0.weight'], net[0].weight) and not torch.equal(before['6.weight'], net[6].weight)

def test_a_closure_and_no_hidden_weights():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)); ref = copy.deepcopy(net)
    opt,adam = MuonAdamW(net.parameters(), lr=.01), torch.optim.AdamW(ref.parameters(), lr=.01, betas=(.95, .999))
    def closure(): backward(net); return torch.tensor(3.)
    assert opt.step(closure) == 3.
    backward(ref); adam.step()
    assert all(torch.equal(a, b) for a,b in zip(net.parameters(), ref.parameters()))

@pytest.mark.filterwarnings('ignore:load_learner')
def test_muon_in_a_learner(tiny, tmp_path):
    "Channels last, bf16, stages, two fits, saving with the optimizer, export."
    for use in (dict(bf16=True, channels_last=True, fused=True), dict(bf16=False, channels_last=False, fused=False)):
        learn = fast_learner(cached_dls(tiny, 8, 32), small, opt_func=muon, cbs=MixUp, use=use)
        learn.path = tmp_path
        run = fit(learn, 1, 3e-3, show=False)
        assert run.settings['opt'] == 'OptimWrapper(opt=MuonAdamW)' and math.isfinite(run.history[-1]['train_loss'])
        run = progressive_fit(learn, [(1, 24, 8, 1e-3), (1, 32, 8, 1e-3)], show=False)
        assert len(run.history) == 3 and math.isfinite(run.history[-1]['train_loss'])
        learn.save('a', with_opt=True)
        state = copy.deepcopy(learn.opt.state_dict()['state'])
        other = fast_learner(cached_dls(tiny, 8, 32), small, opt_func=muon, cbs=MixUp, use=use, seed=5); other.path = tmp_path
        other.load('a', with_opt=True)
        assert all(same(o, other.opt.state_dict()['state'][k]) for k,o in state.items())
        learn.export('a.pkl')
        assert all(same(o, learn.opt.state_dict()['state'][k]) for k,o in state.items()) # export made a new optimizer
        x,_ = learn.dls.valid.one_batch()
        with torch.no_grad(): assert torch.allclose(load_learner(tmp_path/'a.pkl').model.eval()(x), learn.model.eval()(x), atol=.05)
        fit(learn, 1, 3e-3, show=False)

def test_fine_tune_freezes_no_half(dls):
    "A network with one group has one group with Muon, too."
    learn = get_learner(dls, small, opt_func=muon)
    with no_output(learn):
        learn.create_opt(); learn.freeze()
        assert all(p.requires_grad for p in learn.model.parameters())

def test_muon_refuses():
    for kwargs,words in ((dict(lr=float('nan')), 'lr=nan'), (dict(eps=-1e-8), 'eps='), (dict(weight_decay=-.1), 'weight_decay=-0.1'), (dict(betas=(.9, 1.5)), 'betas=1.5')):
        with pytest.raises(BadInput, match=words): MuonAdamW(Net().parameters(), **kwargs)

def test_a_step_makes_no_optimizer_and_no_temporary_momentum(monkeypatch):
    net = Net(); opt = MuonAdamW(net.parameters(), lr=.01)
    backward(net); opt.step()
    def no(*args, **kwargs): raise AssertionError('made in a step')
    for o in (torch.optim.Muon, torch.optim.AdamW): monkeypatch.setattr(o, '__init__', no)
    monkeypatch.setattr(torch, 'zeros_like', no)
    before = floats(net); backward(net); opt.step()
    assert not same(before, floats(net))

# random erasing

sides = st.integers(2, 60)

@quick
@given(seed=seeds, n=st.integers(1, 9), height=sides, width=sides)
def test_boxes_lie_inside(seed, n, height, width):
    torch.manual_seed(seed)
    boxes = erasing_boxes(n, height, width)
    top,left,h,w = boxes.unbind(1)
    assert boxes.shape == (n, 4) and boxes.dtype == torch.int64
    assert (boxes >= 0).all() and (top + h <= height).all() and (left + w <= width).all() and (h < height).all() and (w < width).all()

def test_areas_and_ratios_are_torchvisions():
    "Two samples, ours in one go and theirs one by one, could be of one distribution."
    for height,width in ((224, 224), (160, 240)):
        set_seed(0)
        n,theirs = 3000, v2.RandomErasing(p=1., scale=(.02, .33), ratio=(.3, 1/.3))
        ps = [theirs.make_params([torch.zeros(3, height, width)]) for _ in range(n)]
        ref = torch.tensor([(o['i'], o['j'], o['h'], o['w']) for o in ps]).double()
        ours = erasing_boxes(n, height, width).double()
        for f in (lambda o: o[:,2]*o[:,3], lambda o: o[:,2]/o[:,3], lambda o: o[:,0]/(height-o[:,2]), lambda o: o[:,1]/(width-o[:,3])):
            assert stats.ks_2samp(f(ours), f(ref)).pvalue > 1e-3
        assert stats.ks_2samp(ours[:,2], 1.15*ref[:,2]).pvalue < 1e-3 # the test can tell

def test_areas_are_even_where_all_fit():
    "Squares of half the side at most: nothing is turned down, so area is uniform and the logarithm of the ratio is."
    torch.manual_seed(0)
    _,_,h,w = erasing_boxes(4000, 1000, 1000, area=(.05, .25), ratio=.5).double().unbind(1)
    assert stats.kstest(h*w/1e6, stats.uniform(.05, .2).cdf).pvalue > 1e-3
    assert stats.kstest((h/w).log(), stats.uniform(-math.log(2), 2*math.log(2)).cdf).pvalue > 1e-3

def test_a_box_that_never_fits():
    assert (erasing_boxes(50, 4, 400, area=(.9, .99), ratio=.9)[:,2:] == 0).all()

@pytest.mark.smoke
@quick
@given(seed=seeds, n=st.integers(1, 6), height=sides, width=sides, dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_erasing_image_by_image(seed, n, height, width, dtype):
    torch.manual_seed(seed)
    x,fill,boxes = torch.randn(n, 3, height, width).to(dtype), torch.randn(n, 3, height, width).to(dtype), erasing_boxes(n, height, width)
    before,slow = x.clone(), x.clone()
    for i,(t,l,h,w) in enumerate(boxes.tolist()): slow[i, :, t:t+h, l:l+w] = fill[i, :, t:t+h, l:l+w]
    res = erase(x, boxes, fill)
    assert torch.equal(res, slow) and res.dtype == dtype and torch.equal(x, before)

def test_types_and_memory_stay():
    x = TensorImage(torch.randn(4, 3, 8, 8)).to(memory_format=torch.channels_last)
    res = erase(x, erasing_boxes(4, 8, 8), torch.randn_like(x))
    assert isinstance(res, TensorImage) and res.is_contiguous(memory_format=torch.channels_last)

x4,b4 = torch.zeros(4, 3, 8, 8), torch.zeros(4, 4, dtype=torch.int64)
def test_erase_refuses():
    for args,words in (((x4.byte(), b4, x4), 'x is a torch.uint8'), ((x4, b4[:3], x4), r'boxes is a torch.int64 of shape \(3, 4\)'), ((x4, b4.float(), x4), 'boxes is a torch.float32')):
        with pytest.raises(BadInput, match=words): erase(*args)

class Watch(Callback):
    order = 9
    def __init__(self): self.train, self.valid = [], []
    def before_batch(self): (self.train if self.training else self.valid).append(self.xb[0].clone())

class Before(Watch):
    order = -9
    name = 'before'

def test_erasing_in_training_alone():
    for p in (0., .5, 1.):
        learn,watch,before = net_learner(RandomErasing(p)), Watch(), Before()
        learn.dls = DataLoaders(*[DataLoader([(torch.zeros(3, 24, 24), 0)]*n, bs=20) for n in (400, 20)], device='cpu')
        with no_output(learn): learn.fit(1, .1, cbs=[watch, before])
        x = torch.cat(watch.train)
        holes = (x != 0).any(1)
        share = holes.flatten(1).any(1).float().mean().item()
        assert share == pytest.approx(p, abs=.1) and (p not in (0, 1) or share == p)
        assert torch.equal(torch.cat(watch.valid), torch.cat(before.valid)) and (torch.cat(before.train) == 0).all()
        if p:
            each = holes[holes.flatten(1).any(1)]
            assert len({tuple(o.flatten().tolist()) for o in each[:50]}) > 40 # another box for each image
            for o in each[:50]: assert o[o.any(1)][:,o.any(0)].all() # one rectangle
            assert x[(x != 0)].std().item() == pytest.approx(1, abs=.05) and x[(x != 0)].mean().item() == pytest.approx(0, abs=.05)

def test_theirs_have_one_box_for_all():
    "What the chapter says of fastai and torchvision; when it is no longer so, it must be written anew."
    from fastai.vision.augment import RandomErasing as Fastai
    set_seed(4)
    black = torch.zeros(4, 3, 32, 32)
    for o in (Fastai(p=1., sl=.1)(TensorImage(black.clone()), split_idx=0), v2.RandomErasing(p=1., value='random')(black)):
        holes = (torch.as_tensor(o) != 0).any(1)
        assert holes[0].any() and torch.equal(holes, holes[:1].expand(4, 32, 32))

def test_erasing_with_all_else(dls):
    learn = fast_learner(dls, small, cbs=[RandomErasing(), MixUp(), ProgressiveResize(24, 32, step=8), EMA()])
    run = fit(learn, 2, 3e-3, show=False)
    assert math.isfinite(run.history[-1]['train_loss']) and 'RandomErasing' in run.settings['cbs']
    assert pickle.loads(pickle.dumps(RandomErasing(.3))).p == .3

def test_bad_share():
    for make in (RandomErasing, EMA):
        for bad in (-.1, 1.1, float('nan'), '1'):
            with pytest.raises(BadInput, match='(p|decay)='): make(bad)

# blurred pooling

@pytest.mark.smoke
@quick
@given(seed=seeds, n=st.integers(1, 3), c=st.integers(1, 5), h=st.integers(2, 20), w=st.integers(2, 20))
def test_against_timm(seed, n, c, h, w):
    BlurPool2d = pytest.importorskip('timm.layers').BlurPool2d
    x = torch.randn(n, c, h, w, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(BlurPool()(x), BlurPool2d(c, filt_size=3, stride=2)(x), atol=1e-6)

@quick
@given(h=st.integers(2, 40), w=st.integers(2, 40))
def test_sizes_are_those_of_the_pooling(h, w):
    x = torch.rand(1, 2, h, w)
    pool = nn.MaxPool2d(3, 2, 1)
    net = use_blur_pool(nn.Sequential(pool))
    out = net(x)
    assert out.shape == pool(x).shape
    assert (out <= x.max() + 1e-6).all() and (out >= x.min() - 1e-6).all()
    assert torch.allclose(net(torch.full_like(x, .3)), torch.full_like(out, .3))

def test_a_shift_by_two_is_a_shift_by_one():
    x = torch.rand(1, 2, 20, 20)
    net = use_blur_pool(nn.Sequential(nn.MaxPool2d(3, 2, 1)))
    assert torch.allclose(net(x.roll(2, -1))[...,3:-2], net(x)[...,2:-3], atol=1e-6)

def test_less_changes_with_a_shift_by_one():
    "A comb of lines: plain pooling sees it or not, by a pixel."
    x = torch.zeros(1, 1, 16, 32); x[..., ::4] = 1.
    pool = nn.MaxPool2d(3, 2, 1)
    def change(f): return (f(x)[...,2:-2].mean() - f(x.roll(1, -1))[...,2:-2].mean()).abs().item()
    assert change(pool) > .2 > .05 > change(use_blur_pool(nn.Sequential(nn.MaxPool2d(3, 2, 1))))

@pytest.mark.filterwarnings('ignore:load_learner')
def test_blurred_pooling_in_a_learner(tiny, tmp_path):
    learn = fast_learner(cached_dls(tiny, 8, 32), small, use=dict(bf16=True, channels_last=True, fused=True), cbs=EMA(.5))
    names,low = list(learn.model.state_dict()), smallest_size(learn.model)
    assert use_blur_pool(learn.model) is learn.model and list(learn.model.state_dict()) == names and smallest_size(learn.model) == low
    fit(learn, 2, 3e-3, show=False)
    learn.path = tmp_path; learn.export('a.pkl')
    x,_ = learn.dls.valid.one_batch()
    loaded = load_learner(tmp_path/'a.pkl').model
    with torch.no_grad(): assert torch.allclose(loaded.eval()(x), learn.model.eval()(x), atol=.05)
    assert isinstance(loaded[3][1], BlurPool) and torch.equal(copy.deepcopy(learn.model)[3][1].kernel, torch.tensor([[[[1., 2, 1], [2, 4, 2], [1, 2, 1]]]])/16)

def test_blurring_in_other_types():
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        x = torch.rand(1, 2, 9, 8)
        out = BlurPool()(x.to(dtype))
        assert out.dtype == dtype and torch.allclose(out.float(), BlurPool()(x), atol=.01)

def test_nothing_to_blur():
    for net in (Net(), nn.Sequential(nn.MaxPool2d(2)), nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True)), nn.MaxPool2d(3, 2, 1)):
        with pytest.raises(BadInput, match='there is nothing to blur'): use_blur_pool(net)

# on a GPU

@pytest.mark.gpu
def test_on_the_gpu_as_on_the_cpu():
    set_seed(0)
    net = Net(); gpu = copy.deepcopy(net).cuda()
    opts = MuonAdamW(net.parameters(), lr=1e-2), MuonAdamW(gpu.parameters(), lr=1e-2)
    for i in range(3):
        backward(net, i)
        for p,q in zip(net.parameters(), gpu.parameters()): q.grad = p.grad.cuda()
        for o in opts: o.step()
    assert all(torch.allclose(p, q.cpu(), atol=5e-3) for p,q in zip(net.parameters(), gpu.parameters()))
    x,boxes,fill = torch.randn(9, 3, 20, 24), erasing_boxes(9, 20, 24), torch.randn(9, 3, 20, 24)
    assert torch.equal(erase(x.cuda(), boxes.cuda(), fill.cuda()).cpu(), erase(x, boxes, fill))
    assert erasing_boxes(9, 20, 24, device='cuda').is_cuda and torch.allclose(BlurPool().cuda()(x.cuda()).cpu(), BlurPool()(x), atol=1e-4)

@pytest.mark.gpu
def test_a_step_never_waits_for_the_gpu():
    net = Net().cuda().to(memory_format=torch.channels_last)
    opt,ema,erasing = MuonAdamW(net.parameters()), EMA(), RandomErasing()
    x,y = torch.randn(8, 3, 8, 8, device='cuda'), torch.randint(0, 10, (8,), device='cuda')
    learn = SimpleNamespace(model=net, epoch=0, xb=(x,), training=True)
    ema.learn = erasing.learn = learn
    ema.before_train()
    def step():
        learn.xb = (x,)
        erasing.before_batch()
        F.cross_entropy(net(learn.xb[0]), y).backward()
        opt.step(); ema.after_step(); opt.zero_grad()
    step()
    torch.cuda.set_sync_debug_mode('error')
    try: step()
    finally: torch.cuda.set_sync_debug_mode('default')

@pytest.mark.gpu
def test_training_on_the_gpu(tiny):
    learn = fast_learner(cached_dls(tiny, 8, 32), small, opt_func=muon, cbs=[EMA(.5), RandomErasing(), MixUp()])
    use_blur_pool(learn.model)
    run = fit(learn, 2, 3e-3, show=False)
    with no_output(learn): assert math.isfinite(run.history[-1]['train_loss']) and learn.validate()[1] == pytest.approx(run.accuracy, abs=1e-6)
