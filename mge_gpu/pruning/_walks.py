"""Random walks over the units of a network that never lose sight of the positions they stand for.

A walk carries the set of positions of its unit that its path so far can reach, so that the weights of a
finished walk lie on a path of the unrolled graph, not only of its channels: taps that see nothing but
zero padding from there are not taken.
"""

import numpy as np

from mge_gpu.backends.cpu.jit import jit
from mge_gpu.pruning._walk_tables import WalkTables

NO_LIMIT = np.int64(1 << 60)  # typed: numba would compile every caller anew for a literal
START = np.int64(0)
TRIES = 8


@jit
def _draw(sums: np.ndarray, start: int, stop: int, rng: np.random.Generator) -> int:
    """An index from ``start`` to ``stop`` with probabilities whose running sums are given."""
    if stop - start == 1:
        return start
    x = rng.random() * sums[stop - 1]
    low, high = start, stop - 1
    while low < high:
        middle = (low + high) // 2
        if sums[middle] > x:
            high = middle
        else:
            low = middle + 1
    return low


@jit
def _carry(w: WalkTables, name: int, forth: bool, here: np.ndarray, there: np.ndarray, size: int) -> bool:
    """The positions that a list pairs with those set in ``here``; whether there are any."""
    there[:size] = 0
    some = False
    if forth:
        for k in range(w.pair_ptr[name], w.pair_ptr[name + 1]):
            if here[w.pair_source[k]]:
                there[w.pair_target[k]] = 1
                some = True
    else:
        for k in range(w.pair_ptr[name], w.pair_ptr[name + 1]):
            if here[w.pair_target[k]]:
                there[w.pair_source[k]] = 1
                some = True
    return some


@jit
def _meets(w: WalkTables, name: int, forth: bool, here: np.ndarray) -> bool:
    for k in range(w.pair_ptr[name], w.pair_ptr[name + 1]):
        if here[w.pair_source[k] if forth else w.pair_target[k]]:
            return True
    return False


@jit
def _element(
    w: WalkTables, size: np.ndarray, bundle: int, output: int, forth: bool, producer: int, here: np.ndarray,
    check: bool, rng: np.random.Generator, found: np.ndarray,
) -> bool:  # fmt: skip
    """Draw (place, list, producer) of a kernel into ``found``: a tap in proportion to |w|.

    ``producer`` -1 stands for any, each equally likely. With ``check`` only those that meet ``here``.
    """
    group = w.bundle_group[bundle]
    taps = w.taps[w.group_layer[group]]
    first, producers = w.bundle_producer[bundle], w.bundle_producer[bundle + 1] - w.bundle_producer[bundle]
    low, high = (producer, producer + 1) if producer >= 0 else (0, producers)
    total = zeros = 0.0
    for m in range(w.bundle_member[bundle + 1] - w.bundle_member[bundle]):
        base = w.output_weight[output] + w.member[w.bundle_member[bundle] + m] * taps
        for t in range(taps):
            place = w.weights[base + t]
            fitting, chosen = 0, -1
            for q in range(low, high):
                name = w.lists[w.bundle_list[bundle] + (m * producers + q) * taps + t]
                if name >= 0 and (not check or _meets(w, name, forth, here)):
                    fitting += 1
                    if fitting == 1 or rng.random() * fitting < 1:
                        chosen = q
            if fitting == 0:
                continue
            # A weighted draw in one pass; zeros only count where all are zero.
            value = size[place]
            if value > 0:
                total += value
                take = rng.random() * total < value
            else:
                zeros += 1
                take = total == 0 and rng.random() * zeros < 1
            if take:
                found[0] = place
                found[1] = w.lists[w.bundle_list[bundle] + (m * producers + chosen) * taps + t]
                found[2] = w.producer[first + chosen]
    return total + zeros > 0


