"""Graphs: the multipartite encoding, its bipartite relatives, conversions, files."""

from mge_gpu.graph.encode import ENCODINGS, encode
from mge_gpu.graph.files import load
from mge_gpu.graph.multipartite import MultipartiteGraph
from mge_gpu.tracing.program import Partition

__all__ = ["ENCODINGS", "MultipartiteGraph", "Partition", "encode", "load"]
