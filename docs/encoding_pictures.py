"""The pictures of docs/encoding.md: small networks, encoded, a column of nodes a partition.

python -m docs.encoding_pictures          # writes docs/encoding/*.png
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mge_gpu

FOLDER = Path(__file__).with_name("encoding")


class Net(nn.Module):
    """Named layers and a forward pass given as a function of them and the input."""

    def __init__(self, forward: Callable[["Net", Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.function = forward

    def __getitem__(self, name: str) -> nn.Module:
        return self.layers[name]

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the function says."""
        return self.function(self, x)


def _attend(net: Net, x: Tensor, mask: Tensor | None = None) -> Tensor:
    return net["proj"](F.scaled_dot_product_attention(net["q"](x), net["k"](x), net["v"](x), mask))


def _attention(mask: Tensor | None = None) -> Net:
    parts = {name: nn.Linear(1, 1) for name in ("q", "k", "v", "proj")}
    return Net(lambda net, x: _attend(net, x, mask), **parts)


def _windows(net: Net, x: Tensor) -> Tensor:
    rolled = torch.roll(x, -1, 1).view(1, 3, 2, 1)
    return torch.roll(_attend(net, rolled).view(1, 6, 1), 1, 1)


def _class_token(net: Net, x: Tensor) -> Tensor:
    tokens = torch.cat((torch.zeros(1, 1, 1), net["embed"](x)), 1)
    return _attend(net, tokens)


def _normalised(net: Net, x: Tensor) -> Tensor:
    x = net["one"](x)
    return net["two"]((x - x.mean(1, keepdim=True)) / x.norm(dim=1, keepdim=True))


def _gate(net: Net, x: Tensor) -> Tensor:
    x = net["conv"](x)
    gate = net["gate"](x.mean(2, keepdim=True)).sigmoid()
    return net["next"](x * gate)


def _conv(a: int, b: int, kernel: int = 1) -> nn.Conv1d:
    return nn.Conv1d(a, b, kernel, padding=0)


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Name of the picture -> network and input shape."""
    order = torch.tensor([3, 0, 2, 1])
    parts = {name: nn.Linear(1, 1) for name in ("embed", "q", "k", "v", "proj")}
    return {
        "pool": (nn.Sequential(_conv(1, 1), nn.MaxPool1d(3, 2), _conv(1, 1)), (1, 7)),
        "fresh": (
            Net(
                lambda n, x: n["next"](n["a"](x) + n["b"](x)),
                a=_conv(1, 1, 3),
                b=_conv(1, 1, 3),
                next=_conv(1, 1),
            ),
            (1, 6),
        ),
        "skip": (
            Net(
                lambda n, x: (lambda y: n["c"](y + n["b"](y)))(n["a"](x)),
                a=_conv(1, 1),
                b=_conv(1, 1),
                c=_conv(1, 1),
            ),
            (1, 4),
        ),
        "structural": (
            Net(
                lambda n, x: n["next"](n["a"](x) * n["b"](x)), a=_conv(1, 1), b=_conv(1, 1), next=_conv(1, 1)
            ),
            (1, 4),
        ),
        "attention": (_attention(), (4, 1)),
        "masked": (_attention(torch.ones(4, 4, dtype=torch.bool).tril()), (4, 1)),
        "windows": (Net(_windows, **{k: parts[k] for k in ("q", "k", "v", "proj")}), (6, 1)),
        "class_token": (Net(_class_token, **parts), (3, 1)),
        "norm": (Net(_normalised, one=nn.Linear(4, 4), two=nn.Linear(4, 2)), (4,)),
        "gate": (Net(_gate, conv=_conv(2, 2), gate=_conv(2, 2), next=_conv(2, 1)), (2, 3)),
        "table": (Net(lambda n, x: n["b"](n["a"](x)[:, :, order]), a=_conv(1, 1), b=_conv(1, 1)), (1, 4)),
    }


def draw(model: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Columns of nodes, one a partition, and the edges between them."""
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
    graph = mge_gpu.encode(model.eval(), shape, pad_input=False)
    place = np.zeros((graph.num_nodes, 2))
    figure, axes = plt.subplots(figsize=(3.6, 2.2), dpi=90)
    for k, p in enumerate(graph.partitions):
        y = np.arange(p.size)[::-1] - (p.size - 1) / 2
        place[p.offset : p.offset + p.size] = np.column_stack([np.full(p.size, k), y])
        label = p.name.replace("layers.", "").replace("input", "x")
        axes.text(k, y.max() + 0.7, label, ha="center", va="bottom", fontsize=8)
    source, target, _ = graph.coo()
    colours = plt.get_cmap("tab10")
    of = np.searchsorted([p.offset for p in graph.partitions], np.arange(graph.num_nodes), side="right") - 1
    for u, v in zip(source.tolist(), target.tolist(), strict=True):
        (x0, y0), (x1, y1) = place[u], place[v]
        bend = 0.25 * (x1 - x0 - 1)  # an edge that passes over a partition goes around its nodes
        t = np.linspace(0, 1, 20)
        axes.plot(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t + bend * np.sin(np.pi * t),
                  color=colours(of[u] % 10), lw=0.8, alpha=0.7, zorder=1)  # fmt: skip
    axes.scatter(
        place[:, 0], place[:, 1], s=42, c=[colours(k % 10) for k in of], edgecolors="black", zorder=2
    )
    axes.axis("off")
    axes.margins(0.08, 0.12)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    for name, (model, shape) in networks().items():
        draw(model, shape, FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