@jit
def _move(
    w: WalkTables, size: np.ndarray, unit: int, forth: bool, here: np.ndarray, there: np.ndarray,
    rng: np.random.Generator, found: np.ndarray,
) -> int:  # fmt: skip
    """One step of an unconstrained walk: the next unit, -1 at an end, -2 where no tap meets ``here``.

    A branch (a layer, or a shortcut) is drawn evenly, then a kernel by its norm, then a tap by |w|.
    """
    ptr = w.unit_forth if forth else w.unit_back
    branches = ptr[unit + 1] - ptr[unit]
    ends = 1 if (w.is_output[unit] if forth else w.is_input[unit]) else 0
    branch = int(rng.random() * (branches + ends))
    if branch == branches:
        return -1
    branch += ptr[unit]
    if forth:
        entry = _draw(w.entry_sum, w.branch[branch], w.branch[branch + 1], rng)
        bundle, producer = w.entry_bundle[entry], w.entry_producer[entry]
        group = w.bundle_group[bundle]
        outputs = w.group_output[group + 1] - w.group_output[group]
        at = w.group_norm[group] + (bundle - w.group_bundle[group]) * outputs
        output = w.group_output[group] + _draw(w.norm_forth, at, at + outputs, rng) - at
    else:
        group, producer = w.back_group[branch], -1
        bundles = w.group_bundle[group + 1] - w.group_bundle[group]
        output = w.group_output[group] + w.back_output[branch]
        at = w.group_norm[group] + w.back_output[branch] * bundles
        bundle = w.group_bundle[group] + _draw(w.norm_back, at, at + bundles, rng) - at
    for attempt in range(2):
        if not _element(w, size, bundle, output, forth, producer, here, attempt == 1, rng, found):
            return -2
        unit = w.output_unit[output] if forth else found[2]
        if _carry(w, found[1], forth, here, there, w.unit_positions[unit]):
            return unit
    return -2


@jit
def _move_within(
    w: WalkTables, size: np.ndarray, kept: np.ndarray, cost: np.ndarray, limit: int, unit: int, forth: bool,
    rng: np.random.Generator, found: np.ndarray,
) -> int:  # fmt: skip
    """A step after which an end can be reached with ``limit`` new weights in all; as `_move`, sets unseen.

    ``cost[u]`` new weights at least lead from unit u to an end.
    """
    ptr = w.unit_forth if forth else w.unit_back
    ways, chosen = 0, -2
    if w.is_output[unit] if forth else w.is_input[unit]:
        ways, chosen = 1, -1
    trial = np.empty(3, np.int64)
    for branch in range(ptr[unit], ptr[unit + 1]):
        total, there = 0.0, -2
        low, high = (w.branch[branch], w.branch[branch + 1]) if forth else (0, 1)
        for e in range(low, high):
            group = w.bundle_group[w.entry_bundle[e]] if forth else w.back_group[branch]
            taps = w.taps[w.group_layer[group]]
            b0, b1 = w.group_bundle[group], w.group_bundle[group + 1]
            o0, o1 = w.group_output[group], w.group_output[group + 1]
            if forth:
                b0, b1 = w.entry_bundle[e], w.entry_bundle[e] + 1
            else:
                o0, o1 = o0 + w.back_output[branch], o0 + w.back_output[branch] + 1
            for bundle in range(b0, b1):
                producers = w.bundle_producer[bundle + 1] - w.bundle_producer[bundle]
                q0, q1 = (w.entry_producer[e], w.entry_producer[e] + 1) if forth else (0, producers)
                for q in range(q0, q1):
                    for output in range(o0, o1):
                        after = w.output_unit[output] if forth else w.producer[w.bundle_producer[bundle] + q]
                        if cost[after] > limit:
                            continue
                        for m in range(w.bundle_member[bundle + 1] - w.bundle_member[bundle]):
                            base = w.output_weight[output] + w.member[w.bundle_member[bundle] + m] * taps
                            for t in range(taps):
                                name = w.lists[w.bundle_list[bundle] + (m * producers + q) * taps + t]
                                place = w.weights[base + t]
                                if name < 0 or (not kept[place] and cost[after] + 1 > limit):
                                    continue
                                value = size[place] + 1e-30
                                total += value
                                if rng.random() * total < value:
                                    trial[0], trial[1], trial[2] = place, name, after
                                    there = after
        if there >= 0:
            ways += 1
            if rng.random() * ways < 1:
                chosen = there
                found[:] = trial
    return chosen


