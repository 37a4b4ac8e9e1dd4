__version__ = "0.1.0"

import warnings

# fastai still calls torch.jit.script when it is imported, which newer PyTorch warns about in
# every process. Nobody who imports this package can do anything about it, so it is not shown;
# the filter ends with the import.
with warnings.catch_warnings():
    warnings.filterwarnings('ignore', message='.*torch.jit', category=FutureWarning)
    warnings.filterwarnings('ignore', message='.*torch.jit', category=DeprecationWarning)
    import fastai.vision.all
