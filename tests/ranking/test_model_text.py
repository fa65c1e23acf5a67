"""What LightGBM must never be given: model texts that are damaged, or made to harm."""

import re

import lightgbm
import numpy as np
import pytest

from mge_gpu.errors import RankingError
from mge_gpu.ranking.model_text import check_model_text, compact

FEATURES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def text() -> str:
    x = np.random.default_rng(0).normal(size=(300, 3))
    data = lightgbm.Dataset(x, x[:, 0] + x[:, 1] ** 2, feature_name=FEATURES)
    settings = {"verbose": -1, "num_leaves": 5, "num_threads": 1}
    return str(lightgbm.train(settings, data, 3).model_to_string())


def resized(text: str) -> str:
    """The text with tree sizes that fit it, so that only what stands in the trees is wrong."""
    trees = text.split("end of trees")[0].split("\nTree=")[1:]
    sizes = [len("Tree=" + tree) + 1 for tree in trees]
    sizes[-1] -= 1
    return re.sub(r"tree_sizes=.*", "tree_sizes=" + " ".join(map(str, sizes)), text)


def test_what_lightgbm_writes_passes(text: str) -> None:
    check_model_text(text, FEATURES)
    short = compact(text)
    check_model_text(short, FEATURES)
    assert len(short) < len(text) / 1.5
    x = np.random.default_rng(1).normal(size=(50, 3))
    whole, trees = (lightgbm.Booster(model_str=version) for version in (text, short))
    np.testing.assert_allclose(whole.predict(x), trees.predict(x), rtol=1e-5)
    explained = [booster.predict(x, pred_contrib=True) for booster in (whole, trees)]
    np.testing.assert_allclose(*explained, rtol=1e-4, atol=1e-6)


def test_trees_of_a_single_leaf_pass() -> None:
    x = np.zeros((30, 3))
    data = lightgbm.Dataset(x, np.ones(30), feature_name=FEATURES)
    settings = {"verbose": -1, "num_threads": 1, "feature_pre_filter": False}
    single = str(lightgbm.train(settings, data, 2).model_to_string())
    assert "num_leaves=1\n" in single
    check_model_text(single, FEATURES)


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"left_child=\S+", "left_child=99999999", "children"),
        (r"right_child=\S+", "right_child=0", "children"),
        (r"left_child=.*", "left_child=1 2 3", "numbers, expected 4"),
        (r"split_feature=\S+", "split_feature=3", "not on one of the features"),
        (r"split_feature=\S+", "split_feature=-1", "not on one of the features"),
        (r"decision_type=\S+", "decision_type=1", "categorical"),
        (r"num_leaves=.*", "num_leaves=1000000", "expected 1000000"),
        (r"num_leaves=.*", "num_leaves=0", "num_leaves=0"),
        (r"num_leaves=.*\n", "", "num_leaves"),
        (r"num_cat=0", "num_cat=1", "numerical tree"),
        (r"is_linear=0", "is_linear=1", "numerical tree"),
        (r"threshold=\S+", "threshold=x", "could not convert"),
        (r"leaf_value=\S+", "leaf_value=1 1", "leaf_value has 6"),
        (r"leaf_count=\S+", "leaf_count=", "leaf_count has 4"),
        (r"leaf_count=.*\n", "", "leaf_count"),
        (r"leaf_count=\S+", "leaf_count=0", "count is not positive"),
        (r"internal_count=\S+", "internal_count=-1", "count is not positive"),
        (r"num_leaves=5", "num_leaves=5\nnum_leaves=4", "given twice"),
        (r"max_feature_idx=2", "max_feature_idx=9", "max_feature_idx"),
        (r"feature_names=a b c", "feature_names=a c b", "feature_names"),
        (r"num_class=1", "num_class=2", "num_class"),
        (r"version=v4", "version=v4\nversion=v4", "given twice"),
        (r"end of trees", "", "truncated"),
    ],
)
def test_a_malformed_text_is_refused(text: str, pattern: str, replacement: str, message: str) -> None:
    changed = re.sub(pattern, replacement, text, count=1)
    assert changed != text
    with pytest.raises(RankingError, match=message):
        check_model_text(resized(changed), FEATURES)


def test_a_tree_that_runs_in_a_circle_is_refused(text: str) -> None:
    """Two nodes that are each other's child: each is reached once, and a prediction would never end."""
    circle = re.sub(r"left_child=.*", "left_child=-1 2 1 -2", text, count=1)
    circle = re.sub(r"right_child=.*", "right_child=3 -3 -4 -5", circle, count=1)
    with pytest.raises(RankingError, match="above its parent"):
        check_model_text(resized(circle), FEATURES)


def test_a_tree_that_recursion_would_not_survive_is_refused(text: str) -> None:
    """A chain of nodes, each the left child of the one above."""

    def chain(nodes: int) -> str:
        head, rest = text.split("\nTree=0\n")
        fields = {
            "num_leaves": nodes + 1,
            "num_cat": 0,
            "split_feature": "0 " * nodes,
            "threshold": "0 " * nodes,
            "decision_type": "2 " * nodes,
            "left_child": " ".join(map(str, [*range(1, nodes), -nodes - 1])),
            "right_child": " ".join(str(~leaf) for leaf in range(nodes)),
            "leaf_value": "1 " * (nodes + 1),
            "leaf_count": "1 " * (nodes + 1),
            "internal_count": "2 " * nodes,
        }
        lines = "\n".join(f"{name}={value}" for name, value in fields.items())
        return resized(f"{head}\nTree=0\n{lines}\n\n\nTree=1{rest.split('Tree=1')[1]}")

    check_model_text(chain(500), FEATURES)
    with pytest.raises(RankingError, match="501 nodes deep"):
        check_model_text(chain(501), FEATURES)


@pytest.mark.parametrize("sizes", ["1 2 3", "", "99999999 1 1"])
def test_tree_sizes_must_fit(text: str, sizes: str) -> None:
    with pytest.raises(RankingError, match="tree sizes"):
        check_model_text(re.sub(r"tree_sizes=.*", f"tree_sizes={sizes}", text), FEATURES)