@jit
def walk(
    w: WalkTables, size: np.ndarray, kept: np.ndarray, cost: np.ndarray, limit: int, unit: int, forth: bool,
    sets: np.ndarray, path: np.ndarray, names: np.ndarray, n: int, rng: np.random.Generator,
) -> int:  # fmt: skip
    """Walk from ``unit`` and the positions ``sets[0]`` to an end; returns the length of the path, or -1.

    The places of the weights and the lists passed are entered from ``n`` on. The positions at the end are in
    ``sets[0]``. With a limit at most so many weights that are not kept yet are taken.
    """
    found = np.empty(3, np.int64)
    here, there = sets[0], sets[1]
    at = 0
    while True:
        if limit >= NO_LIMIT:
            unit = _move(w, size, unit, forth, here, there, rng, found)
        else:
            before = unit
            for _ in range(TRIES):
                unit = _move_within(w, size, kept, cost, limit, before, forth, rng, found)
                if unit < 0 or _carry(w, found[1], forth, here, there, w.unit_positions[unit]):
                    break
                unit = -2
            if unit >= 0 and not kept[found[0]]:
                limit -= 1
        if unit == -1:
            if at == 1:
                sets[0, :] = sets[1]
            return n
        if unit == -2:
            return -1
        path[n], names[n] = found[0], found[1]
        n += 1
        here, there = there, here
        at = 1 - at


@jit
def keep(path: np.ndarray, n: int, kept: np.ndarray, missing: int) -> int:
    """Mark a path's weights as kept; how many are new, or -1, marking none, where more than ``missing``."""
    new = 0
    for k in range(n):
        if not kept[path[k]]:
            kept[path[k]] = True
            path[new], path[k] = path[k], path[new]
            new += 1
    if new > missing:
        for k in range(new):
            kept[path[k]] = False
        return -1
    return new


