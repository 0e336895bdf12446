"""One run against others: mCE and relative mCE, effective robustness, and the worst corruption."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from stillrobust.analysis.robustness import Robustness, SubsetScore
from stillrobust.errors import UserError
from stillrobust.grid import COMMON, SEVERITIES
from stillrobust.samples import Array


@dataclass(frozen=True)
class Reference:
    """The errors (1 − score, 0..1) that others are divided by."""

    name: str
    metric: str
    severities: tuple[int, ...]
    clean: float
    by_corruption: Mapping[str, float]
    """Mean over the severities."""


ALEXNET = Reference(
    "AlexNet",
    "top1",
    SEVERITIES,
    # torchvision AlexNet_Weights.IMAGENET1K_V1: top-1 56.522 %; Hendrycks & Dietterich 2019, table
    # 1: 43.5
    clean=0.43478,
    # Hendrycks & Dietterich 2019, table 1, with the digits of hendrycks/robustness' and AugMix's
    # code
    by_corruption={
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.717840,
        "jpeg_compression": 0.606500,
    },
)


@dataclass(frozen=True)
class CorruptionErrors:
    """Errors in units of the reference's; 1 is as bad as the reference. Published in percent."""

    mce: float
    relative_mce: float
    by_corruption: dict[str, float]
    relative_by_corruption: dict[str, float]


def as_reference(run: Robustness) -> Reference:
    """Any run as the reference."""
    errors = {name: 1 - part.mpc for name, part in run.by_corruption.items()}
    return Reference(run.run, run.metric, run.severities, 1 - run.clean, errors)


def corruption_errors(run: Robustness, reference: Reference = ALEXNET) -> CorruptionErrors:
    """mCE and relative mCE (Hendrycks & Dietterich 2019, section 4.2).

    CE_c = Σ_s E(c, s) / Σ_s E_ref(c, s); relative: with each model's clean error subtracted from
    every E. Raises ``UserError`` where metric or severities differ, or the reference has no error
    to divide by.
    """
    if (run.metric, run.severities) != (reference.metric, reference.severities):
        raise UserError(
            f"Expected {reference.metric} at severities {', '.join(map(str, reference.severities))}"
            f" as {reference.name} has, but {run.run} has {run.metric} at"
            f" {', '.join(map(str, run.severities))}; take a run of the same study as the reference"
        )
    plain, relative = {}, {}
    for name in COMMON:
        error, other = 1 - run.by_corruption[name].mpc, reference.by_corruption[name]
        if other <= 0 or other == reference.clean:
            raise UserError(
                f"{reference.name} loses nothing under {name}, so that nothing can be divided by"
                " it; take another"
            )
        plain[name] = error / other
        relative[name] = (error - (1 - run.clean)) / (other - reference.clean)
    return CorruptionErrors(fmean(plain.values()), fmean(relative.values()), plain, relative)


def worst_corruption(run: Robustness) -> tuple[str, SubsetScore]:
    """The corruption, over its severities, that leaves the lowest score, and what it leaves."""
    return min(run.by_corruption.items(), key=lambda item: item[1].mpc)


def effective_robustness(runs: Sequence[Robustness], standard: Iterable[Robustness]) -> list[float]:
    """How far each run's mPC lies above what its clean score lets expect, 0..1 (Taori et al. 2020,
    section 2).

    Expected is a line through the ``standard`` runs (models without a technique) on logit axes,
    fitted by least squares. Raises ``UserError`` without two standard runs of different clean
    scores, or for scores of 0 or 1, which have no logit.
    """
    known = list(standard)
    everyone = [*runs, *known]
    if len({(run.metric, run.severities) for run in everyone}) > 1:
        raise UserError(
            "Expected runs of one metric and one set of severities; compute effective robustness"
            " for each on its own"
        )
    for run in everyone:
        if not (0 < run.clean < 1 and 0 < run.mpc < 1):
            raise UserError(
                f"Expected scores between 0 and 1, but {run.run} has {run.clean:g} and {run.mpc:g};"
                " leave it out"
            )
    if len({run.clean for run in known}) < 2:
        raise UserError(
            f"Expected at least two standard runs of different clean scores, but got {len(known)};"
            " give more"
        )
    slope, height = np.polyfit(
        _logit([run.clean for run in known]), _logit([run.mpc for run in known]), 1
    )
    expected = 1 / (1 + np.exp(-(slope * _logit([run.clean for run in runs]) + height)))
    return [float(run.mpc - value) for run, value in zip(runs, expected, strict=True)]


def _logit(scores: Sequence[float]) -> Array:
    values = np.asarray(scores, float)
    result: Array = np.log(values / (1 - values))
    return result
