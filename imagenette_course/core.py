"""What every module uses: checks of arguments, errors in one line, files that are never half-written.

>>> from imagenette_course.core import check_range
>>> check_range('epochs', 5, 1)
5
>>> check_range('epochs', 0, 1)
Traceback (most recent call last):
imagenette_course.core.BadInput: epochs=0: it must be a whole number of 1 or more
"""

__all__ = ['BadInput', 'Diverged', 'Stopped', 'OutOfMemory', 'check_range', 'check_choice', 'check_floats',
           'check_ints', 'check_labels', 'check_values', 'check_stats', 'show_bar', 'quiet', 'quiet_bars', 'in_test',
           'write_aside', 'png', 'printable', 'one_line', 'show_version', 'in_one_line']

import io, math, os, re, sys
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from fastcore.basics import IN_NOTEBOOK
from fastcore.xtras import truncstr

class BadInput(ValueError):
    "Something that was given can't work; the message says in one line what is wrong and what to do."

class Diverged(RuntimeError):
    "The loss of a training is no finite number any more."

class Stopped(RuntimeError):
    "Another process of the run came to its end."

class OutOfMemory(torch.OutOfMemoryError):
    "There was too little memory for a batch; says what to try."

# ---- arguments

def check_range(
    name:str, # of the argument, for the message
    value, # to be checked
    lo, # smallest value allowed
    hi=None, # largest value allowed, None: no limit
    kind=int, # int: whole numbers only, float: any finite number
    without=None, # a limit that is itself not allowed
):
    "`value`; raises BadInput, with the name, the value and what is allowed, when it is not a number in [lo, hi]."
    number = (int, np.integer) if kind is int else (int, float, np.number)
    ok = isinstance(value, number) and not isinstance(value, bool)
    if ok and lo <= value < math.inf and (hi is None or value <= hi) and value != without: return value
    low = f'above {lo}' if lo == without else f'of {lo} or more'
    high = '' if hi is None else f' and below {hi}' if hi == without else f' and {hi} or less'
    limits = low + high if hi is None or without is not None else f'between {lo} and {hi}'
    raise BadInput(f'{name}={value!r}: it must be a {"whole " if kind is int else ""}number {limits}')

def check_choice(
    name:str, # of the argument, for the message
    value, # to be checked
    *choices, # what is allowed
):
    "`value`; raises BadInput, with the name, the value and what is allowed, when it is none of `choices`."
    if value in choices: return value
    raise BadInput(f"{name}={value!r}: it must be {' or '.join(map(repr, choices))}")

def check_stats(
    stats:tuple, # (mean, std), three numbers each, of pixels in 0..1; None: no normalization
):
    "Raises BadInput for statistics that can't be divided by, or that are of pixels in 0..255."
    if stats is None: return
    if np.shape(stats) != (2, 3): raise BadInput('stats: it must be (mean, std), three numbers each')
    for v in stats[0]: check_range('stats mean', float(v), 0, 1, float)
    for v in stats[1]: check_range('stats std (of pixels in 0..1)', float(v), 1e-3, 1, float)

# ---- tensors

def _fits(x, shape): # in which a word such as 'n' stands for any length
    return x.ndim == len(shape) and all(isinstance(b, str) or a == b for a,b in zip(x.shape, shape))

def _wrong(name, x, what, shape=None):
    "The error for a tensor that is none, or another one."
    kind = f'{x.dtype} of shape {tuple(x.shape)}' if isinstance(x, torch.Tensor) else type(x).__name__
    if shape is not None: what += f' of shape {tuple(shape)}'.replace("'", '') # (n, 4)
    return BadInput(f'{name} is a {kind}: it must be {what}')

def check_floats(
    name:str, # of the argument, for the message
    x:torch.Tensor, # to be checked
    ndim:int=None, # how many dimensions it must have; None: one or more
    shape:tuple=None, # the shape that it must have; a word such as 'n' stands for any length
) -> torch.Tensor: # `x`
    "`x`; raises BadInput unless it is a tensor of floating-point numbers with `ndim` dimensions, or of this shape."
    if isinstance(x, torch.Tensor) and x.is_floating_point():
        if shape is not None: ok = _fits(x, shape)
        else: ok = x.ndim > 0 if ndim is None else x.ndim == ndim
        if ok: return x
    how_many = ' with 1 dimension or more' if ndim is None else f' with {ndim} dimensions'
    raise _wrong(name, x, 'a float tensor' + (how_many if shape is None else ''), shape)

