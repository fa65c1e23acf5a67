"""The CPU backend: numba kernels over the compressed adjacency, on all cores."""

from mge_gpu.backends.cpu.backend import CpuBackend

__all__ = ["CpuBackend"]
