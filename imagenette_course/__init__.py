__version__ = "0.2.0"

import multiprocessing, os, warnings

# fastai still calls torch.jit.script when it is imported, which newer PyTorch warns about in
# every process. Nobody who imports this package can do anything about it, so it is not shown;
# the filter ends with the import.
with warnings.catch_warnings():
    warnings.filterwarnings('ignore', message='.*torch.jit', category=FutureWarning)
    warnings.filterwarnings('ignore', message='.*torch.jit', category=DeprecationWarning)
    import fastai.vision.all, torch

# nbdev_test runs notebooks side by side, one for each core: with more threads they would wait for one another at every
# layer, which takes several times as long.
if 'IN_TEST' in os.environ and multiprocessing.parent_process() is not None:
    os.environ.setdefault('OMP_NUM_THREADS', '1') # for what a notebook starts
    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
