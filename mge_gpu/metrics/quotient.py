"""Eigenvalues of networks whose positions can be exchanged (tokens), from one position for each orbit.

Vectors that stay the same when positions are exchanged have one value for each orbit (`graph.orbits`). Scaled
by the roots of the orbits' sizes n, they see a symmetric matrix A_1 + S A_2 S in place of the adjacency, with
S = diag(sqrt(n)): A_1 has the edges within a thread, A_2 those of taps that pair all with all. Every other
eigenvector can be chosen so that its sum over each orbit is zero. A_2 vanishes on those, and A_1 acts on each
thread alone. So the eigenvalues of a graph are those of that matrix and, for each kind of n threads that can
be exchanged, n - 1 times those of A_1 on one of them (Stiefel and Fässler, Group Theoretical Methods and
Their Applications, 1992, chapter 3). Nodes of an orbit have one degree: the Laplacian splits as well.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mge_gpu.backends import Block
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.graph.orbits import Orbits
from mge_gpu.metrics.base import Workspace
from mge_gpu.metrics.colours import Numbered, colour_by_colour, renumbered, two_colours

Operator = Callable[..., Any]


class Quotient(Workspace):
    """The workspace of the orbits of a graph. Its own edges say what is connected; `operator` multiplies.

    Args:
        w: the workspace of the graph.
        orbits: its orbits.
    """

    def __init__(self, w: Workspace, orbits: Orbits) -> None:
        graph = MultipartiteGraph(orbits.partitions, orbits.blocks, (), (), device=w.graph.device)
        super().__init__(graph, w.exact, w.seed, w.budget)
        self.orbits, self.of = orbits, w.num_nodes

    @property
    def how(self) -> str:
        """What is said of a value that was found so."""
        return f"{self.of:,} nodes as {self.num_nodes:,} orbits"

    @cached_property
    def sizes(self) -> np.ndarray:
        """Nodes in each orbit, (N,) int64, in the order of `by_colour`."""
        colour = two_colours(self) or [False] * len(self.orbits.sizes)
        sizes, parts = self.orbits.sizes, self.orbits.partitions
        return np.concatenate([np.tile(sizes[p], parts[p].channels) for p in colour_by_colour(colour)])

    @cached_property
    def _within_and_across(self) -> tuple[Numbered, Numbered]:
        """The blocks within threads, and those of taps that pair all with all."""
        within: list[tuple[int, int, Block]] = []
        across: list[tuple[int, int, Block]] = []
        for (s, t, block, _), whole in zip(self.orbits.blocks, self.orbits.whole, strict=True):
            for legs, taps in (within, ~whole), (across, whole):
                if (part := _of_taps(block, taps)) is not None:
                    legs.append((s, t, part))
        return renumbered(self, within), renumbered(self, across)

    def operator(
        self,
        make: Callable[[Sequence[Block], Sequence[Block]], Operator],
        legs: Callable[[Numbered], tuple[Sequence[Block], Sequence[Block]]],
        like: Any,
    ) -> "Scaled":
        """Products with A_1 + S A_2 S, of nodes in the order of `by_colour`.

        Args:
            make: an operator of blocks (towards targets, towards sources).
            legs: which blocks of the two kinds.
            like: an empty array of the vectors' kind and dtype.
        """
        within, across = (make(*legs(blocks)) for blocks in self._within_and_across)
        return Scaled(within, across, np.asarray(np.sqrt(self.sizes).astype(like.dtype), like=like))


class Scaled:
    """x -> A_1 x + S A_2 S x; ``root`` (N,) is the diagonal of S."""

    def __init__(self, within: Operator, across: Operator, root: Any) -> None:
        self.within, self.across, self.root = within, across, root

    @property
    def how(self) -> str:
        """Which engines were chosen."""
        return f"{self.within.how} within a token, {self.across.how} across"  # type: ignore[attr-defined]

    def __call__(self, x: Any, out: Any = None) -> Any:
        """The product, in ``out`` where that is given."""
        y = self.within(x, out)
        y += self.root * self.across(self.root * x)
        return y


def quotient(w: Workspace) -> Quotient | None:
    """The workspace of a graph's orbits, made once; None where positions cannot be exchanged."""
    if "quotient" not in w.operators:
        orbits = w.graph.orbits
        w.operators["quotient"] = None if orbits is None else Quotient(w, orbits)
    found: Quotient | None = w.operators["quotient"]
    return found


def _of_taps(block: Block, taps: np.ndarray) -> Block | None:
    """The nonzeros of some taps (taps,) bool; None where there are none."""
    kept = taps[block.tap]
    if kept.all():
        return block if len(kept) else None
    if not kept.any():
        return None
    names = "target_channel", "source_channel", "tap", "weight"
    return block._replace(**{name: getattr(block, name)[kept] for name in names})
