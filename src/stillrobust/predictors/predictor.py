"""A finished model from any library."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stillrobust.samples import Image, Prediction
from stillrobust.storage.files import bytes_sha256, canonical_json
from stillrobust.storage.store import RunKind, Transfer

Predict = Callable[[list[Image]], list[Prediction]]


@dataclass(frozen=True)
class Predictor:
    """A callable model with the facts that its results need.

    ``predict`` takes a list of images, uint8 (H, W, 3) RGB of any size, and returns one
    ``Prediction`` per image.
    """

    task: str
    model: str
    """Name in reports: the spec of the backbone, or the model's own name."""
    predict: Predict
    weights: str
    """Identifies everything that determines the predictions: weights, architecture, preprocessing
    and options; part of the protocol. See :func:`prediction_identity`."""
    classes: tuple[str, ...] | None = None
    """Classes in the order of the labels; ``None`` for those of the evaluated dataset."""
    masks: bool = True
    """Detection: whether predictions have masks. Otherwise only boxes are scored."""
    kind: RunKind = "external"
    """How the model was made."""
    transfer: Transfer | None = None
    """``None`` unless ``kind`` is ``transfer``."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further facts to store with the run, as plain data."""


def prediction_identity(weights: str, **deciding: Any) -> str:
    """Return a SHA-256 (hex) of the weights and everything else that decides a prediction.

    Versions of libraries are facts about a run (``Predictor.about``) and do not enter.

    Args:
        weights: SHA-256 of the weights.
        deciding: Architecture, preprocessing, options: plain data.

    Raises:
        UserError: If a value is not plain data.
    """
    return bytes_sha256(canonical_json({"weights": weights, **deciding}))
