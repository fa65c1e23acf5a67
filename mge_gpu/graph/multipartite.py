"""`MultipartiteGraph`: the encoding of a network, held as blocks and a compressed adjacency."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from mge_gpu.backends import Backend, get_backend, numbered
from mge_gpu.backends.adjacency import Adjacency, Block
from mge_gpu.errors import GraphError
from mge_gpu.graph.blocks import LazyBlocks, Placed
from mge_gpu.graph.compressed import build_adjacency, edges_of_block
from mge_gpu.graph.flow import Flow
from mge_gpu.graph.orbits import Orbits, find_orbits
from mge_gpu.tracing.program import MAX_NODES, Partition

if TYPE_CHECKING:
    import igraph
    import networkx
    import scipy.sparse

Edges = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class MultipartiteGraph:
    """A directed graph whose nodes fall into partitions and whose edges carry weights |w|.

    The edges are never stored: memory is O(nodes + nonzero weights). `coo` writes them down.

    Args:
        partitions: the node sets.
        blocks: (source, target, block, position pairs) of each block, or what makes them one at a time.
        input_partitions, output_partitions: indices into ``partitions``.
        info: what the graph was made from (model, input shape, encoding).
        device: where it computes.
        make_flow: makes `flow` when it is first asked for.

    Attributes:
        partitions: the node sets, in order of execution, with name, shape, offset and size.
        num_nodes: number of nodes, N.
        input_partitions, output_partitions: indices into ``partitions``.
        info: what the graph was made from (model, input shape, encoding).
    """

    def __init__(
        self,
        partitions: Sequence[Partition],
        blocks: Sequence[Placed] | LazyBlocks,
        input_partitions: Sequence[int],
        output_partitions: Sequence[int],
        info: Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
        make_flow: Callable[[], Flow] | None = None,
    ) -> None:
        self.partitions = tuple(partitions)
        self.num_nodes = sum(p.size for p in self.partitions)
        if self.num_nodes > MAX_NODES:
            raise GraphError(f"got {self.num_nodes:,} nodes, at most {MAX_NODES:,} fit 32-bit node ids")
        self._given = blocks
        self.input_partitions = tuple(input_partitions)
        self.output_partitions = tuple(output_partitions)
        self.info = dict(info or {})
        self.device = numbered(device)
        self._make_flow = make_flow

    @property
    def backend(self) -> Backend:
        """The backend that computes on this graph."""
        return get_backend(self.device)

    def iterate_blocks(self) -> Iterable[Placed]:
        """(source, target, block, position pairs) of each block, made one at a time where they are many."""
        return self.__dict__.get("_placed", self._given)

    @cached_property
    def _placed(self) -> tuple[Placed, ...]:
        return tuple(self._given)

    @property
    def blocks(self) -> tuple[tuple[int, int, Block], ...]:
        """(source partition, target partition, block) of each block of edges."""
        return tuple(b[:3] for b in self._placed)

    @cached_property
    def adjacency(self) -> Adjacency:
        """The compressed adjacency; `coo` does without it, so it is built when it is first asked for."""
        return build_adjacency(self.partitions, self._placed)

    @cached_property
    def orbits(self) -> Orbits | None:
        """Positions that can be exchanged, such as tokens; None where there are few or none."""
        return find_orbits(self.partitions, self._placed)

    @property
    def knows_flow(self) -> bool:
        """Whether `flow` can be asked for."""
        return self._make_flow is not None

    @cached_property
    def flow(self) -> Flow:
        """How signals pass from the input to an output, with what makes no edges: path metrics run on it.

        Raises GraphError where it is not known: the graph is from a file of format 2, or made by hand.
        """
        if self._make_flow is None:
            raise GraphError(
                "this graph does not know its network's identity skips and weights, which path metrics "
                "follow (it comes from a file of an older format, or was made by hand); encode again"
            )
        return self._make_flow()

    @cached_property
    def num_edges(self) -> int:
        """Number of edges, E: exact, in O(nonzero weights)."""
        blocks = self.iterate_blocks()
        if isinstance(blocks, LazyBlocks):
            return blocks.count_edges()
        return sum(edges_of_block(block, positions) for _, _, block, positions in blocks)

    def in_partitions(self, indices: Sequence[int]) -> np.ndarray:
        """Boolean mask (N,) of the nodes of some partitions."""
        mask = np.zeros(self.num_nodes, np.bool_)
        for k in indices:
            p = self.partitions[k]
            mask[p.offset : p.offset + p.size] = True
        return mask

    @overload
    def coo(self, chunks: None = None, index_dtype: torch.dtype = ..., dtype: torch.dtype = ...) -> Edges: ...

    @overload
    def coo(
        self, chunks: int, index_dtype: torch.dtype = ..., dtype: torch.dtype = ...
    ) -> Iterator[Edges]: ...

    def coo(
        self,
        chunks: int | None = None,
        index_dtype: torch.dtype = torch.int64,
        dtype: torch.dtype = torch.float32,
    ) -> Edges | Iterator[Edges]:
        """All edges as (source, target, weight): int64, int64, float32 tensors of length E.

        Each edge appears once; where several routes lead from one node to another the weight is
        their sum. Edges come block by block. Takes 20 bytes an edge, 12 with ids of 32 bits, and two
        less with weights of 16.

        Args:
            chunks: instead of all edges at once an iterator of such triples, of at most this many edges
                each (True: about four million, 84 MB). Each edge comes once, with the weight that it has
                in ``coo()``, in an order that depends on the size; memory is O(chunk + nodes).
            index_dtype: of source and target, ``torch.int64`` or ``torch.int32``, which holds every id.
            dtype: of weight, ``torch.float32`` or ``torch.float16``, to which each is rounded (sums at the
                end); those below 3e-8 become 0, their edges stay.

        Raises:
            NotEnoughMemoryError: all at once they would not fit the memory that is available. The
                conversions below raise it, too.
            GraphError: ``chunks`` is neither True nor a positive number, ids or weights are of another
                type, or a weight is too large for float16 (65,504).

        Example:
            >>> import mge_gpu
            >>> layer = torch.nn.Linear(2, 1, bias=False)
            >>> _ = layer.weight.data.copy_(torch.tensor([[-3.0, 0.0]]))
            >>> [t.tolist() for t in mge_gpu.encode(layer, (2,)).coo()]
            [[0], [2], [3.0]]
        """
        from mge_gpu.graph.convert import coo, coo_chunks

        if chunks is None:
            return coo(self, index_dtype=index_dtype, dtype=dtype)
        return coo_chunks(self, chunks, index_dtype, dtype)

    def to_scipy(self) -> "scipy.sparse.csr_array":
        """The adjacency matrix A with A[u, v] = |w| for u -> v, (N, N) float32 CSR."""
        from mge_gpu.graph.convert import to_scipy

        return to_scipy(self)

    def to_torch_sparse_coo(self) -> torch.Tensor:
        """The adjacency matrix as a torch sparse COO tensor, (N, N) float32."""
        from mge_gpu.graph.convert import to_torch_sparse_coo

        return to_torch_sparse_coo(self)

    def to_igraph(self) -> "igraph.Graph":
        """A directed ``igraph.Graph`` with edge attribute "weight". Needs igraph."""
        from mge_gpu.graph.convert import to_igraph

        return to_igraph(self)

    def to_networkx(self) -> "networkx.DiGraph":
        """A ``networkx.DiGraph`` with edge attribute "weight" and node attribute "partition"."""
        from mge_gpu.graph.convert import to_networkx

        return to_networkx(self)

    def to_pyg(self) -> Any:
        """A ``torch_geometric.data.Data`` with edge_index, edge_weight and partition."""
        from mge_gpu.graph.convert import to_pyg

        return to_pyg(self)

    def to_torch_sparse(self) -> Any:
        """A ``torch_sparse.SparseTensor`` (row = source). Needs the extra torch-sparse."""
        from mge_gpu.graph.convert import to_torch_sparse

        return to_torch_sparse(self)

    def save(self, path: str) -> None:
        """Write the compressed form (not the edges) to one file; `mge_gpu.load` reads it."""
        from mge_gpu.graph.files import save

        save(self, path)

    def __reduce__(self) -> tuple[Callable[..., "MultipartiteGraph"], tuple[Any, ...]]:
        """Copies, and graphs that are sent to another process, are made from the compressed form."""
        from mge_gpu.graph.files import packed, unpacked

        return unpacked, (packed(self), "a pickled graph", self.device)

    def __repr__(self) -> str:
        return (
            f"MultipartiteGraph({self.info.get('model', '?')}, {self.num_nodes:,} nodes, "
            f"{self.num_edges:,} edges, {len(self.partitions)} partitions)"
        )
