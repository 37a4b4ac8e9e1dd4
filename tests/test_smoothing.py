"Label smoothing against PyTorch's loss, calibration against cases by hand, both in a Learner."
import math, pickle
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from imagenette_course import smoothing
from imagenette_course.baseline import fit, get_learner
from imagenette_course.core import BadInput
from imagenette_course.dataset import get_dls
from imagenette_course.smoothing import *
from fastai.vision.all import ClassificationInterpretation, MixUp, TensorCategory, TensorImage
from hypothesis import given, settings, strategies as st
from torch import nn

many = settings(deadline=None, max_examples=25)
REDUCTIONS = ('mean', 'sum', 'none')

class Pool(nn.Sequential):
    "A network of milliseconds: mean colour, and one linear layer."
    def __init__(self, n_out): super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, n_out))

def batch(n, c, seed=0, scale=5., dtype=torch.float32):
    "Logits, labels, soft targets, weights."
    gen = torch.Generator().manual_seed(seed)
    rand = lambda *s: torch.rand(*s, generator=gen, dtype=torch.float64).to(dtype)
    z = (torch.randn(n, c, generator=gen, dtype=torch.float64)*scale).to(dtype)
    return z, torch.randint(c, (n,), generator=gen), (4*rand(n, c)).softmax(1), rand(c) + .1

cases = dict(n=st.integers(1, 20), c=st.integers(1, 30), seed=st.integers(0, 999), eps=st.floats(0, .999), scale=st.sampled_from([.1, 5., 1e3]))

# ---- targets

@pytest.mark.smoke
@many
@given(n=cases['n'], c=cases['c'], seed=cases['seed'], eps=cases['eps'])
def test_targets_against_the_formula(n, c, seed, eps):
    _,y,_,_ = batch(n, c, seed)
    q = smooth_targets(y, c, eps)
    torch.testing.assert_close(q, (1-eps)*F.one_hot(y, c).float() + eps/c)
    torch.testing.assert_close(q.sum(1), torch.ones(n))

def test_targets_by_hand():
    torch.testing.assert_close(smooth_targets(torch.tensor([1]), 5, .1), torch.tensor([[.02, .92, .02, .02, .02]]))
    assert type(smooth_targets(TensorCategory(torch.tensor([1])), 5, .1)) is torch.Tensor
    assert smooth_targets(torch.zeros(0, dtype=torch.int64), 5, .1).shape == (0, 5)

def test_logit_gap():
    assert logit_gap(.1, 10) == pytest.approx(math.log(91), abs=1e-12) and round(logit_gap(.1, 10), 3) == 4.511
    q = smooth_targets(torch.tensor([2]), 7, .3)[0]
    assert logit_gap(.3, 7) == pytest.approx((q[2]/q[0]).log().item(), abs=1e-5)
    for args,words in (((0, 10), 'eps=0'), ((1, 10), 'eps=1'), ((.1, 1), 'n_classes=1')):
        with pytest.raises(BadInput, match=words): logit_gap(*args)

# ---- the loss

@pytest.mark.smoke
@settings(deadline=None, max_examples=100)
@given(soft=st.booleans(), weighted=st.booleans(), reduction=st.sampled_from(REDUCTIONS), **cases)
def test_loss_against_torch(soft, weighted, reduction, n, c, seed, eps, scale):
    z,y,q,w = batch(n, c, seed, scale, torch.float64)
    z.requires_grad_(); q.requires_grad_()
    t,w,g = q if soft else y, w if weighted else None, torch.randn(n, dtype=torch.float64)
    ours = LabelSmoothingCrossEntropy(eps, w, reduction)(z, t)
    ref = F.cross_entropy(z, t, w, reduction=reduction, label_smoothing=eps)
    torch.testing.assert_close(ours, ref)
    wrt = (z, q) if soft else (z,)
    g = g if reduction == 'none' else None
    torch.testing.assert_close(torch.autograd.grad(ours, wrt, g), torch.autograd.grad(ref, wrt, g))

@many
@given(soft=st.booleans(), grad=st.booleans(), **cases)
def test_loss_from_the_target_matrix(soft, grad, n, c, seed, eps, scale):
    "Not through PyTorch's loss: -sum q' log p, with q' written out."
    z,y,q,_ = batch(n, c, seed, scale, torch.float64)
    z.requires_grad_(grad) # our own backward pass, or PyTorch's loss
    target = (1-eps)*(q if soft else F.one_hot(y, c)) + eps/c
    torch.testing.assert_close(smooth_cross_entropy(z, q if soft else y, eps, reduction='none'), -(target*z.log_softmax(1)).sum(1))

