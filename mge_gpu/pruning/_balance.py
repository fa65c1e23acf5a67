"""The integer program of node-path balancing, solved exactly without a solver.

The program asks how many weights M[o, i] each kernel of a layer gets. Its objective is a concave function of
the row sums alone once the columns are filled evenly: given R_i weights for input channel i, spreading
them over the outputs that have fewest makes as many kernels nonempty and as many outputs full as any other
way. What remains is a sum of one concave function a row, which taking the largest marginal gains maximises.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Balance:
    """alpha A + (1 - alpha) B + beta Reg: what the terms count for, and how many weights a node wants."""

    alpha: float = 0.99
    beta: float = 0.001
    min_n: int = 1


def objective(
    counts: np.ndarray, mass: np.ndarray, limit: np.ndarray, groups: int, balance: Balance
) -> float:  # (C_out, C_in / groups) int64, (C_in,) float64, (C_in,) int64
    """alpha A + (1 - alpha) B + beta Reg of ``counts``, weights per kernel; n = Σ counts.

    A = [C_in + C_out - Σ_i (min_n - R_i)₊ - Σ_o (min_n - C_o)₊] / (C_in + C_out) with the sums R_i of an
    input and C_o of an output channel; B = Σ mass_i M[o, i] over the most that n weights can have;
    Reg = (n - empty kernels) / n.
    """
    n = int(counts.sum())
    rows = counts.reshape(groups, -1, counts.shape[1]).sum(1).ravel()
    columns = counts.sum(1)
    nodes = len(rows) + len(columns)
    missing = np.maximum(balance.min_n - rows, 0).sum() + np.maximum(balance.min_n - columns, 0).sum()
    most = _most_mass(mass, limit * (len(columns) // groups), n)
    paths = float(mass @ rows) / most if most else 0.0
    regular = (n - int((counts == 0).sum())) / n if n else 0.0
    return float(
        balance.alpha * (nodes - missing) / nodes + (1 - balance.alpha) * paths + balance.beta * regular
    )


def kernel_counts(
    mass: np.ndarray,
    limit: np.ndarray,
    groups: int,
    outputs: int,
    n: int,
    balance: Balance,
    rng: np.random.Generator,
) -> np.ndarray:  # (C_in,) float64, (C_in,) int64 -> (C_out, C_in / groups) int64
    """Weights per kernel that maximise :func:`objective` with Σ M = n and 0 <= M[o, i] <= limit[i].

    Of equally good ways those that spread evenly, otherwise at random. n must fit.

    >>> rng = np.random.default_rng(0)
    >>> counts = kernel_counts(np.array([1.0, 3.0]), np.array([2, 2]), 1, 2, 5, Balance(), rng)
    >>> counts.sum(0).tolist()  # one weight at least for each channel, then the one with more paths
    [1, 4]
    """
    rows = _row_sums(mass, limit, groups, outputs // groups, outputs, n, balance, rng)
    counts = np.empty((groups, outputs // groups, len(mass) // groups), np.int64)
    for block, sums in zip(counts, rows.reshape(groups, -1), strict=True):
        each, rest = np.divmod(sums, len(block))
        block[:] = each
        columns = np.full(len(block), each.sum())
        for i in rng.permutation(len(sums)):
            if rest[i]:  # to the outputs that have fewest
                lowest = np.lexsort((rng.random(len(block)), columns))[: rest[i]]
                block[lowest, i] += 1
                columns[lowest] += 1
    return counts.reshape(outputs, -1)


def _row_sums(
    mass: np.ndarray,
    limit: np.ndarray,
    groups: int,
    width: int,
    outputs: int,
    n: int,
    balance: Balance,
    rng: np.random.Generator,
) -> np.ndarray:
    """R_i, by taking the largest marginal gains of the rows; width = C_out / groups."""
    room = limit * width
    node = balance.alpha / (len(mass) + outputs)
    most = _most_mass(mass, room, n)
    gain_of_mass = (1 - balance.alpha) * mass / most if most else np.zeros(len(mass))
    # A row's gain falls where it has its min_n weights and where no kernel of it is empty any more.
    ends = np.sort(np.stack([np.minimum(balance.min_n, room), np.minimum(width, room), room], 1), 1)
    length = np.diff(ends, axis=1, prepend=0).ravel()
    gain = gain_of_mass[:, None] + node * (ends <= balance.min_n) + balance.beta / max(n, 1) * (ends <= width)
    gain = gain.ravel()
    row = np.repeat(np.arange(len(mass)), 3)
    # The first min_n * width weights of a group also fill its outputs.
    group = row // (len(mass) // groups)
    order = np.lexsort((-gain, group))
    row, gain, length, group = row[order], gain[order], length[order], group[order]
    before = np.cumsum(length) - length
    before -= before[np.searchsorted(group, group)]
    filling = np.clip(balance.min_n * width - before, 0, length)
    row, length = np.concatenate([row, row]), np.concatenate([filling, length - filling])
    gain = np.concatenate([gain + node, gain])
    gain = np.round(gain / max(float(gain.max(initial=0.0)), 1e-300), 12)  # rounding noise is no difference
    order = np.argsort(-gain, kind="stable")
    passed = int(np.searchsorted(np.cumsum(length[order]), n))
    last = gain[order[min(passed, len(order) - 1)]]
    taken = np.where(gain > last, length, 0)
    tied = gain == last
    taken[tied] = _evenly(length[tied], n - int(taken.sum()), rng)
    return np.bincount(row, taken, len(mass)).astype(np.int64)


def _most_mass(mass: np.ndarray, room: np.ndarray, n: int) -> float:
    """The most Σ mass_i R_i that n weights can have."""
    order = np.argsort(-mass)
    before = np.cumsum(room[order]) - room[order]
    return float(mass[order] @ np.clip(n - before, 0, room[order]))


def _evenly(lengths: np.ndarray, amount: int, rng: np.random.Generator) -> np.ndarray:
    """Share out an amount: all equally many, each at most its length; the odd ones at random."""
    low, high = 0, int(lengths.max(initial=0))
    while low < high:  # the largest level that the amount suffices for
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(lengths, middle).sum() <= amount else (low, middle - 1)
    taken = np.minimum(lengths, low)
    more = np.flatnonzero(lengths > low)
    taken[rng.permutation(more)[: amount - int(taken.sum())]] += 1
    return taken
