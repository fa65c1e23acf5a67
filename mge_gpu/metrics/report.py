"""What `topometrics` returns: the values of one graph, how each came about, and its published form."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from mge_gpu._optional import require
from mge_gpu.errors import MetricError

if TYPE_CHECKING:
    import pandas

PUBLISHED: Mapping[str, tuple[str, str]] = {
    "nodes": ("nodes", "1"),
    "edges": ("edges", "1"),
    "sink_nodes": ("sink_nodes", "N"),
    "source_nodes": ("source_nodes", "N"),
    "disconnected_nodes": ("disc_nodes", "N"),
    "removable_out": ("r-out", "E"),
    "removable_in": ("r-in", "E"),
    "one_hop": ("1-hop_nei", "E"),
    "two_hop": ("2-hop_nei", "E"),
    "motifs": ("motif", "E"),
    "strength": ("avg_node_strength", "E"),
    "k_core": ("k-core", "E"),
    "components": ("no_connected_components", "1"),
    "component_size": ("mean_connected_components", "N"),
    "cut_edges": ("cut-edges", "E"),
    "cut_nodes": ("cut-nodes", "E"),
    "spectral_gap": ("spectral_gap", "1"),
    "spectral_radius": ("spectral_radius", "1"),
}
"""Our key -> (column of the published table, what it is divided by there: 1, N nodes or E edges)."""


INTERRUPTED = "interrupted"
"""What tables say of a metric that Ctrl-C came before."""


class MissingMetricError(MetricError, KeyError):
    """A report was asked for a metric that it does not hold."""

    __str__ = Exception.__str__  # KeyError would print the message as a quoted string


class Report(Mapping[str, int | float]):
    """The topometrics of one graph: a read-only mapping from metric key to raw value.

    Args:
        values: metric key -> raw value; counts are ints, means and eigenvalues floats.
        standard_errors: metric key -> standard error of an estimated value. A key that is not here is exact.
        how: metric key -> the engine that computed it, in words.
        seconds: metric key -> wall-clock seconds. Metrics computed in one pass share its time.
        info: what was measured (model, input_shape, ...): anything that JSON can hold. ``nodes`` and
            ``edges`` here serve `normalized` where they are not among the values.
        interrupted: metrics that were asked for and are missing, since Ctrl-C came before them.

    Raises:
        MetricError: a standard error, an engine or a time is given for a key that has no value.

    >>> report = Report({"nodes": 6, "edges": 4, "sink_nodes": 1, "removable_out": 1})
    >>> report["edges"], list(report)
    (4, ['nodes', 'edges', 'sink_nodes', 'removable_out'])
    >>> report.normalized()["r-out"]
    0.25
    """

    def __init__(
        self,
        values: Mapping[str, int | float],
        standard_errors: Mapping[str, float] | None = None,
        how: Mapping[str, str] | None = None,
        seconds: Mapping[str, float] | None = None,
        info: Mapping[str, Any] | None = None,
        interrupted: Iterable[str] = (),
    ) -> None:
        self._values = dict(values)
        self.standard_errors = dict(standard_errors or {})
        self._how = dict(how or {})
        self.seconds = dict(seconds or {})
        self.info = dict(info or {})
        self.interrupted = list(interrupted)
        for name, given in (("standard error", self.standard_errors), ("engine", self._how)):
            if unknown := [key for key in given if key not in self._values]:
                raise MetricError(f"a report was given a {name} for {unknown[0]!r}, which has no value in it")

    def __getitem__(self, key: str) -> int | float:
        try:
            return self._values[key]
        except KeyError:
            if key in self.interrupted:
                raise MissingMetricError(
                    f"this report holds no metric {key!r}: it was interrupted; measure again"
                ) from None
            raise MissingMetricError(
                f"this report holds no metric {key!r}; it holds {', '.join(self._values) or 'none'}; "
                f"ask for it by name: topometrics(..., metrics=[{key!r}])"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def how(self) -> dict[str, str]:
        """Metric key -> the engine that computed it."""
        return dict(self._how)

    def normalized(self, names: Literal["published", "mge"] = "published") -> dict[str, float]:
        """The values as the published table has them: divided by 1, N nodes or E edges (see `PUBLISHED`).

        Metrics that the published table lacks are left out. A quotient whose divisor is 0 (a network without
        any edge) is NaN: nothing per edge is defined there; nor is it where an interruption came before E.

        Args:
            names: ``"published"`` names the values by the table's columns, ``"mge"`` by our keys.

        Raises:
            MetricError: ``names`` is neither, or N or E is needed and neither computed nor in ``info``.

        >>> Report({"nodes": 8, "sink_nodes": 2}).normalized(names="mge")
        {'nodes': 8.0, 'sink_nodes': 0.25}
        """
        if names not in ("published", "mge"):
            raise MetricError(f"normalized() got names={names!r}; expected 'published' or 'mge'")
        result = {}
        for key, value in self._values.items():
            if key in PUBLISHED:
                column, divisor = PUBLISHED[key]
                result[column if names == "published" else key] = _divide(value, self._divisor(divisor, key))
        return result

    def _divisor(self, divisor: str, metric: str) -> int | float:
        if divisor == "1":
            return 1
        key = {"N": "nodes", "E": "edges"}[divisor]
        value = self._values.get(key, self.info.get(key))
        if value is None and self.interrupted:
            return math.nan
        if value is None:
            raise MetricError(
                f"normalizing {metric!r} needs the number of {key}: compute the metric {key!r} with it"
            )
        return value

    def to_dict(self) -> dict[str, Any]:
        """Everything in the report as plain dicts: values and how they came about."""
        return {
            "values": dict(self._values),
            "standard_errors": dict(self.standard_errors),
            "how": dict(self._how),
            "seconds": dict(self.seconds),
            "info": dict(self.info),
            "interrupted": list(self.interrupted),
        }

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as strict JSON; NaN and infinities, which JSON has no word for, become null."""
        return json.dumps(json_ready(self.to_dict()), indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report that `to_json` wrote. A null value comes back as NaN, a tuple in ``info`` as a list.

        Raises:
            MetricError: the text is not JSON or not a report.

        >>> Report.from_json(Report({"nodes": 3}).to_json()) == {"nodes": 3}
        True
        """
        try:
            parts = json.loads(text)
            values, errors = parts["values"], parts["standard_errors"]
            how, seconds, info = parts["how"], parts["seconds"], parts["info"]
            return cls(_numbers(values), _numbers(errors), how, seconds, info, parts.get("interrupted", ()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MetricError(
                f"this is not a report written by Report.to_json ({type(error).__name__}: {error})"
            ) from error

    def to_frame(self) -> "pandas.DataFrame":
        """A pandas DataFrame with a row for each metric.

        Index ``metric``; columns ``value``, ``standard_error`` (NaN where exact), ``published`` (column
        name), ``normalized``, ``how``, ``seconds``. Metrics lost to an interruption have a row, too: the
        value NaN, "interrupted" under ``how``. Needs the extra ``rank`` (pandas).
        """
        pandas = require("pandas", "rank", "Report.to_frame")
        normalized = self.normalized(names="mge")
        rows = [
            {
                "metric": key,
                "value": value,
                "standard_error": self.standard_errors.get(key, math.nan),
                "published": PUBLISHED[key][0] if key in PUBLISHED else None,
                "normalized": normalized.get(key, math.nan),
                "how": INTERRUPTED if key in self.interrupted else self._how.get(key),
                "seconds": self.seconds.get(key, math.nan),
            }
            for key, value in {**self._values, **dict.fromkeys(self.interrupted, math.nan)}.items()
        ]
        columns = ["metric", "value", "standard_error", "published", "normalized", "how", "seconds"]
        return pandas.DataFrame(rows, columns=columns).set_index("metric")

    def __repr__(self) -> str:
        rows = [(key, self.format_value(key), self._how.get(key, "")) for key in self]
        rows += [(key, INTERRUPTED, "") for key in self.interrupted]
        widths = [max((len(row[k]) for row in rows), default=0) for k in (0, 1)]
        lines = [f"Report of {len(self)} metrics" + (", interrupted" if self.interrupted else "")]
        lines += [f"  {key:<{widths[0]}}  {value:<{widths[1]}}  {how}".rstrip() for key, value, how in rows]
        return "\n".join(lines)

    def format_value(self, key: str) -> str:
        """The value as people read it: thousands grouped, and ± its standard error where it is an estimate.

        >>> Report({"nodes": 9768404, "motifs": 1.5e9}, {"motifs": 2e7}).format_value("nodes")
        '9,768,404'
        """
        text = format_number(self[key])
        return f"{text} ± {self.standard_errors[key]:.2g}" if key in self.standard_errors else text


def format_number(value: int | float) -> str:
    """Group the thousands of whole numbers; give others seven significant digits.

    >>> format_number(191894), format_number(2.25), format_number(1.2e-9)
    ('191,894', '2.25', '1.2e-09')
    """
    whole = isinstance(value, int) or (value.is_integer() and abs(value) < 2**53)
    return f"{int(value):,}" if whole else f"{value:.7g}"


def json_ready(value: Any) -> Any:
    """A copy for strict JSON: tuples as lists, numpy and torch scalars as numbers, NaN and ±inf as None.

    >>> json_ready({"a": (1, float("nan"))})
    {'a': [1, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_ready(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, int | float):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _numbers(values: Mapping[str, Any]) -> dict[str, int | float]:
    return {key: math.nan if value is None else value for key, value in values.items()}


def _divide(value: int | float, divisor: int | float) -> float:
    return value / divisor if divisor else math.nan
