"""What the figures say about each claim, by fixed rules."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from mge_gpu.ranking.reproduction.rankings import BEST, HINDSIGHT, MIXTURE, SCORES
from mge_gpu.ranking.reproduction.regression import RIVALS, SETTING_SET
from mge_gpu.ranking.reproduction.tables import RAMANUJAN

if TYPE_CHECKING:
    import pandas

Answer = Literal["borne out", "partly borne out", "not borne out", "cannot tell"]

FOLLOWS = 0.7
"""A metric follows density where the lower end of both correlations' intervals is at least this."""

NAMES = {
    "mge": "MGE topometrics",
    "rolled": "rolled topometrics",
    "rolled-channel": "rolled-channel topometrics",
    "ramanujan": "Ramanujan metrics",
    "density": "layer density",
}

CLAIMS = {
    "a": "MGE topometrics predict the accuracy drop better than topometrics of bipartite encodings and "
    "Ramanujan metrics, and Ramanujan metrics are only as good as layer density",
    "b": "which topometrics matter depends on sparsity and on architecture",
    "c": "a mixture of topometrics ranks methods that prune at initialization better than any single one and "
    "than Ramanujan metrics",
}


@dataclass(frozen=True)
class Part:
    """One statement of the paper, the answer, and the figures that it rests on."""

    statement: str
    answer: Answer
    evidence: str


@dataclass(frozen=True)
class Verdict:
    """A claim ("a", "b" or "c"), its wording, its parts, and the answer to it as a whole.

    ``notes`` are figures beside the claim that its reader has to know.
    """

    claim: str
    wording: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    @property
    def answer(self) -> Answer:
        """All parts borne out, none, or some; "cannot tell" where no part has an answer."""
        answers = {part.answer for part in self.parts}
        if len(answers) == 1:
            return answers.pop()
        return "not borne out" if answers <= {"not borne out", "cannot tell"} else "partly borne out"

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        parts = [asdict(part) for part in self.parts]
        return {"claim": self.claim, "wording": self.wording, "answer": self.answer} | {
            "parts": parts,
            "notes": list(self.notes),
        }


def count_answer(gains: Sequence[float], intervals: Sequence[tuple[float, float]]) -> tuple[Answer, str]:
    """Gains that should be above 0, one for each comparison.

    Borne out: at least half of the intervals lie above 0 and none below. Not borne out: at most half of the
    gains are above 0, or more intervals lie below 0 than above. Else it cannot be told.

    >>> count_answer([1.0, 2.0], [(0.5, 1.5), (-1.0, 5.0)])
    ('borne out', 'better in 2 of 2 comparisons, beyond the interval in 1, worse beyond it in 0')
    """
    better = sum(gain > 0 for gain in gains)
    above, below = sum(low > 0 for low, _ in intervals), sum(high < 0 for _, high in intervals)
    text = (
        f"better in {better} of {len(gains)} comparisons, beyond the interval in {above}, "
        f"worse beyond it in {below}"
    )
    if not len(gains):
        return "cannot tell", text
    if below > above or 2 * better <= len(gains):
        return "not borne out", text
    return ("borne out" if 2 * above >= len(gains) and not below else "cannot tell"), text


def verdict_a(differences: "pandas.DataFrame", correlations: "pandas.DataFrame") -> Verdict:
    """Claim (a), from the PaI rows of the two tables; least squares and trees count alike."""
    parts = []
    for rival in RIVALS:
        answer, text = count_answer(*_gains(differences, "mge", rival, "nothing"))
        besides = count_answer(*_gains(differences, "mge", rival, "setting"))[1]
        statement = f"MGE topometrics predict the accuracy drop better than {NAMES[rival]}"
        parts.append(Part(statement, answer, f"{text}; where both know the setting: {besides}"))
    gains, intervals = _gains(differences, "ramanujan", "density", "nothing")
    above = sum(low > 0 for low, _ in intervals)
    same: Answer = "cannot tell" if not gains else "borne out" if 2 * above < len(gains) else "not borne out"
    text = count_answer(gains, intervals)[1]
    parts.append(Part("Ramanujan metrics predict the drop no better than layer density", same, text))
    everywhere = correlations[correlations["by"] == "all"].set_index("metric")
    for metric in RAMANUJAN:
        row = everywhere.loc[metric]
        follows = min(row["r_interval"][0], row["rho_interval"][0]) >= FOLLOWS
        text = (
            f"r = {row['r']:.2f} [{row['r_interval'][0]:.2f}, {row['r_interval'][1]:.2f}], "
            f"rho = {row['rho']:.2f} [{row['rho_interval'][0]:.2f}, {row['rho_interval'][1]:.2f}] over "
            f"{row['layers']} layers, {100 * row['missing']:.1f} % missing; follows: both from {FOLLOWS}"
        )
        answer = "borne out" if follows else "not borne out"
        parts.append(Part(f"{metric} mostly follows layer density", answer, text))
    besides = count_answer(*_gains(differences, "mge", SETTING_SET, "nothing"))[1]
    note = f"MGE topometrics against knowing only model, data set and sparsity, and no topology: {besides}"
    return Verdict("a", CLAIMS["a"], tuple(parts), (note,))


