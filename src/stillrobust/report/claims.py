"""Verdicts on claims: supported, refuted or undecided by measurements, with effect and interval.

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

from stillrobust.analysis.intervals import LEVEL, paired_interval
from stillrobust.metrics import METRIC_NAMES
from stillrobust.paper import Claim, Statement, printed_values
from stillrobust.report.rows import Row
from stillrobust.report.table import Percent

Verdict = Literal["supported", "refuted", "undecided", "not measured"]
Printed = Literal["holds", "holds where printed", "does not hold", "not printed"]
NO_INTERVAL = (
    "no interval: statistics of the same images are missing, or a resample has a clean score of 0"
)
TWO_PROTOCOLS = "measured under two protocols; evaluate one of the runs again"
Rows = Mapping[tuple[str, str], Row]
"""By (run's id, metric)."""


@dataclass(frozen=True)
class StatementVerdict:
    """One statement, with numbers as fractions."""

    text: str
    verdict: Verdict
    effect: float | None = None
    """``less``: by how much the second exceeds the first. ``alike``: the first less the second."""
    low: float | None = None
    high: float | None = None
    reason: str = ""
    """Why there is no verdict, or no interval."""


@dataclass(frozen=True)
class ClaimVerdict:
    """A claim judged by a store's numbers, and by the values that the paper prints."""

    id: str
    text: str
    source: str
    verdict: Verdict
    statements: tuple[StatementVerdict, ...]
    printed: Printed
    """By the paper's printed values, which have no intervals."""
    contradicts: str | None = None
    """Id of a claim that cannot hold together with this one."""

    @property
    def deciding(self) -> StatementVerdict:
        """The statement that decides the verdict: the one with the smallest effect."""
        same = [one for one in self.statements if one.verdict == self.verdict]
        return min(same, key=lambda one: abs(one.effect) if one.effect is not None else 0.0)


def judge(claim: Claim, rows: Rows) -> ClaimVerdict:
    """Judge a claim by the rows of its runs.

    Args:
        claim: Statements about runs.
        rows: By (id of a run, metric); missing runs make a claim "not measured".

    Returns:
        The verdict on the claim and on each of its statements.
    """
    found = tuple(_judge_statement(claim, statement, rows) for statement in claim.statements)
    verdicts = {one.verdict for one in found}
    order: tuple[Verdict, ...] = ("refuted", "not measured", "undecided", "supported")
    verdict = next(one for one in order if one in verdicts)
    printed = _as_printed(claim)
    return ClaimVerdict(
        claim.id, claim.text, claim.source, verdict, found, printed, claim.contradicts
    )


def _judge_statement(claim: Claim, statement: Statement, rows: Rows) -> StatementVerdict:
    metric, quantity = claim.subject_of(statement)
    first, second = statement.runs
    relation = (
        f"{first} = {second} ± {statement.within:g}" if statement.alike else f"{first} < {second}"
    )
    text = f"{METRIC_NAMES[metric]}, {quantity}: {relation}"
    missing = [run for run in statement.runs if (run, metric) not in rows]
    if missing:
        return StatementVerdict(text, "not measured", reason=f"needs {', '.join(missing)}")
    one, other = rows[first, metric], rows[second, metric]
    effect = other.value(quantity) - one.value(quantity)
    if one.comparison_key != other.comparison_key:
        return StatementVerdict(text, "undecided", effect, reason=TWO_PROTOCOLS)
    if one.image_ids != other.image_ids or not one.resampled or not other.resampled:
        return StatementVerdict(text, "undecided", effect, reason=NO_INTERVAL)
    values = np.asarray(other.resampled[quantity] - one.resampled[quantity])
    low, high = paired_interval(values, effect, freedom=one.freedom)
    level = 1 - (1 - LEVEL) / len(claim.statements)
    wide = paired_interval(values, effect, level, one.freedom)
    margin = statement.within / 100
    if statement.alike:
        effect, low, high, wide = -effect, -high, -low, (-wide[1], -wide[0])
        verdict = _equivalence(low, high, wide, margin)
    else:
        verdict = "supported" if low > 0 else "refuted" if wide[1] < 0 else "undecided"
    return StatementVerdict(text, verdict, effect, low, high)


def _equivalence(low: float, high: float, wide: tuple[float, float], margin: float) -> Verdict:
    if -margin < low and high < margin:
        return "supported"
    return "refuted" if wide[0] > margin or wide[1] < -margin else "undecided"


def _as_printed(claim: Claim) -> Printed:
    numbers = printed_values()
    held = []
    for statement in claim.statements:
        _, quantity = claim.subject_of(statement)
        first, second = (numbers.get(run, {}).get(quantity) for run in statement.runs)
        if first is not None and second is not None:
            held.append(
                first < second if statement.less else abs(first - second) < statement.within / 100
            )
    if not held:
        return "not printed"
    if not all(held):
        return "does not hold"
    return "holds" if len(held) == len(claim.statements) else "holds where printed"


def effect_text(one: StatementVerdict) -> str:
    """The effect of a statement in points with its interval, or the reason why there is none."""
    if one.effect is None:
        return one.reason
    if one.low is None or one.high is None:
        return f"{Percent(one.effect)} points, {one.reason}"
    return f"{Percent(one.effect, (one.low, one.high))} points"


def claims_text(judgements: Sequence[ClaimVerdict]) -> str:
    """Render verdicts for a terminal: claim, deciding statement, source, printed values."""
    lines = []
    for one in judgements:
        lines.append(f"{one.verdict:<12}  {one.text}")
        lines.append(
            f"{'':<12}  {one.deciding.text}: {effect_text(one.deciding)}; {one.source};"
            f" printed values: {one.printed}"
            + (f"; contradicts {one.contradicts}" if one.contradicts else "")
        )
    return "\n".join(lines)


def claims_json(judgements: Sequence[ClaimVerdict]) -> str:
    """Render verdicts with all statements as JSON."""
    return json.dumps([asdict(one) for one in judgements], indent=1, ensure_ascii=False) + "\n"
