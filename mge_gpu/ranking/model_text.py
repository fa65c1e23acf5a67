"""Checks on a LightGBM model text before LightGBM sees it.

LightGBM trusts the arrays in a model file: a child index that points outside its tree, or back up, would read
foreign memory or never end. The texts that it writes for numerical features are simple enough to check.
"""

from collections.abc import Sequence

from mge_gpu.errors import RankingError

_HEADER = {"version": "v4", "num_class": "1", "num_tree_per_iteration": "1"}
_END = "end of trees"
_PER_LEAF = ("leaf_value", "leaf_count", "leaf_weight")
_PER_NODE = ("split_feature", "threshold", "decision_type", "left_child", "right_child", "internal_count")
_PER_NODE_TOO = ("split_gain", "internal_value", "internal_weight")
_DROPPED = ("split_gain", "leaf_weight", "internal_value", "internal_weight")
_ROUNDED = ("threshold", "leaf_value")
_DEEPEST = 500  # SHAP values go down a tree by recursion, and take time that grows with depth squared


def compact(text: str) -> str:
    """The same trees in fewer characters: what predictions and SHAP values do not need is left out.

    Importances, training parameters, gains, weights and inner values go; thresholds and leaf values are
    rounded to 7 digits, which is what a 32-bit float holds.
    """
    head, *trees = text.split(_END)[0].split("\nTree=")
    kept = []
    for tree in trees:
        lines = []
        for line in tree.splitlines():
            name, equals, value = line.partition("=")
            if name in _ROUNDED:
                line = name + equals + " ".join(f"{float(part):.7g}" for part in value.split())
            if name not in _DROPPED:
                lines.append(line)
        kept.append("Tree=" + "\n".join(lines).rstrip("\n") + "\n\n\n")
    sizes = " ".join(str(len(tree.encode())) for tree in kept)
    lines = [f"tree_sizes={sizes}" if line.startswith("tree_sizes=") else line for line in head.splitlines()]
    return "\n".join(lines) + "\n" + "".join(kept) + _END + "\n"


def check_model_text(text: str, features: Sequence[str]) -> None:
    """Raise RankingError unless ``text`` is a complete, well-formed model over exactly these features."""
    if _END not in text:
        raise RankingError("the model text ends before its last tree; the file is truncated")
    head, *trees = text.split(_END)[0].split("\nTree=")
    try:
        header = _fields(head)
    except ValueError as error:
        raise RankingError(f"the header of the model text is malformed ({error})") from error
    expected = {
        **_HEADER,
        "max_feature_idx": str(len(features) - 1),
        "feature_names": " ".join(features),
    }
    for name, value in expected.items():
        if header.get(name) != value:
            raise RankingError(f"the model text says {name}={header.get(name)}; expected {value}")
    # LightGBM cuts the text into trees at these sizes: the bytes from one "Tree=" to the next.
    spans = [len(f"Tree={tree}".encode()) + (tree is not trees[-1]) for tree in trees]
    if not trees or [str(span) for span in spans] != header.get("tree_sizes", "").split():
        raise RankingError("the model text's tree sizes do not match its trees")
    for number, tree in enumerate(trees):
        try:
            _check_tree(_fields(tree), len(features))
        except (KeyError, ValueError) as error:
            raise RankingError(f"tree {number} of the model text is malformed ({error})") from error


def _fields(block: str) -> dict[str, str]:
    pairs = [line.split("=", 1) for line in block.splitlines() if "=" in line]
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is given twice")
    return fields


def _check_tree(tree: dict[str, str], features: int) -> None:
    leaves = int(tree["num_leaves"])
    if leaves < 1 or tree["num_cat"] != "0" or tree.get("is_linear", "0") != "0":
        raise ValueError(f"num_leaves={leaves}, num_cat={tree['num_cat']}; expected a numerical tree")
    needed = ("leaf_value", "leaf_count", *_PER_NODE) if leaves > 1 else ("leaf_value",)
    lengths = dict.fromkeys(_PER_LEAF, leaves) | dict.fromkeys(_PER_NODE + _PER_NODE_TOO, leaves - 1)
    for name, length in lengths.items():
        # A tree that is a single leaf may have its other arrays empty or of length one.
        if (name in needed or leaves > 1) and name in (*needed, *tree):
            numbers = [float(part) for part in tree[name].split()]
            if len(numbers) != length:
                raise ValueError(f"{name} has {len(numbers)} numbers, expected {length}")
    if leaves == 1:
        return
    nodes = leaves - 1
    split, kind, left, right = (
        [int(part) for part in tree[name].split()]
        for name in ("split_feature", "decision_type", "left_child", "right_child")
    )
    if not all(0 <= feature < features for feature in split) or any(value & 1 for value in kind):
        raise ValueError("a split is not on one of the features, or is categorical")
    children = left + right
    # Each node but the root, and each leaf (coded ~leaf), is the child of exactly one node further up.
    if sorted(children) != [*range(-leaves, 0), *range(1, nodes)]:
        raise ValueError("the children are not each node and leaf once")
    if any(0 <= child <= node % nodes for node, child in enumerate(children)):
        raise ValueError("a child stands above its parent")
    depth = [1] * nodes
    for node in range(nodes):
        for child in (left[node], right[node]):
            if child > 0:
                depth[child] = depth[node] + 1
    if max(depth) > _DEEPEST:
        raise ValueError(f"it is {max(depth)} nodes deep, expected {_DEEPEST} at most")
    # SHAP values weigh a branch by its share of the counts.
    if any(int(part) < 1 for name in ("leaf_count", "internal_count") for part in tree[name].split()):
        raise ValueError("a count is not positive")
