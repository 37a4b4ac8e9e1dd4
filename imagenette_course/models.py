"""A trained network in one `.safetensors` file, with all that is needed to use it; nothing in it is executed.

`load_model` gives a `Classifier`, which answers for files, pictures and tensors. One can be made of any network:

>>> import torch
>>> from imagenette_course.models import Classifier, named_network
>>> net = named_network('sprintnet_small')(n_out=2)
>>> model = Classifier(net, ['cat', 'dog'], size=32, presize=32, mean=[.5]*3, std=[.25]*3)
>>> answer = model(torch.rand(3, 60, 80))
>>> sorted(answer), round(sum(answer.values()), 4)
(['cat', 'dog'], 1.0)
"""

__all__ = ['model_facts', 'save_model', 'Classifier', 'named_network', 'load_model']

import json
from copy import deepcopy
from .core import BadInput, check_range, write_aside
from .files import NamedImage, to_rgb
from .record import no_output
from .baseline import ARCHS
from .techniques import BlurPool, use_blur_pool
from .sprint import SPRINT_NETS
from fastai.vision.all import *
from fastai.vision.models import xresnet
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torchvision.transforms.v2 import functional as TF

def model_facts(
    learn:Learner, # as from `get_learner`, with loaders as from `get_dls`
    accuracy:float=None, # 0..1 on the validation set; None: measured now
) -> dict: # arch, classes, size and presize (pixels), mean, std, accuracy
    """What has to be known to use the weights; `blur` where `use_blur_pool` was at work.
    Raises BadInput for a network or loaders that a file can't describe."""
    arch, settings = getattr(learn, 'arch', None), getattr(learn.dls, 'settings', {})
    if arch is None: raise BadInput('learn does not know its network: make it with get_learner')
    if 'size' not in settings: raise BadInput('the loaders say nothing of their image size: make them with get_dls')
    norm = learn.dls.valid.after_batch.fs.filter(risinstance(Normalize))
    mean,std = (norm[0].mean, norm[0].std) if norm else (torch.zeros(3), torch.ones(3))
    blur = dict(blur=True) if any(isinstance(m, BlurPool) for m in learn.model.modules()) else {}
    presize = settings['size' if getattr(learn.dls, 'antialias', False) else 'presize'] # one good step, or two
    if accuracy is None:
        with no_output(learn): preds,targs = learn.get_preds()
        accuracy = (preds.argmax(1) == targs).float().mean().item()
    return dict(**blur, arch=arch, classes=list(learn.dls.vocab), size=settings['size'], presize=presize,
                mean=mean.flatten().tolist(), std=std.flatten().tolist(), accuracy=accuracy)

_key = 'imagenette_course' # of the JSON in the file's metadata
_use = ('classes', 'size', 'presize', 'mean', 'std') # what a `Classifier` is made of, beside the network

def save_model(
    learn:Learner, # trained, as from `get_learner`
    path:Path, # file to write, *.safetensors
    accuracy:float=None, # 0..1 on the validation set; None: measured now
    arch=None, # function that makes the network, with a parameter `n_out`, for one that is not in ARCHS
):
    """Writes one `.safetensors` file with the weights and, in its metadata as JSON, mean, std, class names,
    architecture, size and accuracy. What `load_model` will build is asked first: it must answer as the network does.
    Raises BadInput for what a file can't describe, OSError when it can't be written."""
    path = Path(path)
    if path.suffix != '.safetensors': raise BadInput(f'{path}: the name must end in .safetensors')
    tensors = {k: v.detach().cpu().contiguous() for k,v in learn.model.state_dict().items()}
    facts = model_facts(learn, accuracy) | ({} if arch is None else dict(own=True))
    _check_same(learn.model, facts, tensors, arch)
    write_aside(path, safetensors_bytes(tensors, metadata={_key: json.dumps(facts)}))

