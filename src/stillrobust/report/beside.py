"""What stands in no row of the table: corruptions that are none of the 15, your own and the four
extra ones; and, where no run is complete yet, all that is measured.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from statistics import fmean

from stillrobust.grid import CLEAN, COMMON, SEVERITIES
from stillrobust.report.page_table import simple_table
from stillrobust.report.rows import Summary
from stillrobust.report.summary import METRICS, shown_metrics
from stillrobust.report.tables import aligned, percent
from stillrobust.storage.files import content_key
from stillrobust.storage.store import Measurement

OTHERS = (
    "Beside the 15",
    "Scores and drops in %, of corruptions that are not among the 15; they are in no mean above.",
)
SO_FAR = (
    "Measured so far",
    "Scores and drops in %, of what is measured; the mean needs all 15 corruptions.",
)
TEXT_COLUMNS = range(3)
SHOWN = 40  # lines in a terminal


@dataclass(frozen=True)
class Beside:
    """One run in one metric under one corruption."""

    run: str
    metric: str
    corruption: str
    clean: float | None
    scores: dict[int, float]
    """By severity."""

    def cells(self) -> list[str]:
        """The line as the text of its columns."""
        mean = fmean(self.scores.values())
        drop = percent(1 - mean / self.clean) if self.clean else ""
        levels = [
            percent(self.scores[level]) if level in self.scores else "" for level in SEVERITIES
        ]
        clean = "" if self.clean is None else percent(self.clean)
        return [
            self.run,
            self.corruption,
            METRICS.get(self.metric, self.metric),
            clean,
            *levels,
            drop,
        ]


HEADINGS = [
    "Run",
    "Corruption",
    "Metric",
    "Clean",
    *(f"Severity {level}" for level in SEVERITIES),
    "Drop",
]


def beside(measurements: Iterable[Measurement], without: Collection[str] = COMMON) -> list[Beside]:
    """Every run under every corruption that it was measured on, but those ``without``, in the
    report's metrics.

    What was measured under several protocols has a line for each, and a clean score and a drop
    where both are of one protocol.
    """
    given = list(measurements)
    metrics = set(shown_metrics(given))
    clean = {
        (one.run, one.metric, content_key(one.circumstances)): one.value
        for one in given
        if (one.corruption, one.severity) == CLEAN
    }
    lines: dict[tuple[str, str, str, str], Beside] = {}
    for one in given:
        if one.corruption not in without and one.corruption != CLEAN[0] and one.metric in metrics:
            before = clean.get((one.run, one.metric, content_key(one.circumstances)))
            place = (one.corruption, one.metric, one.run, content_key(one.protocol))
            lines.setdefault(place, Beside(one.run, one.metric, one.corruption, before, {})).scores[
                one.severity
            ] = one.value
    return [lines[place] for place in sorted(lines)]


def _lines(summary: Summary) -> tuple[tuple[str, str], list[list[str]]]:
    """(title, note), and the lines as texts."""
    found = beside(summary.measurements, COMMON if summary.rows else ())
    return OTHERS if summary.rows else SO_FAR, [one.cells() for one in found]


def beside_text(summary: Summary) -> str:
    """The lines for a terminal; empty where there is none."""
    (_, note), lines = _lines(summary)
    rest = [f"... and {len(lines) - SHOWN} lines more, on the page"] if len(lines) > SHOWN else []
    return (
        "\n".join([note, aligned([HEADINGS, *lines[:SHOWN]], TEXT_COLUMNS), *rest]) if lines else ""
    )


def beside_section(summary: Summary) -> str:
    """The lines for the page; empty where there is none."""
    (title, note), lines = _lines(summary)
    return f"<h2>{title}</h2>{simple_table(note, HEADINGS, lines, TEXT_COLUMNS)}" if lines else ""
