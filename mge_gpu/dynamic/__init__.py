"""Dynamic sparse training: masks that change while the network trains, with exact numbers of weights.

:class:`SparseTrainer` puts a method of :data:`METHODS` around any torch optimizer. The methods' steps are
pure functions: `drop_smallest`, `grow_random`, `grow_largest`.
"""

from mge_gpu.dynamic._methods import METHODS, Method
from mge_gpu.dynamic._select import drop_smallest, grow_largest, grow_random
from mge_gpu.dynamic._state import Update
from mge_gpu.dynamic.rule import SparseTrainingWarning
from mge_gpu.dynamic.trainer import SparseTrainer

__all__ = [
    "METHODS",
    "Method",
    "SparseTrainer",
    "SparseTrainingWarning",
    "Update",
    "drop_smallest",
    "grow_largest",
    "grow_random",
]
