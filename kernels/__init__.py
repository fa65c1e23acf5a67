"""The CUDA sources as package data; find them with ``importlib.resources.files("mge_gpu.kernels")``."""
