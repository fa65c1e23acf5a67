"""The errors that mge_gpu raises.

Every message is one line that says what was got, what was expected, in which layer or file, and
what to do about it.
"""


class MGEError(Exception):
    """Base class of every error that mge_gpu raises on purpose."""


class TracingError(MGEError):
    """A model could not be turned into partitions, layers and routes."""


class UnsupportedOpError(TracingError):
    """The traced model uses an operation that has no handler."""


class MaskError(MGEError, ValueError):
    """A mask or a weight does not fit: wrong shape, unknown name, not binary, NaN."""


class GraphError(MGEError, ValueError):
    """A graph cannot be built, converted, saved or loaded as asked."""


class NotEnoughMemoryError(GraphError, MemoryError):
    """What was asked for does not fit the memory that is available."""


class DeviceMemoryError(NotEnoughMemoryError):
    """The memory of a GPU is too short for what was to be computed there."""


class MetricError(MGEError, ValueError):
    """A metric is unknown or cannot be computed on this graph."""


class PruningError(MGEError, ValueError):
    """A pruning method is unknown or cannot reach what was asked of it."""


class TrainingError(MGEError, ValueError):
    """A network cannot be trained as asked, or a study's folder does not fit what is asked of it."""


class RankingError(MGEError, ValueError):
    """A ranker cannot be fitted, loaded or applied to what it was given."""


class DataError(MGEError, ValueError):
    """A file or a data set cannot be read or does not fit the model."""


class MissingDependencyError(MGEError, ImportError):
    """An optional dependency is needed and not installed."""


class TracingWarning(UserWarning):
    """Something in the model takes no part in the graph (a layer the forward pass never reaches)."""
