"""Gates: is a candidate not worse than a baseline by more than a margin, or better by a margin?

The decision is by the paired interval of the difference, one-sided at 2.5 %. Whatever is missing,
not comparable or not finite makes the verdict ``cannot judge``: a gate never passes by accident.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from stillrobust.analysis.groups import Grouping, effective_groups
from stillrobust.analysis.intervals import LEVEL, REPLICATES, paired_interval
from stillrobust.analysis.plausibility import run_warnings
from stillrobust.analysis.protocols import require_same_protocol
from stillrobust.analysis.resampling import CellReplicates, require_same_grouping, resample_cells
from stillrobust.analysis.sample_size import FEWEST_IMAGES, sample_size_warnings
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import CLEAN, COMMON, Place, corrupted_places
from stillrobust.metrics import HEADLINE_METRIC
from stillrobust.names import format_count, lookup
from stillrobust.samples import Array
from stillrobust.storage.store import Measurement, Run, Store

State = Literal["pass", "fail", "cannot judge"]
Test = Literal["non-inferiority", "superiority"]
FEWEST_GROUPS = 10  # effective groups; benchmarks/gate.py has the false passes of ten
CORRUPTION = "corruption:"
QUANTITIES = ("mpc", "drop", "clean")
T_30 = 2.042  # Student's t of 30 at 97.5 %, for the unit of unseen harm
SAME_WEIGHTS = "Both runs have the same weights: check that the candidate is the right one."
SAME = 1e-6  # a score and its recomputation from statistics


@dataclass(frozen=True)
class GateRule:
    """What a gate requires.

    Raises:
        UserError: If a value is invalid.
    """

    metric: str
    """``mpc``, ``drop``, ``clean`` or ``corruption:NAME``."""
    margin: float
    """Fraction, 0 or more: what the candidate may lose, or must gain in a test of superiority."""
    test: Test = "non-inferiority"
    score: str | None = None
    """Score of the task, such as ``mask_ap`` (default: the task's first)."""
    severities: tuple[int, ...] | None = None
    """Severities of the corrupted cells (default: all that either run has)."""

    def __post_init__(self) -> None:
        named = self.metric.startswith(CORRUPTION) and len(self.metric) > len(CORRUPTION)
        if not named:
            known = (*QUANTITIES, f"{CORRUPTION}NAME")
            lookup("metric of a gate", self.metric, dict.fromkeys(known, ""))
        if not 0 <= self.margin < 1 or (not self.margin and self.test == "non-inferiority"):
            raise UserError(
                f"Expected a margin between 0 and 100 points, but got {100 * self.margin:g}; give"
                " the points that the candidate may lose, such as --margin 1.0"
            )


@dataclass(frozen=True)
class GateVerdict:
    """The verdict of a gate, with numbers as fractions."""

    state: State
    reason: str
    """One sentence."""
    candidate: str
    baseline: str
    rule: GateRule
    score: str = ""
    """The score that was compared; empty if nothing was."""
    gain: float | None = None
    """Candidate less baseline; of a drop, baseline less candidate. Positive is better."""
    low: float | None = None
    high: float | None = None
    """Interval of the gain, with room for harm that no image showed."""
    images: int | None = None
    severities: tuple[int, ...] = ()
    grouping: Grouping | None = None
    protocol: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def judge_gate(
    store: Store,
    candidate: str,
    baseline: str,
    rule: GateRule,
    baseline_store: Store | None = None,
    replicates: int = REPLICATES,
) -> GateVerdict:
    """Judge a candidate by its difference from a baseline.

    Args:
        store: The results store of the candidate.
        candidate: Name of its run.
        baseline: Name of the run that it is compared with.
        rule: What is required.
        baseline_store: The results store of the baseline (default: ``store``).
        replicates: Number of bootstrap resamples.

    Returns:
        The verdict. Whatever prevents a comparison is ``cannot judge`` with its reason.
    """
    other = baseline_store or store
    try:
        if (store.root.resolve(), candidate) == (other.root.resolve(), baseline):
            raise UserError(
                f"Expected two runs, but {candidate} is compared with itself; name another baseline"
            )
        return _judge((store, other), (candidate, baseline), rule, replicates)
    except UserError as error:
        return GateVerdict("cannot judge", str(error), candidate, baseline, rule)


def gain_interval(
    values: Array, gain: float, unit: float, freedom: float = math.inf, level: float = LEVEL
) -> tuple[float, float]:
    """Return the interval of a gain, with room for harm that no image showed.

    A paired interval has no width where two runs agree on every image, although another image may
    tell them apart. If one image changes the score by ``u``, k harmed images have the upper limit
    k + z²/2 + z sqrt(k + 1) of their expected number (Poisson; 3.9 for none, exactly 3.7). So u² is
    added to the variance, and t²/2 · u to the half-width.

    Args:
        values: Bootstrap replicates of the gain (R,).
        gain: The gain on the whole dataset.
        unit: Largest effect of one image on the score: 1 / N.
        freedom: Degrees of freedom of the groups of images; see ``Grouping.freedom``.
        level: Confidence level.

    Returns:
        Lower and upper bound; NaN if a replicate is not finite.
    """
    if not np.isfinite(values).all():
        return float("nan"), float("nan")
    low, high = paired_interval(values, gain, level, freedom)
    reach = math.hypot((high - low) / 2, T_30 * unit) + T_30**2 / 2 * unit
    centre = (low + high) / 2
    return centre - reach, centre + reach


def decide(gain: float, low: float, high: float, rule: GateRule) -> tuple[State, str]:
    """Decide by the interval of a gain.

    Args:
        gain: The gain, positive for better.
        low: Lower bound of its interval.
        high: Upper bound.
        rule: What is required.

    Returns:
        The verdict, and what was found in a few words.
    """
    limit = -rule.margin if rule.test == "non-inferiority" else rule.margin
    points = f"{100 * rule.margin:g} points"
    if not (math.isfinite(gain) and math.isfinite(low) and math.isfinite(high)):
        return "cannot judge", "the difference or its interval is not a finite number"
    required = f"not worse by {points}" if limit < 0 else f"better by more than {points}"
    if low > limit:
        return "pass", f"is {required}"
    if high < limit:
        return "fail", f"is worse by more than {points}" if limit < 0 else f"is not {required}"
    return "fail", f"is not shown to be {required}; more images narrow the interval"


def _judge(
    stores: tuple[Store, Store], names: tuple[str, str], rule: GateRule, replicates: int
) -> GateVerdict:
    runs = [_run(store, name) for store, name in zip(stores, names, strict=True)]
    own = [store.measurements(name) for store, name in zip(stores, names, strict=True)]
    score = _score(runs, own, rule.score)
    severities, places = _cells(own, score, rule)
    found = [_values(run, measured, score, places) for run, measured in zip(runs, own, strict=True)]
    for place in places:
        require_same_protocol(
            {
                f"{kind} {run.name}": {"task": run.task, **cells[place].protocol}
                for kind, run, cells in zip(("candidate", "baseline"), runs, found, strict=True)
            }
        )
    drawn = [
        _replicates(store, run, cells, score, replicates)
        for store, run, cells in zip(stores, runs, found, strict=True)
    ]
    named = dict(zip((f"candidate {names[0]}", f"baseline {names[1]}"), drawn, strict=True))
    if drawn[0].image_ids != drawn[1].image_ids:
        raise UserError("Expected two runs on the same images, but they differ; evaluate one again")
    require_same_grouping(named)
    grouping, images = drawn[0].grouping, len(drawn[0].image_ids)
    _require_enough(images, grouping)
    values = [_quantity(one.values[score], rule) for one in drawn]
    gains = values[1] - values[0] if rule.metric == "drop" else values[0] - values[1]
    # a drop is 1 - mPC / P: an image changes it by 1 / (N P)
    clean = min(one[CLEAN].value for one in found) if rule.metric == "drop" else 1.0
    unit = 1 / (images * clean) if clean > 0 else math.nan
    gain = float(gains[0])
    low, high = gain_interval(gains[1:], gain, unit, drawn[0].freedom)
    state, finding = decide(gain, low, high, rule)
    return GateVerdict(
        state,
        f"{names[0]} {finding}",
        *names,
        rule,
        score,
        gain=_finite(gain),
        low=_finite(low),
        high=_finite(high),
        images=images,
        severities=severities,
        grouping=grouping,
        protocol=found[0][places[0]].protocol,
        warnings=_warnings(runs, own, drawn),
    )


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _warnings(
    runs: Sequence[Run],
    own: Sequence[Sequence[Measurement]],
    drawn: Sequence[CellReplicates],
) -> tuple[str, ...]:
    """What a reader should know besides: few images, the same weights, implausible scores."""
    per_class = [one.images_per_class for one in drawn if one.images_per_class]
    fewest = [min(counts) for counts in zip(*per_class, strict=True)]
    groups = effective_groups(drawn[0].grouping)
    weights = {str(one.protocol.get("weights", "none")) for measured in own for one in measured}
    return (
        *sample_size_warnings(len(drawn[0].image_ids), fewest, groups),
        *([SAME_WEIGHTS] if len(weights) == 1 and weights != {"none"} else []),
        *(
            f"{run.name}: {sentence}"
            for run, measured in zip(runs, own, strict=True)
            for sentence in run_warnings(run, measured)
        ),
    )


def _run(store: Store, name: str) -> Run:
    return lookup("run", name, {run.name: run for run in store.runs()})


def _score(runs: Sequence[Run], own: Sequence[Sequence[Measurement]], asked: str | None) -> str:
    for run, measured in zip(runs, own, strict=True):
        if not measured:
            raise MissingCellsError(f"{run.name} has no measurement: evaluate it first")
    both = {one.metric for one in own[0]} & {one.metric for one in own[1]}
    wanted = asked or HEADLINE_METRIC.get(runs[0].task, "")
    return lookup("score of both runs", wanted, {name: name for name in sorted(both)})


def _cells(
    own: Sequence[Sequence[Measurement]], score: str, rule: GateRule
) -> tuple[tuple[int, ...], list[Place]]:
    """The severities and cells that the rule needs; the clean cell comes first if it is needed."""
    if rule.metric == "clean":
        return (), [CLEAN]
    name = rule.metric.removeprefix(CORRUPTION)
    corruptions = COMMON if name == rule.metric else (name,)
    present = {
        one.severity
        for measured in own
        for one in measured
        if one.metric == score and one.corruption in corruptions
    }
    severities = rule.severities or tuple(sorted(present))
    if not severities:
        missing = name if corruptions == (name,) else "the 15 common corruptions"
        raise MissingCellsError(f"Neither run has a cell of {missing}: evaluate them")
    if corruptions == (name,):
        return severities, [(name, level) for level in severities]
    return severities, [CLEAN, *corrupted_places(severities)]


def _values(
    run: Run, measured: Sequence[Measurement], score: str, places: Sequence[Place]
) -> dict[Place, Measurement]:
    """The measurement of each cell; every one is there, and its value is finite."""
    cells = {(one.corruption, one.severity): one for one in measured if one.metric == score}
    missing = [place for place in places if place not in cells]
    if missing:
        corruption, severity = missing[0]
        raise MissingCellsError(
            f"{run.name} ({score}) has no measurement for {corruption} {severity}"
            f" ({format_count(len(missing), 'cell')} missing): evaluate it"
        )
    found = {place: cells[place] for place in places}
    if wrong := [place for place, one in found.items() if not math.isfinite(one.value)]:
        raise UserError(
            f"Expected finite scores of {run.name}, but {wrong[0][0]} {wrong[0][1]} is not;"
            " evaluate it again"
        )
    return found


def _replicates(
    store: Store, run: Run, cells: Mapping[Place, Measurement], score: str, count: int
) -> CellReplicates:
    """The replicates of all cells, whose statistics give the stored scores."""
    places = list(cells)
    drawn = resample_cells(store, run.name, places, count)
    if drawn is None or score not in drawn.values:
        raise UserError(
            f"Expected statistics of every image of {run.name}, but a cell has none or has other"
            " images, such as results that were imported; evaluate the run here"
        )
    stored = np.array([one.value for one in cells.values()])
    off = ~(np.abs(drawn.values[score][:, 0] - stored) <= SAME)
    if off.any():
        corruption, severity = places[int(np.argmax(off))]
        raise UserError(
            f"Expected the score of {run.name} on {corruption} {severity} that its statistics give,"
            " but the stored one differs; evaluate it again"
        )
    return drawn


def _quantity(cells: Array, rule: GateRule) -> Array:
    """The quantity of the rule on the whole dataset and in each replicate (1 + R,)."""
    if rule.metric == "drop":
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(1 - cells[1:].mean(0) / cells[0])
    return np.asarray((cells[1:] if rule.metric == "mpc" else cells).mean(0))


def _require_enough(images: int, grouping: Grouping | None) -> None:
    if images < FEWEST_IMAGES:
        raise UserError(
            f"Expected at least {FEWEST_IMAGES} images for a gate, but got {images}; evaluate more"
        )
    if grouping is not None and grouping.effective < FEWEST_GROUPS:
        raise UserError(
            f"Expected at least {FEWEST_GROUPS} effective groups of images for a gate, but got"
            f" {grouping.effective:.3g} ({grouping.protocol}); evaluate images of more groups"
        )
