"""Everything a notebook of the course needs, in one line: `from imagenette_course.all import *`.

All of fastai's `vision.all`, and the names below. Six of them are fastai's, too, and here they are ours:
`MixUp`, `CutMix`, `RandomErasing`, `LabelSmoothingCrossEntropy`, `save_model` and `load_model`.
Import this module last."""
from fastai.vision.all import *

from .core import BadInput, in_test
from .scenes import SCENES, draw_scene
from .files import check_images, image_files
from .data import CLASSES, NOISE, imagenette, is_sample, make_sample
from .dataset import get_dls, held_out, subset
from .record import Run, versions
from .baseline import ARCHS, baseline_recipe, compare, confusion, fit, get_learner, plot_confusion, plot_history
from .normalize import batch_stats, dataset_stats
from .resize import ProgressiveResize, Stage, parse_stages, pixels_seen, progressive_fit, smallest_size
from .tta import combine_views, tta
from .mixup import MixUp, blend, draw_lam, mix_pairs, mixup, mixup_loss
from .smoothing import (LabelSmoothingCrossEntropy, calibration_error, logit_gap, plot_reliability,
                        smooth_cross_entropy, smooth_targets)
from .questionnaire import quiz
from .mixing import CutMix, RandomMix, ResizeMix, cutmix, resizemix
from .techniques import EMA, BlurPool, MuonAdamW, RandomErasing, erase, muon, use_blur_pool
from .further import corner_dl, corner_tta, corner_views
from .store import PixelStore
from .speed import CachedDL, cached_dls, fast_learner, fast_settings, use_bf16
from .sprint import (SPRINT_NETS, GrowImages, SprintMuon, SprintNet, epoch_sizes, orthogonalize, recipe, sprint,
                     sprint_learner, sprint_opt, sprintnet, sprintnet_small, whitened, whitening_filters)
from .models import Classifier, load_model, named_network, save_model
from .checkpoint import Checkpoint, StopAtNaN, TensorBoard
from .distributed import distributed
from .options import Options
from .train import imagenette_train, trained_learner
from .predict import imagenette_predict, predict_files
from .export import export_onnx, imagenette_export
from .study import imagenette_study, read_plan, read_study, run_study
from .answers import (frontier, gains, gains_by, plot_frontier, plot_gains, plot_ladder, plot_runs, plot_views,
                      recorded, runs_needed, study_table, use_it_when, views_table)
