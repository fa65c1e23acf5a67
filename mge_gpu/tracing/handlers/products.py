"""Products of two tensors that both depend on the input: attention, bilinear forms, contractions.

The product is a set: element (i, j) of a @ b is linked once to every node that row i of a or column j of
b is made of, however many of the summed terms it is in.
"""

from collections.abc import Sequence

import numpy as np

from mge_gpu.tracing.handlers import layers
from mge_gpu.tracing.handlers.masks import closed, exclude
from mge_gpu.tracing.relation import Relation, function
from mge_gpu.tracing.sets import as_set, distinct_rows, hide
from mge_gpu.tracing.tracer import Call, Const
from mge_gpu.tracing.value import Term, Value, broadcast, drop_dim, map_dim, permute, reshape, structural_sum

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def contract(call: Call, operands: Sequence[tuple[Value, str]], output: str) -> Value:
    """The set product of tensors whose dims are named by letters, as in einsum, to the dims ``output``.

    Pairs that one operand excludes are hidden in the others.
    """
    sizes = {c: n for value, names in operands for c, n in zip(names, value.shape, strict=True)}
    for value, names in operands:  # broadcasting
        sizes |= {c: n for c, n in zip(names, value.shape, strict=True) if n != 1}
        if len(set(names)) != len(names):
            raise call.error(f"an einsum with a repeated index ({names})", "take the diagonal first")
    shape = tuple(sizes[c] for c in output)
    terms: list[Term] = []
    for value, names in operands:
        if not value.terms:
            continue
        for other, others in operands:
            if other is not value and other.excluded is not None:
                value, names = _hidden_by(value, names, other.excluded, others, sizes)
        for c in [c for c in names if c not in output]:
            value = _any(value, names.index(c))
            names = names.replace(c, "")
        wanted = [c for c in output if c in names]
        value = permute(value, [names.index(c) for c in wanted])
        value = reshape(value, [value.shape[wanted.index(c)] if c in wanted else 1 for c in output])
        terms.extend(broadcast(value, shape).terms)
    return as_set(Value(shape, tuple(terms)), call)


def _any(value: Value, dim: int) -> Value:
    """Sum over a dim, which goes; what is the same in all its terms counts once."""
    n = value.shape[dim]
    return distinct_rows(drop_dim(map_dim(value, dim, Relation(np.array([0, n]), np.arange(n))), dim))


def _hidden_by(
    value: Value, names: str, excluded: np.ndarray, others: str, sizes: dict[str, int]
) -> tuple[Value, str]:
    """``value`` with the dims of ``excluded`` that matter added, and no nodes where that is set."""
    mask, kept = excluded, ""
    for d in reversed(range(len(others))):  # drop the dims along which the mask does not vary
        first = mask.take([0], axis=d)
        if mask.shape[d] == 1 or (mask == first).all():
            mask = first.squeeze(d)
        else:
            kept = others[d] + kept
    new = "".join(c for c in kept if c not in names)
    value = broadcast(value, (*(sizes[c] for c in new), *value.shape))
    names = new + names
    mask = mask.transpose([kept.index(c) for c in names if c in kept])
    return hide(value, mask.reshape([sizes[c] if c in kept else 1 for c in names])), names


def _product(call: Call, a: Value, b: Value) -> Value:
    """a @ b by torch's rules for matmul: vectors, matrices, batches."""
    if len(a.shape) == 1 or len(b.shape) == 1:
        left, right = LETTERS[-3:-1][: len(a.shape)][-len(a.shape) :], LETTERS[-2:]
        if len(a.shape) == 1:
            left = "y"
        if len(b.shape) == 1:
            right = "y"
        lead = LETTERS[: max(len(a.shape), len(b.shape), 2) - 2]
        left = lead[-(len(a.shape) - 2) :] + left if len(a.shape) > 2 else left
        right = lead[-(len(b.shape) - 2) :] + right if len(b.shape) > 2 else right
        out = lead + ("x" if len(a.shape) > 1 else "") + ("z" if len(b.shape) > 1 else "")
        return contract(call, [(a, left), (b, right)], out)
    rank = max(len(a.shape), len(b.shape))
    lead = LETTERS[: rank - 2]
    a, b = (reshape(x, (1,) * (rank - len(x.shape)) + x.shape) for x in (a, b))
    return contract(call, [(a, lead + "xy"), (b, lead + "yz")], lead + "xz")


def matmul(call: Call) -> Value:
    """aten.matmul, mm, bmm: by a constant matrix a linear layer, else a set product."""
    a, b = call.args[:2]
    if isinstance(a, Value) and isinstance(b, Const) and len(b.shape) == 2 and len(a.shape) > 1:
        return layers.per_token(call, a, b, transposed=True)
    return _product(call, *(Value(x.shape) if isinstance(x, Const) else x for x in (a, b)))


def addmm(call: Call) -> Value:
    """aten.addmm, baddbmm: what is added first, then the two factors."""
    added, *factors = call.args[:3]
    call.args = tuple(factors)
    product = matmul(call)
    return product if isinstance(added, Const) else structural_sum([added, product], call.shape)


def einsum(call: Call) -> Value:
    """aten.einsum: any contraction of two or more tensors."""
    equation, tensors = call.args[0].replace(" ", ""), call.args[1]
    inputs, arrow, output = equation.partition("->")
    names = inputs.split(",")
    if "." in inputs:
        free = [c for c in LETTERS + LETTERS.upper() if c not in equation]
        most = max(len(t.shape) - len(n.replace("...", "")) for t, n in zip(tensors, names, strict=True))
        dots = "".join(free[:most])
        spans = [len(t.shape) - len(n.replace("...", "")) for t, n in zip(tensors, names, strict=True)]
        names = [n.replace("...", dots[most - k :]) for n, k in zip(names, spans, strict=True)]
        output = output.replace("...", dots)
    if not arrow:
        letters = "".join(names)
        output = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    values = [Value(t.shape) if isinstance(t, Const) else t for t in tensors]
    return contract(call, list(zip(values, names, strict=True)), output)


def attention(call: Call) -> Value:
    """aten.scaled_dot_product_attention: query, key, value, attn_mask, _, is_causal, scale, enable_gqa.

    Token i of head h is linked to its own query, and to key and value of the tokens that it attends to.
    """
    query, key, value = (call.value(k) for k in range(3))
    mask, causal = call.arg(3, "attn_mask"), bool(call.arg(5, "is_causal", False))
    if call.arg(7, "enable_gqa", False) or call.kwargs.get("enable_gqa"):
        key, value = (_repeat_heads(x, query.shape[-3]) for x in (key, value))
    rank = max(len(x.shape) for x in (query, key, value))
    query, key, value = (reshape(x, (1,) * (rank - len(x.shape)) + x.shape) for x in (query, key, value))
    lead = LETTERS[: rank - 2]
    scores = contract(call, [(query, lead + "we"), (key, lead + "xe")], lead + "wx")
    pairs = (query.shape[-2], key.shape[-2])
    excluded = np.triu(np.ones(pairs, bool), 1) if causal else np.zeros(pairs, bool)
    if isinstance(mask, Value) and mask.terms:  # a bias computed from the queries, added to the scores
        scores = as_set(structural_sum([scores, mask], scores.shape), call)
    if isinstance(mask, Const):
        excluded = excluded | closed(call.evaluate(mask))
    scores = exclude(scores, excluded)
    return contract(call, [(scores, lead + "wx"), (value, lead + "xy")], lead + "wy")


def _repeat_heads(x: Value, heads: int) -> Value:
    return map_dim(x, len(x.shape) - 3, function(np.arange(heads) // (heads // x.shape[-3])))