@many
@given(dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), soft=st.booleans(), **{**cases, 'scale': st.just(5.)})
def test_precision(dtype, soft, n, c, seed, eps, scale):
    "Loss in fp32, gradient in the logits' type; for bf16 both as near to the exact ones as PyTorch's, or nearer."
    z,y,q,_ = batch(n, c, seed, scale, dtype)
    t = q if soft else y
    z.requires_grad_()
    loss = smooth_cross_entropy(z, t, eps)
    assert loss.dtype == torch.float32
    z64 = z.detach().double().requires_grad_()
    exact = F.cross_entropy(z64, t.double() if soft else t, label_smoothing=eps)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-4, atol=1e-5)
    g, = torch.autograd.grad(loss, z); g64, = torch.autograd.grad(exact, z64)
    assert g.dtype == dtype
    torch.testing.assert_close(g.double(), g64, rtol=2*torch.finfo(dtype).eps, atol=1e-5)

def test_large_logits():
    z = torch.tensor([[1e4, 0., -1e4], [3e38, 3e38, 0.]], requires_grad=True)
    y = torch.tensor([1, 0])
    for eps in (0., .1):
        ours, ref = (f(z, y) for f in (LabelSmoothingCrossEntropy(eps, reduction='none'), nn.CrossEntropyLoss(label_smoothing=eps, reduction='none')))
        torch.testing.assert_close(ours, ref)
        assert ours.isfinite().all() and torch.autograd.grad(ours.sum(), z)[0].isfinite().all()
    shift = torch.tensor([[1000., 1001, 1003]])
    torch.testing.assert_close(smooth_cross_entropy(shift, torch.tensor([2])), smooth_cross_entropy(shift-1000, torch.tensor([2])))

def test_derivatives_against_finite_differences():
    z,y,q,w = batch(3, 4, 1, 2., torch.float64)
    z.requires_grad_(); q.requires_grad_()
    for reduction in REDUCTIONS:
        hard = lambda z: smooth_cross_entropy(z, y, .2, reduction=reduction)
        soft = lambda z,q: smooth_cross_entropy(z, q, .2, w, reduction)
        assert torch.autograd.gradcheck(hard, z) and torch.autograd.gradgradcheck(hard, z)
        assert torch.autograd.gradcheck(soft, (z, q)) and torch.autograd.gradgradcheck(soft, (z, q))

def test_gradient_is_p_minus_q_and_bounded():
    z,y,_,_ = batch(50, 10, 2, 100.)
    z.requires_grad_()
    g, = torch.autograd.grad(smooth_cross_entropy(z, y, .1, reduction='sum'), z)
    torch.testing.assert_close(g, z.softmax(1) - smooth_targets(y, 10, .1))
    assert g.abs().max() <= 1

def test_minimum_is_at_the_logit_gap():
    q = torch.zeros(1, 10, dtype=torch.float64, requires_grad=True)
    opt = torch.optim.LBFGS([q], max_iter=200, tolerance_grad=1e-12, line_search_fn='strong_wolfe')
    def closure():
        opt.zero_grad(); loss = smooth_cross_entropy(q, torch.tensor([3]), .1); loss.backward(); return loss
    opt.step(closure)
    assert (q[0,3] - q[0,0]).item() == pytest.approx(logit_gap(.1, 10), abs=1e-4)

def test_compiles_in_one_graph():
    z,y,q,w = batch(6, 5)
    for t,weight in ((y, None), (q, w)):
        f = torch.compile(lambda z,t: smooth_cross_entropy(z, t, .1, weight), fullgraph=True, backend='aot_eager')
        a,b = (z.clone().requires_grad_() for _ in range(2))
        loss, ref = f(a, t), F.cross_entropy(b, t, weight, label_smoothing=.1)
        loss.backward(); ref.backward()
        torch.testing.assert_close(loss, ref); torch.testing.assert_close(a.grad, b.grad)

def test_fastai_tensors():
    z,y,_,_ = batch(6, 5)
    loss = smooth_cross_entropy(TensorImage(z), TensorCategory(y))
    assert type(loss) is torch.Tensor
    torch.testing.assert_close(loss, F.cross_entropy(z, y, label_smoothing=.1))

