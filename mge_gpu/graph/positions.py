"""Position maps: which positions of two partitions each tap of a block pairs, and their classes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mge_gpu.backends.cpu import compress
from mge_gpu.tracing.relation import Relation


@dataclass(frozen=True)
class Classes:
    """Positions of one side of a block grouped by the neighbourhood they see, up to a shift.

    ``position_class`` and ``anchor`` are per position; class entries (class, shift) are listed by tap.
    The neighbourhood is every sum of an entry's shift and a member of ``span``.
    """

    count: int
    position_class: np.ndarray  # (positions,) int32
    anchor: np.ndarray  # (positions,) int64
    span: np.ndarray  # (shifts common to all entries,) int64, ascending from 0
    group: np.ndarray  # (positions,) int32: positions of a group see the very same
    groups: int
    entry_ptr: np.ndarray  # (taps + 1,) int64
    entry_class: np.ndarray  # (entries,) int32
    entry_shift: np.ndarray  # (entries,) int64
    repeats: bool  # whether a class reaches one position by two entries


@dataclass(frozen=True)
class PositionMap:
    """The position relations R_k of a block: pairs (target, source) of each tap k."""

    targets: int
    sources: int
    ptr: np.ndarray  # (taps + 1,) int64
    target: np.ndarray  # (pairs,) int64
    source: np.ndarray  # (pairs,) int64

    @property
    def taps(self) -> int:
        """Number of taps."""
        return len(self.ptr) - 1

    @cached_property
    def by_target(self) -> Classes:
        """Classes of the target positions."""
        return _classes(self.targets, self.ptr, self.target, self.source)

    @cached_property
    def by_source(self) -> Classes:
        """Classes of the source positions."""
        return _classes(self.sources, self.ptr, self.source, self.target)

    @cached_property
    def _known(self) -> dict[object, object]:
        """What `covers` and `without` have found before."""
        return {}

    def covers(self, tap: int, other: int) -> bool:
        """Whether a tap pairs all that another one pairs, and more or the same.

        >>> whole, row = (np.repeat([0, 1], 2), np.tile([0, 1], 2)), (np.array([0, 1]), np.array([0, 1]))
        >>> m = PositionMap(2, 2, np.array([0, 4, 6]), *(np.r_[a, b] for a, b in zip(whole, row)))
        >>> m.covers(0, 1), m.covers(1, 0)
        (True, False)
        """
        if (tap, other) not in self._known:
            (a, b), (c, d) = self.ptr[tap : tap + 2], self.ptr[other : other + 2]
            found = d - c <= b - a
            if found and d > c:
                first = (self.target[a:b] == self.target[c]) & (self.source[a:b] == self.source[c])
                key = self.target * self.sources + self.source if first.any() else None
                found = key is not None and bool(np.isin(key[c:d], key[a:b]).all())
            self._known[tap, other] = bool(found)
        return bool(self._known[tap, other])

    def without(self, taps: frozenset[int]) -> "PositionMap":
        """The same taps, of which some pair nothing."""
        if taps not in self._known:
            size = np.diff(self.ptr)
            kept = np.repeat(~np.isin(np.arange(self.taps), list(taps)), size)
            size[list(taps)] = 0
            ptr = np.concatenate([[0], np.cumsum(size)])
            self._known[taps] = PositionMap(
                self.targets, self.sources, ptr, self.target[kept], self.source[kept]
            )
        found = self._known[taps]
        assert isinstance(found, PositionMap)
        return found

    @cached_property
    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs as arithmetic runs: (taps + 1,) pointers and (runs, 5) rows, fewest of two orders."""
        tap = np.repeat(np.arange(self.taps), np.diff(self.ptr))
        key = tap * self.targets + self.target
        order = np.argsort(key, kind="stable")
        first = np.r_[True, key[order][1:] != key[order][:-1]] if len(order) else np.zeros(0, bool)
        start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - start
        options = []
        for o in (np.lexsort((self.target, rank, tap)), np.lexsort((self.source, self.target, tap))):
            options.append(compress.find_runs(self.ptr, self.target[o], self.source[o]))
        return min(options, key=lambda x: len(x[1]))


def join(maps: list[PositionMap]) -> PositionMap:
    """Taps of several maps between the same two partitions, one after the other."""
    if len(maps) == 1:
        return maps[0]
    ends = np.cumsum([0] + [m.ptr[-1] for m in maps])
    ptr = np.concatenate([[0], *(m.ptr[1:] + e for m, e in zip(maps, ends, strict=False))])
    target, source = (np.concatenate([getattr(m, side) for m in maps]) for side in ("target", "source"))
    return PositionMap(maps[0].targets, maps[0].sources, ptr.astype(np.int64), target, source)


