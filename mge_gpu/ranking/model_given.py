"""LightGBM model texts in which the values of some features are known."""

import math
from collections.abc import Mapping

_END = "end of trees"
_LARGEST_COUNT = 2**30  # LightGBM reads counts as 32-bit integers
_DEFAULT_LEFT, _MISSING_IS_ZERO, _MISSING_IS_NAN = 2, 4, 8  # bits of decision_type
_ZERO = 1e-35  # LightGBM's


def given(text: str, values: Mapping[int, float]) -> str:
    """The trees that are left where the splits on known features are decided.

    They predict the same for every input that has these values. Their SHAP values are those of the whole
    trees in a game that starts with the known features: what is not known goes down both branches of a split,
    weighed by the counts of the whole tree.

    Args:
        text: a model text that `mge_gpu.ranking.model_text.check_model_text` has passed.
        values: feature number -> its value, which may be NaN.
    """
    head, *trees = text.split(_END)[0].split("\nTree=")
    written = [_written(tree.partition("\n")[0], _decided(tree, values)) for tree in trees]
    sizes = " ".join(str(len(tree.encode())) for tree in written)
    lines = [f"tree_sizes={sizes}" if line.startswith("tree_sizes=") else line for line in head.splitlines()]
    return "\n".join(lines) + "\n\n" + "".join(written) + _END + "\n"


def _decided(tree: str, values: Mapping[int, float]) -> dict[str, list[str]]:
    """The fields of a tree without its splits on known features; thresholds and leaf values stay as they are.

    The counts are scaled, so that the shares of a node's children are still those of the whole tree.
    """
    fields = {name: value.split() for name, _, value in (line.partition("=") for line in tree.splitlines())}
    children = [[int(child) for child in fields.get(name, ())] for name in ("left_child", "right_child")]

    def decided(node: int) -> int:
        while node >= 0 and (number := int(fields["split_feature"][node])) in values:
            threshold, kind = float(fields["threshold"][node]), int(fields["decision_type"][node])
            node = children[_right(values[number], threshold, kind)][node]
        return node

    def count(node: int) -> int:
        return int(fields["internal_count"][node] if node >= 0 else fields["leaf_count"][~node])

    names = ("split_feature", "threshold", "decision_type", "internal_count", "left_child", "right_child")
    found: dict[str, list[str]] = {name: [] for name in (*names, "leaf_value", "leaf_count")}

    def add(node: int, total: int) -> int:  # its number in the new tree
        if node < 0:
            found["leaf_value"].append(fields["leaf_value"][~node])
            found["leaf_count"].append(str(total))
            return -len(found["leaf_value"])
        number = len(found["left_child"])
        for name in names[:3]:
            found[name].append(fields[name][node])
        found["internal_count"].append(str(total))
        for name in names[4:]:
            found[name].append("")
        for name, side in zip(names[4:], children, strict=True):
            share = count(side[node]) / count(node)
            found[name][number] = str(add(decided(side[node]), max(1, round(total * share))))
        return number

    add(decided(0) if len(fields["leaf_value"]) > 1 else -1, _LARGEST_COUNT)
    return found


def _right(value: float, threshold: float, kind: int) -> bool:
    """Whether LightGBM goes to the right child of a numerical split."""
    if math.isnan(value) and not kind & _MISSING_IS_NAN:
        value = 0.0
    if math.isnan(value) or (kind & _MISSING_IS_ZERO and abs(value) <= _ZERO):
        return not kind & _DEFAULT_LEFT
    return bool(value > threshold)


def _written(number: str, fields: Mapping[str, list[str]]) -> str:
    lines = [f"Tree={number}", f"num_leaves={len(fields['leaf_value'])}", "num_cat=0"]
    lines += [f"{name}={' '.join(values)}" for name, values in fields.items()]
    return "\n".join([*lines, "is_linear=0", "shrinkage=1"]) + "\n\n\n"