def test_inputs_are_left_as_they_are():
    z,y,q,w = batch(6, 5)
    before = [o.clone() for o in (z, y, q, w)]
    z.requires_grad_()
    for t in (y, q): LabelSmoothingCrossEntropy(.1, w)(z, t).backward(); smooth_cross_entropy(z, t).backward()
    assert all(torch.equal(a, b) for a,b in zip(before, (z, y, q, w)))

# ---- what it refuses

Z, Y = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])

@pytest.mark.parametrize('kw,words', [
    (dict(eps=1), 'eps=1: it must be a number of 0 or more and below 1'), (dict(eps=float('nan')), 'eps=nan'),
    (dict(reduction='avg'), "reduction='avg': it must be 'mean' or 'sum' or 'none'"), (dict(weight=[1, 1, 1]), 'weight is a list'),
    (dict(weight=torch.ones(1, 3)), r'weight is a torch.float32 of shape \(1, 3\)')])
def test_bad_options(kw, words):
    with pytest.raises(BadInput, match=words): LabelSmoothingCrossEntropy(**kw)
    with pytest.raises(BadInput, match=words): smooth_cross_entropy(Z, Y, **kw)

def test_bad_batches():
    for z,t,words in ((Z.long(), Y, 'logits is a torch.int64'), (Z[0], Y, r'logits is a torch.float32 of shape \(3,\)'),
                      (Z, Y+1, 'targets holds 3: it must be between 0 and 2'), (Z, Y.tolist(), 'targets is a list'),
                      (Z, Y[:3], r'targets is a torch.int64 of shape \(3,\): it must be int64 of shape \(4,\)'),
                      (Z, torch.rand(4, 2), r'targets is a .*\(4, 2\): it must be a float tensor of shape \(4, 3\)')):
        for loss in (smooth_cross_entropy, LabelSmoothingCrossEntropy()):
            with pytest.raises(BadInput, match=words): loss(z, t)
    for loss in (partial(smooth_cross_entropy, weight=torch.ones(2)), LabelSmoothingCrossEntropy(weight=torch.ones(2))):
        with pytest.raises(BadInput, match=r'of shape \(3,\)'): loss(Z, Y)

def test_wrong_labels_stop_the_training():
    "None is passed over."
    for y,words in ((Y+1, 'targets holds 3'), (Y-1, 'targets holds -1'), (torch.full((4,), -100), 'targets holds -100')):
        with pytest.raises(BadInput, match=words): LabelSmoothingCrossEntropy()(Z, y)

@pytest.mark.parametrize('kw,words', [(dict(eps=1.), 'eps=1.0'), (dict(n_classes=2.), 'n_classes=2.0'),
                                      (dict(y=torch.tensor([3])), 'y holds 3')])
def test_bad_targets(kw, words):
    with pytest.raises(BadInput, match=words): smooth_targets(**{**dict(y=Y, n_classes=3, eps=.1), **kw})

# ---- with fastai

@pytest.fixture(scope='module')
def dls(tiny): return get_dls(tiny, 8, 32, workers=0)

@pytest.fixture(scope='module')
def learn(dls):
    learn = get_learner(dls, Pool, loss_func=LabelSmoothingCrossEntropy(.2, torch.arange(1., 11)))
    fit(learn, 1, 1e-2, show=False)
    return learn

def test_predictions_and_their_losses(learn, dls):
    with learn.no_bar(), learn.no_logging():
        probs,targs,losses = learn.get_preds(with_loss=True)
        name,i,p = learn.predict(dls.valid_ds.items[0])
    with torch.no_grad(): z = torch.cat([learn.model(x) for x,_ in dls.valid]).as_subclass(torch.Tensor)
    torch.testing.assert_close(probs.as_subclass(torch.Tensor), z.softmax(1))
    torch.testing.assert_close(losses.as_subclass(torch.Tensor), F.cross_entropy(z, targs.as_subclass(torch.Tensor), torch.arange(1., 11), label_smoothing=.2, reduction='none'))
    torch.testing.assert_close(p.as_subclass(torch.Tensor), z[0].softmax(0)); assert name == dls.vocab[z[0].argmax()] and i == z[0].argmax()
    assert learn.loss_func.reduction == 'mean'