def _classes(n: int, tap_ptr: np.ndarray, mine: np.ndarray, other: np.ndarray) -> Classes:
    taps = len(tap_ptr) - 1
    tap = np.repeat(np.arange(taps), np.diff(tap_ptr))
    order = np.lexsort((other, tap, mine))
    mine, other, tap = mine[order], other[order], tap[order]
    ptr = np.searchsorted(mine, np.arange(n + 1)).astype(np.int64)
    anchor, code = compress.position_signatures(ptr, tap, other)
    _, first, group = np.unique(code, return_index=True, return_inverse=True)
    if not compress.same_signature(ptr, tap, other, anchor, first[group]):  # a hash collision
        first, group = np.arange(n), np.arange(n)
    counts = np.diff(ptr)[first]
    cls = np.repeat(np.arange(len(first)), counts)
    at = np.concatenate([np.arange(ptr[p], ptr[p + 1]) for p in first]) if n else np.zeros(0, np.int64)
    shift, entry_tap = other[at] - anchor[first][cls], tap[at]
    spot = np.sort(cls * (int(shift.max(initial=0)) + 1) + shift)
    repeats = bool((spot[1:] == spot[:-1]).any())
    span, kept = _common_span(cls, entry_tap, shift) if not repeats else _ALONE
    cls, shift, entry_tap = cls[kept], shift[kept], entry_tap[kept]
    by_tap = np.argsort(entry_tap, kind="stable")
    entry_ptr = np.searchsorted(entry_tap[by_tap], np.arange(taps + 1)).astype(np.int64)
    place, same = np.unique(group * (int(anchor.max(initial=0)) + 1) + anchor, return_inverse=True)
    return Classes(
        len(first),
        group.astype(np.int32),
        anchor,
        span,
        same.astype(np.int32),
        len(place),
        entry_ptr,
        cls[by_tap].astype(np.int32),
        shift[by_tap],
        repeats,
    )


_ALONE = np.zeros(1, np.int64), slice(None)


def _common_span(cls: np.ndarray, tap: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, slice]:
    """What the shifts of every (class, tap) have in common, and a slice that takes the first of each.

    Entries come by class and tap, shifts ascending. Where the sets differ from one another by more
    than a shift, the span is {0} and all entries stay.
    """
    if not len(shift):
        return _ALONE
    start = np.flatnonzero(np.r_[True, (cls[1:] != cls[:-1]) | (tap[1:] != tap[:-1])])
    size = int(start[1]) if len(start) > 1 else len(shift)
    if size == 1 or size * len(start) != len(shift) or (np.diff(start) != size).any():
        return _ALONE
    table = shift.reshape(-1, size)
    span = table[0] - table[0, 0]
    if not (table - table[:, :1] == span).all():
        return _ALONE
    return span, slice(None, None, size)


@dataclass(frozen=True)
class ChannelMap:
    """What the input channels of a weight stand for: (source channel, set of positions) segments."""

    ptr: np.ndarray  # (input channels + 1,) int64
    channel: np.ndarray  # (segments,) int64
    position_set: np.ndarray  # (segments,) int64
    sets: Relation  # members of each position set
    injective: bool  # whether no two segments are equal


def channel_map(channels: Relation, split: tuple[np.ndarray, np.ndarray], num_channels: int) -> ChannelMap:
    """Group the members (channel, position) of each input channel by channel; name the position sets."""
    channel, position = split
    row = channels.rows()
    if not position.any():
        sets = Relation(np.array([0, 1]), np.zeros(1, np.int64))
        zero = np.zeros(len(channel), np.int64)
        distinct = len(np.unique(channel)) == len(channel)
        return ChannelMap(channels.ptr, channel, zero, sets, distinct)
    order = np.lexsort((position, channel, row))
    row, channel, position = row[order], channel[order], position[order]
    key = row * num_channels + channel
    start = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    length = np.diff(np.r_[start, len(key)])
    names: dict[bytes, int] = {}
    members: list[np.ndarray] = []
    if (length == length[0]).all():
        table, name = np.unique(position.reshape(-1, length[0]), axis=0, return_inverse=True)
        members, name = list(table), name.ravel()
    else:
        name = np.empty(len(start), np.int64)
        for k, (s, n) in enumerate(zip(start, length, strict=True)):
            p = position[s : s + n]
            name[k] = names.setdefault(p.tobytes(), len(names))
            if name[k] == len(members):
                members.append(p)
    sets = Relation(np.cumsum([0] + [len(m) for m in members]), np.concatenate(members).astype(np.int64))
    pair = channel[start] * len(members) + name
    ptr = np.searchsorted(row[start], np.arange(len(channels) + 1)).astype(np.int64)
    return ChannelMap(ptr, channel[start], name, sets, len(np.unique(pair)) == len(pair))
