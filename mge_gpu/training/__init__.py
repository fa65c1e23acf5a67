"""Train sparse networks, and whole studies of them, into the published table's format."""

from mge_gpu.training.recipe import Recipe
from mge_gpu.training.study import study, summary
from mge_gpu.training.train import Trained, accuracy, train

__all__ = ["Recipe", "Trained", "accuracy", "study", "summary", "train"]
