"""Optional dependencies are imported when they are used, through `require`."""

import importlib
from types import ModuleType

from mge_gpu.errors import MissingDependencyError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import ``module`` or say which extra of mge_gpu brings it.

    >>> require("math", "rank", "ranking").sqrt(4.0)
    2.0
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs the package {module.split('.')[0]!r}, which cannot be imported ({error}); "
            f"install it with: pip install 'mge_gpu[{extra}]'"
        ) from error