@jit
def random_walks(
    w: WalkTables, size: np.ndarray, kept: np.ndarray, missing: int, turn: int, walks: int,
    inputs: np.ndarray, outputs: np.ndarray, sets: np.ndarray, path: np.ndarray, names: np.ndarray,
    rng: np.random.Generator,
) -> tuple[int, bool]:  # fmt: skip
    """Up to ``walks`` walks, forwards at even turns, from the inputs or outputs in turn.

    Returns how many weights they add, and whether one would have added too many, which ends them.
    """
    added, free = 0, np.zeros(1, np.int64)
    for at in range(turn, turn + walks):
        starts = inputs if at % 2 == 0 else outputs
        unit = starts[(at // 2) % len(starts)]
        sets[0, : w.unit_positions[unit]] = 1
        n = walk(w, size, kept, free, NO_LIMIT, unit, at % 2 == 0, sets, path, names, START, rng)
        if n < 0:
            continue
        new = keep(path, n, kept, missing - added)
        if new < 0:
            return added, True
        added += new
        if added == missing:
            break
    return added, False


@jit
def costs(w: WalkTables, kept: np.ndarray, forth: np.ndarray, back: np.ndarray) -> None:
    """The fewest weights that are not kept on a path from an input to each unit, and on to an output."""
    forth[:], back[:] = 1 << 40, 1 << 40
    for u in range(len(forth)):
        if w.is_input[u]:
            forth[u] = 0
        if w.is_output[u]:
            back[u] = 0
    groups = len(w.group_layer)
    for k in range(2 * groups):
        group = k if k < groups else 2 * groups - 1 - k
        taps = w.taps[w.group_layer[group]]
        for bundle in range(w.group_bundle[group], w.group_bundle[group + 1]):
            producers = w.bundle_producer[bundle + 1] - w.bundle_producer[bundle]
            for q in range(producers):
                unit = w.producer[w.bundle_producer[bundle] + q]
                for output in range(w.group_output[group], w.group_output[group + 1]):
                    step = 2
                    for m in range(w.bundle_member[bundle + 1] - w.bundle_member[bundle]):
                        base = w.output_weight[output] + w.member[w.bundle_member[bundle] + m] * taps
                        for t in range(taps):
                            if w.lists[w.bundle_list[bundle] + (m * producers + q) * taps + t] >= 0:
                                step = min(step, 0 if kept[w.weights[base + t]] else 1)
                    if step == 2:
                        continue
                    end = w.output_unit[output]
                    if k < groups:
                        forth[end] = min(forth[end], forth[unit] + step)
                    else:
                        back[unit] = min(back[unit], back[end] + step)


@jit
def walk_through(
    w: WalkTables, size: np.ndarray, kept: np.ndarray, forth: np.ndarray, back: np.ndarray, missing: int,
    limited: bool, bundle: int, m: int, t: int, output: int, sets: np.ndarray, path: np.ndarray,
    names: np.ndarray, rng: np.random.Generator,
) -> int:  # fmt: skip
    """Keep a whole path through one weight, of at most ``missing`` new ones; how many, or 0."""
    taps = w.taps[w.group_layer[w.bundle_group[bundle]]]
    place = w.weights[w.output_weight[output] + w.member[w.bundle_member[bundle] + m] * taps + t]
    producers = w.bundle_producer[bundle + 1] - w.bundle_producer[bundle]
    end = w.output_unit[output]
    shift = int(rng.random() * producers)
    for attempt in range(max(TRIES, producers)):
        q = (attempt + shift) % producers
        unit = w.producer[w.bundle_producer[bundle] + q]
        name = w.lists[w.bundle_list[bundle] + (m * producers + q) * taps + t]
        limit = missing - 1 - back[end] if limited else NO_LIMIT
        if name < 0 or (limited and forth[unit] > limit):
            continue
        sets[0, : w.unit_positions[end]] = 1
        _carry(w, name, False, sets[0], sets[1], w.unit_positions[unit])
        sets[0, :] = sets[1]
        n = walk(w, size, kept, forth, limit, unit, False, sets, path, names, START, rng)
        if n < 0:
            continue
        # sets[0] is where an input may start; from there back to the weight, and on.
        path[n], names[n] = place, name
        at = 0
        for k in range(n - 1, -2, -1):
            _carry(w, names[k] if k >= 0 else name, True, sets[at], sets[1 - at], sets.shape[1])
            at = 1 - at
        if at == 1:
            sets[0, :] = sets[1]
        if limited:
            limit = missing - 1
            for k in range(n):
                limit -= 0 if kept[path[k]] else 1
        n = walk(w, size, kept, back, limit, end, True, sets, path, names, n + 1, rng)
        if n >= 0:
            new = keep(path, n, kept, missing)
            if new > 0:
                return new
    return 0


@jit
def walks_through(
    w: WalkTables, size: np.ndarray, kept: np.ndarray, order: np.ndarray, missing: int, longest: int,
    sets: np.ndarray, path: np.ndarray, names: np.ndarray, rng: np.random.Generator,
) -> int:  # fmt: skip
    """A path through each of ``w.weights[order]`` that is not kept yet, while some are missing.

    Returns how many weights that adds. Where fewer are missing than the ``longest`` path takes, walks are
    limited to what there is room for.
    """
    forth, back = np.empty(len(w.is_input), np.int64), np.empty(len(w.is_input), np.int64)
    added, known = 0, False
    for slot in order:
        left = missing - added
        if left == 0:
            break
        if kept[w.weights[slot]]:
            continue
        layer = np.searchsorted(w.layer_slot, slot, "right") - 1
        taps, inside = w.taps[layer], w.layer_inside[layer]
        within = slot - w.layer_slot[layer]
        o, t = within // (inside * taps), within % taps
        output = w.output_at[w.layer_output[layer] + o]
        group = o // ((w.layer_output[layer + 1] - w.layer_output[layer]) // w.layer_groups[layer])
        channel = group * inside + within // taps % inside
        bundle = w.channel_bundle[w.layer_channel[layer] + channel]
        if output < 0 or bundle < 0:
            continue
        limited = left < longest
        if limited:
            if not known:
                costs(w, kept, forth, back)
                known = True
            low = np.int64(1 << 40)
            for p in range(w.bundle_producer[bundle], w.bundle_producer[bundle + 1]):
                low = min(low, forth[w.producer[p]])
            if low + 1 + back[w.output_unit[output]] > left:
                continue
        member = w.channel_member[w.layer_channel[layer] + channel]
        new = walk_through(
            w, size, kept, forth, back, left, limited, bundle, member, t, output, sets, path, names, rng
        )
        if new > 0:
            added += new
            known = False
    return added
