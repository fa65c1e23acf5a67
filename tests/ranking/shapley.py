"""Shapley values by their definition, over all coalitions: the oracle for what LightGBM computes."""

import itertools
import math
from collections.abc import Collection
from typing import Any

import lightgbm
import numpy as np


def expectation(node: dict[str, Any], x: np.ndarray, known: Collection[int]) -> float:
    """A tree's value where only some features are known; at other splits both branches, by their counts."""
    if "leaf_value" in node:
        return float(node["leaf_value"])
    branches = [node["left_child"], node["right_child"]]
    if node["split_feature"] in known:
        value, missing = float(x[node["split_feature"]]), node["missing_type"]
        if math.isnan(value) and missing != "NaN":
            value = 0.0
        if math.isnan(value) or (missing == "Zero" and value == 0):
            return expectation(branches[not node["default_left"]], x, known)
        return expectation(branches[int(value > node["threshold"])], x, known)
    counts = [branch.get("internal_count", branch.get("leaf_count")) for branch in branches]
    values = [expectation(branch, x, known) for branch in branches]
    return sum(c * v for c, v in zip(counts, values, strict=True)) / node["internal_count"]


def shapley_values(
    booster: lightgbm.Booster, x: np.ndarray, known: Collection[int]
) -> np.ndarray:  # (features,)
    """Each feature's mean change of the expectation over all orders in which the features become known."""
    found = np.zeros(len(x))
    for tree in booster.dump_model()["tree_info"]:
        root = tree["tree_structure"]
        players = sorted(_features(root) - set(known))
        for player in players:
            others = [other for other in players if other != player]
            for size in range(len(others) + 1):
                weight = 1 / (len(players) * math.comb(len(others), size))
                for coalition in itertools.combinations(others, size):
                    without = {*known, *coalition}
                    gain = expectation(root, x, without | {player}) - expectation(root, x, without)
                    found[player] += weight * gain
    return found


def _features(node: dict[str, Any]) -> set[int]:
    if "leaf_value" in node:
        return set()
    return {node["split_feature"]} | _features(node["left_child"]) | _features(node["right_child"])
