"""The CUDA sources as package data: ``importlib.resources.files("mge_gpu.kernels")``, installed or editable."""
