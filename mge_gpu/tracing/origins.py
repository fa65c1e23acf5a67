"""Which tensors are statistics of which: what tells a normalisation written out from a gate.

x / norm(x), x - mean(x), x * f(mean(x)): a tensor combined with reductions of itself passes through as
the normalisation layers do, as long as no layer stands between the tensor and its statistic.
"""

from collections.abc import Iterable

from torch.fx import Node


class Origins:
    """For each node of the graph the tensor that it is an elementwise function, or a statistic, of."""

    def __init__(self) -> None:
        self.root: dict[Node, Node] = {}
        self.statistic: dict[Node, Node] = {}

    def of(self, node: Node) -> Node:
        """The tensor that a node is an elementwise function of: itself if of no other."""
        return self.root.get(node, node)

    def passed(self, node: Node, source: Node) -> None:
        """``node`` is an elementwise function of ``source``."""
        if source in self.statistic:
            self.statistic[node] = self.statistic[source]
        else:
            self.root[node] = self.of(source)

    def reduced(self, node: Node, source: Node) -> None:
        """``node`` is a reduction of ``source``."""
        self.statistic[node] = self.statistic.get(source, self.of(source))

    def moved(self, node: Node, source: Node) -> None:
        """``node`` has the elements of ``source`` in another shape."""
        if source in self.statistic:
            self.statistic[node] = self.statistic[source]

    def combined(self, node: Node, sources: Iterable[Node]) -> Node | None:
        """``node`` is an arithmetic function of several tensors.

        Returns the one of them that passes through if the others are functions or statistics of it.
        """
        plain = [n for n in sources if n not in self.statistic]
        of = {self.statistic[n] for n in sources if n in self.statistic}
        roots = {self.of(n) for n in plain}
        if not plain and len(of) == 1:
            self.statistic[node] = next(iter(of))
            return None
        if of and len(roots) == 1 and of == roots:
            self.root[node] = next(iter(roots))
            return plain[0]
        if not of and len(roots) == 1:
            self.root[node] = next(iter(roots))
        return None

    def enclosed(self, node: Node) -> Node | None:
        """The tensor that ``node`` is a function of, if nothing outside of that function reads it."""
        origin = self.of(node)
        cone, stack = {node}, [node]
        while stack:
            n = stack.pop()
            for source in n.all_input_nodes:
                known = self.of(source) is origin or self.statistic.get(source) is origin
                if source not in cone and known:
                    cone.add(source)
                    if source is not origin:
                        stack.append(source)
        alone = all(set(n.users) <= cone for n in cone if n is not node)
        return origin if alone and origin in cone and origin is not node else None