def test_show_results_and_interpretation(learn):
    with learn.no_bar(), learn.no_logging():
        learn.show_results(max_n=4)
        interp = ClassificationInterpretation.from_learner(learn)
        assert interp.confusion_matrix().sum() == 20
        top,_ = interp.top_losses(20)
    assert (top.diff() <= 0).all() and top[0] > top[-1]
    smoothing.plt.close('all')

def test_mixup_mixes_the_smoothed_losses(dls):
    "The training loss that fastai's MixUp computes is the mean over lambda of the losses with the two labels."
    learn, seen = get_learner(dls, Pool, loss_func=LabelSmoothingCrossEntropy()), []
    class Check(MixUp):
        def after_loss(self):
            if not self.training: return
            z,y1,y2,lam = (o.detach().as_subclass(torch.Tensor) for o in (self.learn.pred, self.learn.yb[0], self.yb1[0], self.lam))
            ref = lam.flatten()*F.cross_entropy(z, y1, label_smoothing=.1, reduction='none') + (1-lam.flatten())*F.cross_entropy(z, y2, label_smoothing=.1, reduction='none')
            seen.append((self.learn.loss_grad.item(), ref.mean().item()))
    fit(learn, 1, 1e-2, cbs=Check(), show=False)
    assert len(seen) == 5
    for a,b in seen: assert a == pytest.approx(b, abs=1e-5)
    assert learn.loss_func.reduction == 'mean'

def test_weight_moves_with_the_loss():
    f = LabelSmoothingCrossEntropy(weight=torch.ones(3))
    assert f.to('meta').weight.device.type == 'meta' and f.y_int
    g = pickle.loads(pickle.dumps(LabelSmoothingCrossEntropy(.3, torch.ones(3), 'sum')))
    assert (g.eps, g.reduction, g.weight.tolist()) == (.3, 'sum', [1, 1, 1])
    assert g.decodes(torch.tensor([[.1, .9], [.8, .2]])).tolist() == [1, 0]

def test_training_as_with_torchs_loss(dls):
    ours = fit(get_learner(dls, Pool, loss_func=LabelSmoothingCrossEntropy(.1)), 2, 1e-2, show=False).history
    ref = fit(get_learner(dls, Pool, loss_func=lambda z,y: F.cross_entropy(*(o.as_subclass(torch.Tensor) for o in (z, y)), label_smoothing=.1)), 2, 1e-2, show=False).history
    for a,b in zip(ours, ref): assert a['train_loss'] == pytest.approx(b['train_loss'], abs=1e-4) and a['accuracy'] == b['accuracy']

# ---- calibration

def two(conf, right):
    "Probabilities of two classes with these confidences (above 1/2), and targets that make them right or wrong."
    conf = torch.tensor(conf)
    return torch.stack([conf, 1-conf], 1), 1 - torch.tensor(right)

def test_calibration_by_hand():
    assert calibration_error(*two([.85, .90, .95, .55], [1, 1, 0, 1]), 5).item() == pytest.approx(3/4*abs(2/3-.9) + 1/4*.45, abs=1e-6)
    assert calibration_error(*two([.75]*4, [1, 1, 1, 0])).item() == pytest.approx(0, abs=1e-6)
    assert calibration_error(*two([1., 1.], [1, 1])) == 0 and calibration_error(*two([1., 1.], [0, 0])) == 1

def test_a_bin_ends_with_its_upper_edge():
    "0.5 belongs to the first of two bins: 0.5 right once of once there, 1.0 wrong in the other."
    probs, y = torch.tensor([[.5, .5], [1., 0.]]), torch.tensor([0, 1])
    assert calibration_error(probs, y, 2).item() == pytest.approx(.75)
    assert calibration_error(probs, y, 1).item() == pytest.approx(.25) # the mean confidence is .75, the accuracy .5

