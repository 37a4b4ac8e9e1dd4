"""`imagenette_export`: a trained network as an ONNX file, for programs without PyTorch.

    imagenette_export model.safetensors --out model.onnx

The graph takes `images`, float32 (n, 3, size, size), RGB in 0..1, any number of them. The normalization is inside. It
gives `probabilities`, float32 (n, classes). The metadata holds `classes`, `size` and `presize`, and `arch` and
`accuracy` where they are known, each as JSON."""

__all__ = ['export_onnx', 'imagenette_export', 'main']

import warnings
from copy import deepcopy
from importlib.util import find_spec
from .core import BadInput, in_one_line, quiet, show_version, write_aside
from fastai.vision.all import *
from .models import Classifier, load_model # after fastai, which has a load_model of its own
from fastcore.script import anno_parser

_PACKAGES = ('onnx', 'onnxscript', 'onnxruntime') # of the extra `onnx`

class _Graph(nn.Module):
    "What is exported: normalization, network, softmax."
    def __init__(self, model):
        super().__init__()
        self.model = deepcopy(model.model).cpu().float()
        for k in ('mean', 'std'): self.register_buffer(k, getattr(model, k).detach().cpu().float()[:,None,None])
    def forward(self, images): return self.model((images - self.mean)/self.std).softmax(1)

def _exported(graph, x):
    "The graph as ONNX's protobuf. Raises BadInput for a network that can't be exported."
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter('ignore') # of PyTorch's own parts
            onnx = torch.onnx.export(graph, (x,), dynamo=True, input_names=['images'], output_names=['probabilities'],
                                     dynamic_shapes=dict(images={0: torch.export.Dim('n')})).model_proto
    except torch.onnx.OnnxExporterError as e:
        why = str(e.__cause__ or e).strip().splitlines()[0]
        raise BadInput(f'this network can not be exported: {truncstr(why, 300)}') from e
    g = onnx.graph
    for o in (g, *g.node, *g.input, *g.output, *g.initializer, *g.value_info):
        del o.metadata_props[:] # they name the files of this machine
    return onnx

@torch.inference_mode()
def _check_same(data, graph, x):
    "Raises BadInput unless the file answers as the network does, for one image and for several."
    from onnxruntime import InferenceSession
    session = InferenceSession(data, providers=['CPUExecutionProvider'])
    for x in (x, x[:1]):
        got,want = torch.from_numpy(session.run(['probabilities'], {'images': x.numpy()})[0]),graph(x)
        if got.shape != want.shape or not torch.allclose(got, want, 0, 1e-4):
            raise BadInput('the exported network does not answer as this one does: it can not be exported')

def export_onnx(
    model:Classifier, # as from `load_model`
    path:Path, # file to write or replace, *.onnx
):
    """Writes a network with its normalization and a softmax as an ONNX file, once onnxruntime has answered with it as
    PyTorch does. Raises BadInput for what can't be exported and where a package is missing, OSError when the file can't
    be written."""
    path = Path(path).expanduser()
    if not isinstance(model, Classifier):
        raise BadInput(f'model is a {type(model).__name__}: it must be one of load_model')
    if path.suffix != '.onnx': raise BadInput(f'{path}: the name must end in .onnx')
    if not path.parent.is_dir(): raise FileNotFoundError(f'{path}: there is no folder {path.parent}')
    if missing := [o for o in _PACKAGES if not find_spec(o)]:
        raise BadInput(f"an ONNX file needs the packages {', '.join(missing)}: pip install {' '.join(missing)}, "
                       'or uv run --extra onnx')
    x = torch.rand(3, 3, model.size, model.size, generator=torch.Generator().manual_seed(0))
    graph = _Graph(model).eval()
    onnx = _exported(graph, x)
    known = {k: model.facts[k] for k in ('arch', 'accuracy') if k in model.facts}
    for k,v in dict(classes=model.classes, size=model.size, presize=model.presize, **known).items():
        onnx.metadata_props.add(key=k, value=json.dumps(v))
    data = onnx.SerializeToString()
    _check_same(data, graph, x)
    write_aside(path, data)

def imagenette_export(
    model:str, # file of save_model or imagenette_train, *.safetensors
    out:str=None, # file to write or replace, *.onnx; default: the model's name with this ending
):
    "Write a trained network as an ONNX file: images in 0..1 go in, probabilities come out."
    with in_one_line('imagenette_export'):
        clf = load_model(model)
        out = Path(model).with_suffix('.onnx') if out is None else Path(out)
        export_onnx(clf, out)
        print(f'{out}: images (n, 3, {clf.size}, {clf.size}) in 0..1 go in, '
              f'probabilities (n, {len(clf.classes)}) come out')

def main():
    "The command `imagenette_export`: reads `sys.argv`."
    show_version()
    args = anno_parser(imagenette_export, prog='imagenette_export').parse_args()
    imagenette_export(args.model, args.out)

if __name__ == '__main__': main()