class Classifier(nn.Module):
    "A network with everything that its input and its output need; see `load_model`."
    def __init__(self,
        model:nn.Module, # of normalized images (n, 3, size, size) to logits (n, len(classes))
        classes:list, # names, in the order of the outputs
        size:int, # side of the square that the network sees, pixels
        presize:int, # side of the square that it is made from
        mean:list, # by channel
        std:list, # by channel
        facts:dict=None, # of the file: arch, accuracy, and the above
    ):
        super().__init__()
        self.model,self.classes,self.size,self.presize = model.eval(),classes,size,presize
        self.facts = ifnone(facts, {})
        for k,v in dict(mean=mean, std=std).items():
            self.register_buffer(k, torch.tensor(v, dtype=torch.float32), persistent=False)

    def train(self, mode=True): return super().train(False) # a model to be asked is never trained

    def prepare(self, x):
        """Images (n, 3, h, w), uint8 or floats in 0..1, as validation had them: the middle square, `presize`, `size`,
        normalized. Raises BadInput for anything else."""
        x = _rgb(x)
        h,w = x.shape[-2:]
        side = min(h, w)
        x = TF.crop(x, (h-side)//2, (w-side)//2, side, side).to(self.mean.device) # bytes are cut and moved as bytes
        x = TF.resize(TF.to_dtype(x, torch.float32, scale=True), [self.presize]*2, antialias=True)
        x = _squeezed(x, self.size)
        return TF.normalize(x, self.mean.float(), self.std.float()).to(next(self.model.parameters()).dtype)

    @torch.inference_mode()
    def forward(self, x):
        """A dict of class names and probabilities, likeliest first, for an image: a file, a Pillow image, or a tensor
        (3, h, w); a list of them for a batch (n, 3, h, w). Tensors are uint8, or floats in 0..1; raises BadInput for
        anything else."""
        x = _rgb(x)
        probs = self.model(self.prepare(x if x.ndim == 4 else x[None])).float().softmax(1).cpu()
        named = [{self.classes[i]: p[i].item() for i in p.argsort(descending=True)} for p in probs]
        return named if x.ndim == 4 else named[0]

def _squeezed(x, size):
    "Square images at another size, as fastai's batch transforms make them in validation; the device is not waited for."
    d = x.shape[-1]/size/2
    if d > 1: x = F.interpolate(x, scale_factor=1/d, mode='area', recompute_scale_factor=True)
    return F.interpolate(x, size=[size]*2, mode='bilinear', align_corners=True)

def _rgb(x):
    """An image file, a Pillow image or a tensor as a plain tensor; raises BadInput unless it holds colour images, uint8
    or floats in 0..1."""
    if isinstance(x, (str, Path)): x = NamedImage.create(x)
    if isinstance(x, Image.Image): return TF.pil_to_tensor(to_rgb(x))
    if not isinstance(x, torch.Tensor):
        raise BadInput(f'x is a {type(x).__name__}: it must be a file, a Pillow image or a tensor')
    if x.ndim not in (3,4) or x.shape[-3] != 3 or not x.numel():
        turn = ', permute(2, 0, 1) puts the colours first' if x.ndim == 3 and x.shape[-1] == 3 else ''
        raise BadInput(f'x has the shape {tuple(x.shape)}: it must be (3, h, w) or (n, 3, h, w), '
                       f'with a pixel in it{turn}')
    x = x.as_subclass(torch.Tensor)
    if x.dtype == torch.uint8: return x
    if not x.is_floating_point(): raise BadInput(f'x is {x.dtype}: it must be uint8, or floats in 0..1')
    lo,hi = x.min().item(), x.max().item()
    if not 0 <= lo <= hi <= 1:
        raise BadInput(f'x holds values from {lo:.3g} to {hi:.3g}: floats must be in 0..1, and not normalized')
    return x

def _read(path):
    "What a file says of itself, and its tensors; raises BadInput where that can't be."
    try:
        with safe_open(path, 'pt') as f: metadata,tensors = f.metadata() or {},{k: f.get_tensor(k) for k in f.keys()}
    except SafetensorError as e: raise BadInput(f'damaged or no .safetensors file ({e}): get it again') from e
    if _key not in metadata: raise BadInput(f'it lacks the metadata {_key!r}: only a file of save_model can be read')
    try: facts = json.loads(metadata[_key])
    except (ValueError, RecursionError) as e:
        raise BadInput(f'its metadata is no JSON ({e}): save the model again') from e
    if not isinstance(facts, dict):
        raise BadInput(f'its metadata is a {type(facts).__name__} and no dict: save the model again')
    if lacks := [k for k in ('arch', *_use) if k not in facts]:
        raise BadInput(f'its metadata lacks {", ".join(lacks)}: save the model again')
    _check_facts(facts)
    if not all(v.isfinite().all() and not v.is_complex() for v in tensors.values()):
        raise BadInput('its weights are not all numbers: get it again, or train anew')
    return facts,tensors

def _check_facts(f):
    "Raises BadInput when what a file says of itself can't be."
    def is_list(o, kind): return isinstance(o, list) and all(isinstance(v, kind) for v in o)
    check_range('its size', f['size'], 8, 2048); check_range('its presize', f['presize'], f['size'], 2**14)
    if not (is_list(f['classes'], str) and 0 < len(f['classes']) == len(set(f['classes']))):
        raise BadInput('its classes are no list of different names')
    for k,lo in dict(mean=-1e3, std=1e-6).items():
        if not (is_list(f[k], (int, float)) and len(f[k]) == 3 and all(lo <= v <= 1e3 for v in f[k])):
            raise BadInput(f'its {k} is no list of three numbers between {lo:g} and 1000')
    if f.get('blur', False) not in (True, False): raise BadInput('its blur is neither true nor false')

def named_network(
    name:str, # one of ARCHS
): # function with a parameter `n_out`
    "The function that makes the network of this name."
    return SPRINT_NETS[name] if name in SPRINT_NETS else getattr(xresnet, name)

def _built(facts, tensors, arch):
    "The network that a file describes. Raises BadInput when it can't be made, or the weights do not fit it."
    name,n_out = facts['arch'],len(facts['classes'])
    if arch is not None: model = arch(n_out=n_out)
    elif facts.get('own') or name not in ARCHS:
        raise BadInput(f'its network {name!r} is not known here: give the function that makes it, as arch')
    else:
        with torch.device('meta'): model = named_network(name)(n_out=n_out) # shapes alone, no memory
    try: model.load_state_dict(tensors, assign=True)
    except RuntimeError as e:
        what = first([o.strip() for o in str(e).splitlines()[1:]] or [str(e)]) # PyTorch's first line is a heading
        raise BadInput(f'it does not fit the network {name} with {n_out} classes: {what}') from e
    if facts.get('blur'): use_blur_pool(model)
    return model.float()

@torch.no_grad()
def _check_same(model, facts, tensors, arch):
    "Raises BadInput unless what will be loaded answers as `model` does."
    side, mine = facts['size'], deepcopy(model).cpu().float().eval()
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    want = type(mine).forward(mine, x) # without bfloat16
    try: got = _built(facts, tensors, arch).eval()(x)
    except (BadInput, RuntimeError): got = None
    if got is None or got.shape != want.shape or not torch.allclose(
            got, want, 1e-3, 1e-3*want.abs().max().item(), equal_nan=True):
        raise BadInput(f"load_model would not make this network, {facts['arch']}, by itself: "
                       'give the function that makes it, as arch, here and to load_model')

def load_model(
    path:Path, # file of `save_model`
    arch=None, # function that makes the network, for one that was saved with `arch`
) -> Classifier: # on the CPU, ready to be asked
    """A model that takes uint8 or 0..1 images of any size and gives class names with probabilities. Nothing in the
    file is executed. Raises BadInput for a file that is damaged, lacks its metadata or does not fit its architecture;
    OSError when it can't be read."""
    try:
        if not Path(path).is_file(): raise FileNotFoundError(f'{path} is not a file')
        open(path, 'rb').close() # of a file that may not be read, safetensors says that there is none
    except PermissionError as e:
        raise PermissionError(f"{path} can't be read ({e.strerror}): change its permissions") from e
    try:
        facts,tensors = _read(path)
        return Classifier(_built(facts, tensors, arch), *(facts[k] for k in _use), facts=facts)
    except BadInput as e: raise BadInput(f'{path}: {e}') from e