@pytest.mark.smoke
@many
@given(n=st.integers(1, 60), c=st.integers(1, 12), n_bins=st.integers(1, 20), seed=st.integers(0, 999), scale=st.floats(0, 6), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_calibration_against_numpy(n, c, n_bins, seed, scale, dtype):
    z,y,_,_ = batch(n, c, seed, scale)
    probs = z.softmax(1).to(dtype)
    conf,pred = (o.numpy() for o in probs.float().max(1))
    edges, ref = np.linspace(0, 1, n_bins+1, dtype=np.float32), 0
    for i in range(n_bins):
        k = (conf > edges[i]) & (conf <= edges[i+1] if i < n_bins-1 else True)
        if k.any(): ref += k.mean()*abs((pred == y.numpy())[k].mean() - conf[k].mean())
    ece = calibration_error(probs, y, n_bins).item()
    assert ece == pytest.approx(ref, abs=2e-5) and 0 <= ece <= 1

def test_calibrated_predictions_come_near_zero():
    probs = (2*torch.randn(40_000, 5, generator=torch.Generator().manual_seed(0))).softmax(1)
    y = torch.multinomial(probs, 1, generator=torch.Generator().manual_seed(1))[:,0]
    assert calibration_error(probs, y) < .01 < .1 < calibration_error((3*probs.log()).softmax(1), y)

def test_bad_calibration():
    half, none = torch.full((2, 2), .5), torch.zeros(0, dtype=torch.int64)
    for kw,words in ((dict(probs=torch.tensor([[2., -1.]]*2)), 'no probabilities'), (dict(probs=half*math.nan), 'no probabilities'),
                     (dict(probs=half.long()), 'probs is a torch.int64'), (dict(n_bins=0), 'n_bins=0'),
                     (dict(targets=torch.tensor([0, 2])), 'targets holds 2'), (dict(targets=torch.tensor([0])), r'of shape \(2,\)'),
                     (dict(probs=half[:0], targets=none), r'len\(probs\)=0')):
        with pytest.raises(BadInput, match=words): calibration_error(**{**dict(probs=half, targets=torch.tensor([0, 1])), **kw})

def test_reliability_diagram():
    fig = plot_reliability({'a': two([.75]*4, [1, 1, 0, 0]), 'b': two([.6]*2, [1, 1])}, 5)
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == ['a:\n25.0% over-confident, ECE 0.250', 'b:\n40.0% under-confident, ECE 0.400']
    assert fig.axes[0].collections[0].get_offsets().tolist() == [pytest.approx([.75, .5])]
    assert fig.axes[1].collections[0].get_offsets().tolist() == [pytest.approx([.6, 1])]
    smoothing.plt.close(fig)

# ---- on a GPU

@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_gpu_as_cpu_without_waiting(dtype):
    z,y,q,w = batch(64, 10, dtype=dtype)
    for t,weight in ((y, None), (y, w), (q, None)):
        res = []
        for device in ('cpu', 'cuda'):
            f = LabelSmoothingCrossEntropy(.1, weight).to(device)
            a, b = z.to(device).requires_grad_(), t.to(device)
            torch.cuda.set_sync_debug_mode('error' if device == 'cuda' else 'default')
            try: loss = f(a, b); loss.backward()
            finally: torch.cuda.set_sync_debug_mode('default')
            res.append((loss.cpu(), a.grad.cpu()))
        torch.testing.assert_close(*res, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)

@pytest.mark.gpu
def test_weight_goes_to_the_gpu_with_the_learner(tiny):
    learn = get_learner(get_dls(tiny, 8, 32, workers=0), Pool, loss_func=LabelSmoothingCrossEntropy(weight=torch.ones(10)))
    fit(learn, 1, 1e-2, show=False)
    assert learn.loss_func.weight.is_cuda

def test_a_logit_of_minus_infinity_is_as_in_pytorch():
    "With a gradient and without one."
    for eps,grad in ((0, True), (0, False), (.1, True), (.1, False)):
        z = torch.tensor([[0., 0, -math.inf]], requires_grad=grad)
        y = torch.tensor([0])
        a,b = smooth_cross_entropy(z, y, eps), F.cross_entropy(z, y, label_smoothing=eps)
        assert torch.equal(a, b) and (eps > 0 or a.item() == pytest.approx(math.log(2)))
        if grad: assert torch.equal(torch.autograd.grad(a, z)[0], torch.autograd.grad(b, z)[0])

def test_transforms_of_functions():
    z,y = torch.randn(5, 4), torch.tensor([0, 3, 1, 2, 2])
    g = torch.func.grad(lambda z: smooth_cross_entropy(z, y))(z)
    assert torch.allclose(g, (z.softmax(1) - smooth_targets(y, 4, .1))/5, atol=1e-6)
    each = torch.vmap(lambda z,y: smooth_cross_entropy(z[None], y[None]))(z, y)
    assert torch.allclose(each, smooth_cross_entropy(z, y, reduction='none'))
