"Everything a notebook of the course needs, in one line: `from imagenette_course.all import *`."
from fastai.vision.all import *

from .drawings import SCENES, draw_scene
from .core import *
from .dataset import *
from .baseline import *
from .normalize import *
from .resize import *
from .tta import *
from .mixup import *
from .smoothing import *
from .questionnaire import *
from .mixing import *
from .techniques import *
from .further import *
from .speed import *
from .sprint import *
from .models import *
from .checkpoint import *
from .distributed import *
from .train import *
from .predict import *
from .study import *
from .answers import *
