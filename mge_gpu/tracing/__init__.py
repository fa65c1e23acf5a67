"""Tracing: from a PyTorch model to partitions, layers and routes."""

from mge_gpu.tracing.ops import HANDLERS, register_handler
from mge_gpu.tracing.program import Layer, Partition, Program, Use
from mge_gpu.tracing.trace import trace

__all__ = ["HANDLERS", "Layer", "Partition", "Program", "Use", "register_handler", "trace"]