def verdict_b(agreements: Sequence[dict[str, Any]]) -> Verdict:
    """Claim (b), from `agreement_of_strata` of SHAP values and permutation importance."""
    parts = []
    for by, name in (("sparsity", "sparsity"), ("model", "architecture")):
        told: list[Answer] = []
        texts = []
        for found in agreements:
            if found["by"] != by:
                continue
            if found["difference"] is None:
                texts.append(f"{found['figure']}: too few strata or seeds")
                told.append("cannot tell")
                continue
            low, high = found["difference_interval"]
            texts.append(
                f"{found['figure']}: rank correlation {found['within']:.2f} within, {found['between']:.2f} "
                f"between, difference {found['difference']:.2f} [{low:.2f}, {high:.2f}]"
            )
            if found["figure"] != "coefficient":  # collinear columns: their coefficients are not stable
                told.append("borne out" if low > 0 else "not borne out" if high < 0 else "cannot tell")
        answer: Answer = told[0] if len(set(told)) == 1 else "cannot tell"
        parts.append(Part(f"importance depends on {name}", answer, "; ".join(texts)))
    return Verdict("b", CLAIMS["b"], tuple(parts))


def verdict_c(differences: "pandas.DataFrame") -> Verdict:
    """Claim (c), from the gains of the MGE mixture over each rival."""
    rows = differences.set_index(["family", "rival"])
    names = {
        ("mge", BEST): "the single MGE topometric that is best on the other architectures",
        ("mge", HINDSIGHT): "the single MGE topometric that is best in hindsight",
        ("ramanujan", BEST): "the single Ramanujan metric that is best on the other architectures",
        ("ramanujan", HINDSIGHT): "the single Ramanujan metric that is best in hindsight",
        ("ramanujan", MIXTURE): "a mixture of Ramanujan metrics",
    }
    parts = []
    for (family, rival), name in names.items():
        row = next(rows.loc[key] for key in rows.index if key[0] == family and key[1].startswith(rival))
        parts.append(Part(f"the mixture of MGE topometrics ranks better than {name}", *_both(row)))
    rivals = [("rolled", MIXTURE), ("rolled-channel", MIXTURE), ("density", MIXTURE)]
    rivals += [key for key in rows.index if key[0] in ("no topology", "ranker")]
    notes = [
        f"the mixture of MGE topometrics against {NAMES.get(family, family)}, {rival}: "
        f"{_both(rows.loc[family, rival])[1]}"
        for family, rival in rivals
    ]
    return Verdict("c", CLAIMS["c"], tuple(parts), tuple(notes))


def _both(row: "pandas.Series") -> tuple[Answer, str]:
    """Borne out where both scores' intervals lie above 0; not borne out where neither gain is above 0."""
    texts = [
        f"{name} {row[score]:+.3f} [{row[f'{score}_interval'][0]:+.3f}, {row[f'{score}_interval'][1]:+.3f}]"
        for score, name in zip(SCORES, ("tau", "RBO"), strict=True)
    ]
    if all(row[f"{score}_interval"][0] > 0 for score in SCORES):
        return "borne out", ", ".join(texts)
    bad = all(row[score] <= 0 for score in SCORES)
    return ("not borne out" if bad else "cannot tell"), ", ".join(texts)


def _gains(
    differences: "pandas.DataFrame", features: str, rival: str, given: str
) -> tuple[list[float], list[tuple[float, float]]]:
    rows = differences
    if not len(rows):
        return [], []
    rows = rows[(rows["features"] == features) & (rows["rival"] == rival) & (rows["given"] == given)]
    return rows["gain"].tolist(), rows["gain_interval"].tolist()
