"""Arrays that behave as a GPU's do: NumPy's functions reach them, nothing turns them into NumPy's unasked.

CuPy's arrays refuse to be converted in silence and to be mixed with NumPy's. So do these, on the host: code
that works with them keeps its data on the device.
"""

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


def _inside(x: Any) -> Any:
    """The NumPy arrays of arguments; TypeError for an array that is not on the device."""
    if isinstance(x, DeviceArray):
        return x.array
    if isinstance(x, np.ndarray) and x.ndim:
        raise TypeError("got an array of the host among arrays of the device")
    if isinstance(x, list | tuple):
        return type(x)(_inside(y) for y in x)
    return x


def _outside(x: Any) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        return DeviceArray(np.asarray(x))
    return type(x)(map(_outside, x)) if isinstance(x, tuple) and type(x) is tuple else x


class DeviceArray(NDArrayOperatorsMixin):
    """A NumPy array out of NumPy's reach; reductions return arrays without dims, as CuPy's do."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("an array of the device is not converted unasked; use get()")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        done = getattr(ufunc, method)(*map(_inside, inputs), **kwargs)
        if out:
            out[0].array[...] = done
            return out[0]
        return _outside(done)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in (np.asarray, np.array):  # called with like=: the way from the host to the device
            return DeviceArray(np.array(args[0], *args[1:], **kwargs))
        return _outside(function(*map(_inside, args), **{k: _inside(v) for k, v in kwargs.items()}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self.array, name)
        if not callable(found) or isinstance(found, np.dtype):
            return found
        return lambda *args, **kwargs: _outside(found(*map(_inside, args), **kwargs))

    def __getitem__(self, key: Any) -> Any:
        return _outside(self.array[_inside(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.array[_inside(key)] = _inside(value)

    def __len__(self) -> int:
        return len(self.array)

    def __int__(self) -> int:
        return int(self.array)

    def __float__(self) -> float:
        return float(self.array)

    def __bool__(self) -> bool:
        return bool(self.array)

    def get(self) -> np.ndarray:
        """A copy in the host's memory."""
        return self.array.copy()

    def set(self, values: np.ndarray) -> None:
        """Copy from the host's memory, as strictly as CuPy."""
        assert values.dtype == self.array.dtype and values.shape == self.array.shape
        self.array[...] = values

    def tolist(self) -> Any:
        """The values as Python objects."""
        return self.array.tolist()

    def astype(self, dtype: Any, copy: bool = True) -> "DeviceArray":
        """Another type, or this very array."""
        return self if not copy and self.array.dtype == dtype else DeviceArray(self.array.astype(dtype))


class StrictNumpy:
    """NumPy's functions on arrays of the device; ``asarray`` and ``array`` bring them there."""

    ndarray = DeviceArray

    def asarray(self, x: Any, dtype: Any = None) -> DeviceArray:
        """Onto the device, where it is not yet."""
        return DeviceArray(np.array(x.array if isinstance(x, DeviceArray) else x, dtype))

    def asnumpy(self, x: DeviceArray) -> np.ndarray:
        """Into the host's memory."""
        return x.get()

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        return lambda *args, **kwargs: _outside(
            function(*map(_inside, args), **{k: _inside(v) for k, v in kwargs.items()})
        )
