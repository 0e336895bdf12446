"""Whether measurements bear a claim out: supported, refuted or undecided, with the effect and its
interval.

A statement "a is below b" is supported where the 95 % interval of the paired difference lies above
0. A claim of several statements is supported where all of them are (an intersection-union test,
which keeps the level), and refuted where one lies on the other side by an interval that allows for
the number of statements (Bonferroni). Everything else is undecided.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from stillrobust.analysis.intervals import LEVEL, interval
from stillrobust.paper import Claim, Statement, printed
from stillrobust.report.rows import Row
from stillrobust.report.summary import METRICS
from stillrobust.report.tables import percent

Verdict = Literal["supported", "refuted", "undecided", "not measured"]
NO_INTERVAL = (
    "no interval, for statistics of the same images are missing, or some resample has no clean"
    " score"
)
TWO_PROTOCOLS = "measured under two protocols; measure one of them again"
Rows = Mapping[tuple[str, str], Row]
"""By (run's id, metric)."""


@dataclass(frozen=True)
class Judged:
    """One statement, with numbers as fractions."""

    text: str
    verdict: Verdict
    effect: float | None = None
    """``less``: by how much the second exceeds the first. ``alike``: the first less the second."""
    low: float | None = None
    high: float | None = None
    reason: str = ""
    """Why nothing can be said."""


@dataclass(frozen=True)
class Judgement:
    """A claim in the light of a store's numbers, and of the paper's own printed ones."""

    id: str
    text: str
    source: str
    verdict: Verdict
    statements: tuple[Judged, ...]
    printed: Literal["holds", "does not hold", "not printed"]
    """By the values that the paper prints, which have no intervals."""

    @property
    def deciding(self) -> Judged:
        """The statement that the verdict hangs on: the first that says so, of the smallest effect."""
        same = [one for one in self.statements if one.verdict == self.verdict]
        return min(same, key=lambda one: abs(one.effect) if one.effect is not None else 0.0)


def judge(claim: Claim, rows: Rows) -> Judgement:
    """Judge a claim by the rows of the runs it is about."""
    found = tuple(_judged(claim, statement, rows) for statement in claim.statements)
    said = {one.verdict for one in found}
    order: tuple[Verdict, ...] = ("refuted", "not measured", "undecided", "supported")
    verdict = next(one for one in order if one in said)
    return Judgement(claim.id, claim.text, claim.source, verdict, found, _as_printed(claim))


def _judged(claim: Claim, statement: Statement, rows: Rows) -> Judged:
    metric, quantity = claim.about(statement)
    first, second = statement.runs
    relation = (
        f"{first} = {second} ± {statement.within:g}" if statement.alike else f"{first} < {second}"
    )
    text = f"{METRICS[metric]}, {quantity}: {relation}"
    missing = [run for run in statement.runs if (run, metric) not in rows]
    if missing:
        return Judged(text, "not measured", reason=f"needs {', '.join(missing)}")
    one, other = rows[first, metric], rows[second, metric]
    effect = other.value(quantity) - one.value(quantity)
    if one.table != other.table:
        return Judged(text, "undecided", effect, reason=TWO_PROTOCOLS)
    if one.drawn_from != other.drawn_from or not one.resampled or not other.resampled:
        return Judged(text, "undecided", effect, reason=NO_INTERVAL)
    values = np.asarray(other.resampled[quantity] - one.resampled[quantity])
    low, high = interval(values, effect)
    wide = interval(values, effect, 1 - (1 - LEVEL) / len(claim.statements))
    margin = statement.within / 100
    if statement.alike:
        effect, low, high, wide = -effect, -high, -low, (-wide[1], -wide[0])
        verdict = _alike(low, high, wide, margin)
    else:
        verdict = "supported" if low > 0 else "refuted" if wide[1] < 0 else "undecided"
    return Judged(text, verdict, effect, low, high)


def _alike(low: float, high: float, wide: tuple[float, float], margin: float) -> Verdict:
    if -margin < low and high < margin:
        return "supported"
    return "refuted" if wide[0] > margin or wide[1] < -margin else "undecided"


def _as_printed(claim: Claim) -> Literal["holds", "does not hold", "not printed"]:
    numbers = printed()
    held = []
    for statement in claim.statements:
        _, quantity = claim.about(statement)
        first, second = (numbers.get(run, {}).get(quantity) for run in statement.runs)
        if first is None or second is None:
            return "not printed"
        held.append(
            first < second if statement.less else abs(first - second) < statement.within / 100
        )
    return "holds" if all(held) else "does not hold"


def effect_text(one: Judged) -> str:
    """The effect of a statement in points, with its interval."""
    if one.effect is None:
        return one.reason
    text = f"{percent(one.effect, 2)} points"
    if one.low is None or one.high is None:
        return f"{text}, {one.reason}"
    return f"{text} [{percent(one.low, 2)}, {percent(one.high, 2)}]"


def claims_text(judgements: Sequence[Judgement]) -> str:
    """The claims for a terminal: verdict, claim, source, what decides it, and what the printed
    numbers say.
    """
    lines = []
    for one in judgements:
        lines.append(f"{one.verdict:<12}  {one.text}")
        lines.append(
            f"{'':<12}  {one.deciding.text}: {effect_text(one.deciding)}; {one.source}; as printed,"
            f" it {_printed(one)}"
        )
    return "\n".join(lines)


def _printed(one: Judgement) -> str:
    return "is not in numbers" if one.printed == "not printed" else one.printed


def claims_json(judgements: Sequence[Judgement]) -> str:
    """The same with everything, for programs."""
    return json.dumps([asdict(one) for one in judgements], indent=1, ensure_ascii=False) + "\n"
