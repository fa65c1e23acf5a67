"""The CUDA backend: kernels of ``kernels/*.cu``, called over a `Runtime`."""

from mge_gpu.backends.cuda.backend import CudaBackend

__all__ = ["CudaBackend"]
