"""Comparison of a run with reference runs: mCE, effective robustness, and the worst corruption."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from stillrobust.analysis.robustness import Robustness, SubsetScore
from stillrobust.errors import UserError
from stillrobust.grid import COMMON, SEVERITIES
from stillrobust.samples import Array
from stillrobust.storage.files import bytes_sha256


@dataclass(frozen=True)
class Reference:
    """Errors (1 − score, 0..1) of the model that mCE is relative to."""

    name: str
    metric: str
    severities: tuple[int, ...]
    clean: float
    by_corruption: Mapping[str, float]
    """Mean error over the severities, by corruption."""


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


# first 16 digits of the SHA-256 of the sorted class names, one per line
IMAGENET_CLASSES = {
    "385e0240499426c0",  # WordNet ids: data/official/imagenet_wnids.txt
    "1a8120173a37acd9",  # names: torchvision/models/_meta.py, _IMAGENET_CATEGORIES
}


@dataclass(frozen=True)
class CorruptionErrors:
    """Errors relative to those of the reference: 1 is as bad. Published in percent."""

    mce: float
    relative_mce: float
    by_corruption: dict[str, float]
    relative_by_corruption: dict[str, float]


def as_reference(run: Robustness) -> Reference:
    """Return a run as the reference of others."""
    errors = {name: 1 - part.mpc for name, part in run.by_corruption.items()}
    return Reference(run.run, run.metric, run.severities, 1 - run.clean, errors)


def is_imagenet(classes: Sequence[str]) -> bool:
    """Return whether these are the 1000 classes of ImageNet, as WordNet ids or torchvision's names.

    Args:
        classes: Class names in any order.
    """
    return bytes_sha256("\n".join(sorted(classes)).encode())[:16] in IMAGENET_CLASSES


def published_reference(run: Robustness, classes: Sequence[str]) -> Reference | None:
    """Return AlexNet if its published errors apply: top-1 on ImageNet at all severities.

    Args:
        run: Robustness of the run.
        classes: Classes of the run's dataset; see ``Run.classes``.
    """
    comparable = (run.metric, run.severities) == (ALEXNET.metric, ALEXNET.severities)
    return ALEXNET if comparable and is_imagenet(classes) else None


def corruption_errors(run: Robustness, reference: Reference = ALEXNET) -> CorruptionErrors:
    """Compute mCE and relative mCE (Hendrycks & Dietterich 2019, section 4.2).

    CE_c = Σ_s E(c, s) / Σ_s E_ref(c, s). The relative one subtracts each model's clean error from
    every E.

    Args:
        run: Robustness of the run.
        reference: The model that errors are relative to.

    Raises:
        UserError: If metric or severities differ, or the reference has no error to divide by.
    """
    if (run.metric, run.severities) != (reference.metric, reference.severities):
        raise UserError(
            f"Expected {reference.metric} at severities {', '.join(map(str, reference.severities))}"
            f" as {reference.name} has, but {run.run} has {run.metric} at"
            f" {', '.join(map(str, run.severities))}; choose a reference with"
            " the same metric and severities"
        )
    plain, relative = {}, {}
    for name in COMMON:
        error, other = 1 - run.by_corruption[name].mpc, reference.by_corruption[name]
        if other <= 0 or other == reference.clean:
            raise UserError(
                f"{reference.name} has no loss under {name}, so errors cannot be divided by it;"
                " choose another reference"
            )
        plain[name] = error / other
        relative[name] = (error - (1 - run.clean)) / (other - reference.clean)
    return CorruptionErrors(fmean(plain.values()), fmean(relative.values()), plain, relative)


def worst_corruption(run: Robustness) -> tuple[str, SubsetScore]:
    """Return the corruption with the lowest mean score over its severities, and that score."""
    return min(run.by_corruption.items(), key=lambda item: item[1].mpc)


def effective_robustness(runs: Sequence[Robustness], standard: Iterable[Robustness]) -> list[float]:
    """Compute effective robustness: mPC above what the clean score predicts (Taori et al. 2020).

    The prediction is a least-squares line through the standard runs on logit axes (section 2).

    Args:
        runs: The runs to judge.
        standard: Runs of models without a technique, at least two with different clean scores.

    Returns:
        The difference of each run, as a fraction.

    Raises:
        UserError: If metrics, severities or standard runs do not fit, or a score is 0 or 1 and so
            has no logit.
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