def check_ints(
    name:str, # of the argument, for the message
    x:torch.Tensor, # to be checked
    shape:tuple, # the shape that it must have; a word such as 'n' stands for any length
) -> torch.Tensor: # `x`
    "`x`; raises BadInput unless it is an int64 tensor of this shape."
    if isinstance(x, torch.Tensor) and x.dtype == torch.int64 and _fits(x, shape): return x
    raise _wrong(name, x, 'int64', shape)

def check_labels(
    name:str, # of the argument, for the message
    y:torch.Tensor, # to be checked
    n_classes:int, # number of classes
    n='n', # how many labels there must be
) -> torch.Tensor: # `y`
    "`y`; raises BadInput unless it is int64 of shape (n,), with values in 0..n_classes-1 (see `check_values`)."
    return check_values(name, check_ints(name, y, (n,)), 0, n_classes-1)

def check_values(
    name:str, # of the tensor, for the message
    x:torch.Tensor, # to be checked, on any device
    lo, # smallest value allowed
    hi, # largest value allowed
) -> torch.Tensor: # `x`
    """`x`; raises BadInput unless all of it is in [lo, hi]. Values are read on the CPU only, and outside of
    `torch.compile` and `torch.func`: a GPU would have to be waited for."""
    if (x.device.type == 'cpu' and x.numel() > 0 and not torch.compiler.is_compiling()
            and torch._C._functorch.peek_interpreter_stack() is None):
        for v in map(float, x.aminmax()):
            if not lo <= v <= hi: raise BadInput(f'{name} holds {v:g}: it must be between {lo} and {hi}')
    return x

# ---- progress

def in_test() -> bool: # True under `nbdev_test`, which sets the environment variable IN_TEST
    "Whether the notebook is being tested."
    return 'IN_TEST' in os.environ

def show_bar() -> bool: # True in a notebook and on a terminal
    "Whether a progress bar would be seen as one; written into a file or a pipe it is thousands of lines."
    return (IN_NOTEBOOK or sys.stdout.isatty()) and not in_test()

def quiet(
    on:bool=True, # False: print as always
):
    "A context in which nothing is printed."
    return redirect_stdout(io.StringIO()) if on else nullcontext()

def quiet_bars():
    "A context that keeps the bars of other libraries out of files and pipes."
    return quiet(not show_bar())

# ---- files

def write_aside(
    path:Path, # file to write
    data:bytes, # its content
):
    """Writes `path` so that it holds either its old content or all of the new, also when the power fails.
    Raises OSError, and leaves nothing behind, when that can't be done."""
    tmp = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with open(tmp, 'wb') as f: f.write(data); f.flush(); os.fsync(f.fileno())
        tmp.replace(path)
    except OSError as e:
        what = ('make room there, or name another folder' if path.parent.is_dir()
                else f'there is no folder {path.parent}')
        raise OSError(f'{path} could not be written ({e.strerror}): {what}') from e
    finally: tmp.unlink(missing_ok=True)

def png(
    fig:plt.Figure, # closed afterwards
) -> bytes: # PNG, 120 dots an inch
    "A figure as the content of a file."
    buf = io.BytesIO()
    fig.savefig(buf, format='png', dpi=120)
    plt.close(fig)
    return buf.getvalue()

# ---- commands

def printable(
    text, # anything
) -> str: # on one line
    "Text, with what can't be printed, or must not, as an escape: it may quote a file."
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in str(text))

def one_line(
    e:Exception, # to be told to a person
) -> str: # as from `printable`
    "The last line of an error, without the traceback that PyTorch puts before an error of a worker process."
    text = re.sub(r'^[\w.]+(Error|BadInput): |^[\w.]*BadInput: ', '',
                  (str(e).strip() or repr(e)).splitlines()[-1].strip())
    return truncstr(printable(text), 2000)

def show_version():
    "Prints the version and ends the program where `--version` is asked for."
    if '--version' in sys.argv[1:]: print('imagenette_course', version('imagenette_course')); raise SystemExit

@contextmanager
def in_one_line(
    prog:str, # the command's name
    stopped:str='stopped', # what to say of Ctrl-C where the error says nothing
    smaller:str='use smaller images or batches', # what to try where the GPU has too little memory
):
    """Ends the program with one line and a status: 2 for what a user can mend before it runs,
    1 for a run that failed on its way, 130 for Ctrl-C. All else is raised."""
    def fail(msg, status):
        print(f'{prog}: {msg}', file=sys.stderr)
        raise SystemExit(status)
    try: yield
    except KeyboardInterrupt as e: fail(str(e) or stopped, 130)
    except (Diverged, OutOfMemory, Stopped) as e: fail(one_line(e), 1)
    except torch.OutOfMemoryError: fail(f'the GPU has too little memory for this: {smaller}', 1)
    except (BadInput, OSError) as e: fail(one_line(e), 2)
