"""Numba kernels that build the compressed adjacency from weights and position pairs."""

import numpy as np

from mge_gpu.backends.cpu.jit import jit, jit_in_place


@jit_in_place
def count_taps(
    matrix: np.ndarray,
    segment_ptr: np.ndarray,
    segment_set: np.ndarray,
    key: np.ndarray,
    keys: int,
    group_in: int,
    group_out: int,
    count: np.ndarray,
) -> None:
    """Add to ``count`` how many entries of each tap `expand_nonzeros` will write."""
    n_out, n_in, taps = matrix.shape
    for o in range(n_out):
        first = (o // group_out) * group_in
        for i in range(n_in):
            for t in range(taps):
                if matrix[o, i, t] != 0:
                    for s in range(segment_ptr[first + i], segment_ptr[first + i + 1]):
                        for d in range(key.shape[1]):
                            if key[t, d] >= 0:
                                count[segment_set[s] * keys + key[t, d]] += 1


@jit_in_place
def expand_nonzeros(
    matrix: np.ndarray,
    segment_ptr: np.ndarray,
    segment_channel: np.ndarray,
    segment_set: np.ndarray,
    key: np.ndarray,
    channel_shift: np.ndarray,
    keys: int,
    group_in: int,
    group_out: int,
    target: np.ndarray,
    source: np.ndarray,
    tap: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Write (target channel, source channel, tap, |w|) for each nonzero weight, by target channel."""
    n_out, n_in, taps = matrix.shape
    k = 0
    for o in range(n_out):
        first = (o // group_out) * group_in
        for i in range(n_in):
            for t in range(taps):
                w = matrix[o, i, t]
                if w == 0:
                    continue
                for s in range(segment_ptr[first + i], segment_ptr[first + i + 1]):
                    for d in range(key.shape[1]):
                        if key[t, d] >= 0:
                            target[k] = o
                            source[k] = segment_channel[s] + channel_shift[d]
                            tap[k] = segment_set[s] * keys + key[t, d]
                            weight[k] = abs(w)
                            k += 1


@jit
def position_signatures(ptr: np.ndarray, tap: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest partner of each position, and a hash of its (tap, partner - smallest) list."""
    n = len(ptr) - 1
    anchor = np.zeros(n, np.int64)
    code = np.zeros(n, np.uint64)
    for p in range(n):
        a, b = ptr[p], ptr[p + 1]
        if a == b:
            continue
        low = other[a]
        for j in range(a + 1, b):
            low = min(low, other[j])
        anchor[p] = low
        h = np.uint64(1469598103934665603)
        for j in range(a, b):
            for x in (tap[j], other[j] - low):
                h = (h ^ np.uint64(x)) * np.uint64(1099511628211)
                h ^= h >> np.uint64(29)
        code[p] = h
    return anchor, code


@jit_in_place
def same_signature(
    ptr: np.ndarray, tap: np.ndarray, other: np.ndarray, anchor: np.ndarray, model: np.ndarray
) -> bool:
    """Whether every position's list equals that of its class's first position (no hash collision)."""
    for p in range(len(ptr) - 1):
        q = model[p]
        if ptr[p + 1] - ptr[p] != ptr[q + 1] - ptr[q]:
            return False
        for j in range(ptr[p + 1] - ptr[p]):
            a, b = ptr[p] + j, ptr[q] + j
            if tap[a] != tap[b] or other[a] - anchor[p] != other[b] - anchor[q]:
                return False
    return True


@jit_in_place
def count_rows(
    channel: np.ndarray,
    tap: np.ndarray,
    class_ptr: np.ndarray,
    class_id: np.ndarray,
    classes: int,
    rows: np.ndarray,
) -> None:
    """Add to ``rows[channel * classes + class]`` the entries that each nonzero brings."""
    for k in range(len(channel)):
        base = channel[k] * classes
        for j in range(class_ptr[tap[k]], class_ptr[tap[k] + 1]):
            rows[base + class_id[j]] += 1


@jit_in_place
def fill_rows(
    channel: np.ndarray,
    other: np.ndarray,
    tap: np.ndarray,
    class_ptr: np.ndarray,
    class_id: np.ndarray,
    class_shift: np.ndarray,
    classes: int,
    channel_stride: int,
    position_stride: int,
    cursor: np.ndarray,
    shifts: np.ndarray,
) -> None:
    """Write the shifts of each (channel, class) row; ``cursor`` starts at the row pointers.

    Of a single tap they come in ascending order: position by position where channels run fastest.
    """
    if len(class_ptr) == 2 and position_stride > channel_stride:
        for j in range(len(class_id)):
            first = class_shift[j] * position_stride
            for k in range(len(channel)):
                row = channel[k] * classes + class_id[j]
                shifts[cursor[row]] = other[k] * channel_stride + first
                cursor[row] += 1
        return
    for k in range(len(channel)):
        base = channel[k] * classes
        for j in range(class_ptr[tap[k]], class_ptr[tap[k] + 1]):
            row = base + class_id[j]
            shifts[cursor[row]] = other[k] * channel_stride + class_shift[j] * position_stride
            cursor[row] += 1


@jit
def count_distinct(
    ptr: np.ndarray,
    tap: np.ndarray,
    cells: np.ndarray,
    many: np.ndarray,
    class_ptr: np.ndarray,
    class_id: np.ndarray,
    class_shift: np.ndarray,
    times: np.ndarray,
) -> int:
    """Edges of cells, each ``many`` times: what several of a cell's taps pair in one position counts once.

    Cell c has the taps tap[ptr[c]:ptr[c + 1]]; ``times`` (classes,) int64: positions of each class.
    """
    width = np.int64(0)
    for j in range(len(class_shift)):
        width = max(width, class_shift[j] + 1)
    stamp = np.full(len(times) * width, -1, np.int64)
    total = np.int64(0)
    for c in range(len(cells)):
        found = np.int64(0)
        for k in range(ptr[cells[c]], ptr[cells[c] + 1]):
            for j in range(class_ptr[tap[k]], class_ptr[tap[k] + 1]):
                at = class_id[j] * width + class_shift[j]
                if stamp[at] != c:
                    stamp[at] = c
                    found += times[class_id[j]]
        total += found * many[c]
    return int(total)


def sort_rows(ptr: np.ndarray, shifts: np.ndarray) -> None:
    """Sort each row in place. Most are sorted already, or in short descending runs."""
    far: np.ndarray = np.zeros(len(ptr) - 1, np.bool_)
    _sort_nearly_sorted(ptr, shifts, far)
    for r in np.flatnonzero(far):
        shifts[ptr[r] : ptr[r + 1]].sort()


@jit_in_place
def _sort_nearly_sorted(ptr: np.ndarray, shifts: np.ndarray, far: np.ndarray) -> None:
    """Sort rows by insertion; those that are far from sorted are marked and left."""
    for r in range(len(ptr) - 1):
        lo, hi = ptr[r], ptr[r + 1]
        moves = 0
        for j in range(lo + 1, hi):
            x = shifts[j]
            i = j
            while i > lo and shifts[i - 1] > x:
                shifts[i] = shifts[i - 1]
                i -= 1
            shifts[i] = x
            moves += j - i
            if moves > 32 * (hi - lo):
                far[r] = True
                break


@jit
def row_codes(ptr: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each row, (rows,) uint64."""
    code = np.empty(len(ptr) - 1, np.uint64)
    for r in range(len(code)):
        h = np.uint64(14695981039346656037) ^ np.uint64(ptr[r + 1] - ptr[r])
        for j in range(ptr[r], ptr[r + 1]):
            h = (h ^ np.uint64(shifts[j])) * np.uint64(1099511628211)
            h ^= h >> np.uint64(29)
        code[r] = h
    return code


@jit_in_place
def equal_rows(ptr: np.ndarray, shifts: np.ndarray, model: np.ndarray) -> bool:
    """Whether every row r equals row model[r] (no hash collision)."""
    for r in range(len(model)):
        a, b = ptr[r], ptr[model[r]]
        if ptr[r + 1] - a != ptr[model[r] + 1] - b:
            return False
        for j in range(ptr[r + 1] - a):
            if shifts[a + j] != shifts[b + j]:
                return False
    return True


@jit
def unique_rows(ptr: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort each row and drop repeats: two routes from one node are one edge."""
    out_ptr = np.zeros_like(ptr)
    out = np.empty_like(shifts)
    k = 0
    for r in range(len(ptr) - 1):
        row = np.sort(shifts[ptr[r] : ptr[r + 1]])
        for j in range(len(row)):
            if j == 0 or row[j] != row[j - 1]:
                out[k] = row[j]
                k += 1
        out_ptr[r + 1] = k
    return out_ptr, out[:k].copy()


@jit
def find_runs(ptr: np.ndarray, target: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut each tap's pairs into arithmetic runs, in the order given."""
    taps = len(ptr) - 1
    runs = np.empty((len(target), 5), np.int64)
    run_ptr = np.zeros(taps + 1, np.int64)
    k = 0
    for t in range(taps):
        j = ptr[t]
        while j < ptr[t + 1]:
            length, a, b = 1, 0, 0
            if j + 1 < ptr[t + 1]:
                a, b = target[j + 1] - target[j], source[j + 1] - source[j]
                while (
                    j + length < ptr[t + 1]
                    and target[j + length] - target[j + length - 1] == a
                    and source[j + length] - source[j + length - 1] == b
                ):
                    length += 1
            runs[k] = (target[j], source[j], length, a, b)
            k += 1
            j += length
        run_ptr[t + 1] = k
    return run_ptr, runs[:k].copy()


@jit
def first_of_each(tap: np.ndarray, position: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Which pairs are the first of their tap (ascending) and position, (pairs,) bool.

    ``last``: -1 for each position, overwritten.
    """
    first = np.empty(len(tap), np.bool_)
    for k in range(len(tap)):
        first[k] = last[position[k]] != tap[k]
        last[position[k]] = tap[k]
    return first
