"""Backbones: specs such as ``resnet50(weights='ant')``, ``swin_t``, ``efficientnet_lite0``,
``convnext_tiny(weights='FILE')``.

Contract: ``.channels``, ``.strides`` (four each); ``forward(x)`` for x float (B, 3, H, W) RGB 0..1
gives four maps (B, C_i, H/s_i, W/s_i); ``embed(x)`` gives (B, embed_dim); ``classify(x)`` gives the
upstream classifier's logits; the backbone normalises by itself (``pixel_mean``, ``pixel_std``).
"""

from stillrobust.extras import require_extra

require_extra("torch")

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillrobust.backbones.base import Backbone, require_pyramid
from stillrobust.backbones.checkpoints import CHECKPOINTS, IMAGENET_MEAN, IMAGENET_STD, Checkpoint
from stillrobust.backbones.loading import BESIDE, load_backbone
from stillrobust.backbones.reader import digest, read_state
from stillrobust.backbones.resnet import DEPTHS, build_resnet
from stillrobust.backbones.swin import SHAPES, build_swin
from stillrobust.backbones.timm_models import LITE_REPEATS, build_lite, build_timm, timm_names
from stillrobust.backbones.weights import Weights, file_of, verify, weights_of, write_folder
from stillrobust.errors import UserError
from stillrobust.names import format_spec, parse_spec, unknown
from stillrobust.storage.files import file_digest

__all__ = [
    "ARCHITECTURES",
    "CHECKPOINTS",
    "Backbone",
    "Checkpoint",
    "build_backbone",
    "file_of_weights",
    "made",
    "maker_of",
    "missing_weights",
    "published_preprocessing",
    "require_pyramid",
    "shown",
    "upstream_digest",
    "write_folder",
]

ARCHITECTURES: dict[str, Callable[[str], Backbone]] = {
    **dict.fromkeys([*DEPTHS, "resnet_mini"], build_resnet),
    **dict.fromkeys(SHAPES, build_swin),
    **dict.fromkeys(LITE_REPEATS, build_lite),
}
"""Ours, by name. Every other name is timm's, and so is ``timm/NAME`` where both have one."""
TIMM = "timm/"


def build_backbone(spec: str) -> tuple[Backbone, str]:
    """Build what ``spec`` says, weights loaded strictly; returns it with one line that says what
    was loaded.

    ``weights``: the name of published ones (``CHECKPOINTS``; absent: an architecture's first),
    ``'random'``, the path of a file, or of a folder that ``stillrobust robustify`` wrote. Raises
    ``UserError`` for an unknown name or argument, weights that are not there yet, or an unfitting
    file.
    """
    weights = _weights(spec)
    name, path = weights.architecture, _path(weights)
    if name in ARCHITECTURES:
        backbone = ARCHITECTURES[name](name)
        if name not in LITE_REPEATS:
            backbone.set_preprocessing(IMAGENET_MEAN, IMAGENET_STD)
    else:
        backbone = build_timm(name.removeprefix(TIMM), pretrained=weights.kind == "hub")
        backbone.name = name
    if path is None:
        return (
            backbone,
            (
                f"{spec}:"
                f" {'random weights' if weights.kind == 'random' else 'the weights of timm, from its hub'}"
            ),
        )
    row = weights.row
    if row and weights.kind == "row":
        verify(row, path)
    if row:
        backbone.set_preprocessing(row.mean, row.std, row.clamp)
    said = load_backbone(backbone, read_state(path), str(path), row.may_differ if row else BESIDE)
    return backbone, f"{spec}: {said}"


def _weights(spec: str) -> Weights:
    name, _ = parse_spec(spec)
    ours = name in ARCHITECTURES
    if not ours and name.removeprefix(TIMM).split(".")[0] not in timm_names():
        raise unknown("backbone", name, [*ARCHITECTURES, *timm_names()])
    return weights_of(spec, ours)


def _path(weights: Weights) -> Path | None:
    if weights.kind == "row":
        assert weights.row is not None
        return file_of(weights.row)
    return weights.path


def shown(spec: str) -> str:
    """A spec as reports show it: a folder of ``robustify`` by its technique, a file by its name;
    others as they are.
    """
    weights = _weights(spec)
    if weights.kind == "folder" and weights.row is not None:
        return made(weights.architecture, weights.row.technique)
    return (
        format_spec(weights.architecture, {"weights": weights.path.name}) if weights.path else spec
    )


def made(architecture: str, technique: str) -> str:
    """How a backbone that ``robustify`` made is shown, upstream and in what starts from it;
    ``technique`` may be empty.
    """
    return f"{architecture} ({technique or 'regular'})"


def maker_of(spec: str) -> Path | None:
    """The folder of ``robustify`` that the weights of ``spec`` lie in; ``None`` for all other
    weights.
    """
    weights = _weights(spec)
    return weights.path.parent if weights.kind == "folder" and weights.path else None


def missing_weights(spec: str) -> str:
    """Why the weights of ``spec`` cannot be read, with the way out; empty where they are there.

    Builds nothing.
    """
    try:
        path = _path(_weights(spec))
    except UserError as error:
        return str(error)
    return (
        ""
        if path is None or path.is_file()
        else f"Expected a weight file at {path}, but there is none; check the path"
    )


def upstream_digest(spec: str) -> str:
    """The identity of the weights that ``spec`` starts from: the SHA-256 of their file, read once a
    process.

    For random weights a word, since the run's seed decides them; for timm's hub the SHA-256 of the
    tensors.
    """
    weights = _weights(spec)
    if weights.kind == "random":
        return f"random:{weights.architecture}"
    path = _path(weights)
    if path is None:
        return digest(build_backbone(spec)[0].model.state_dict())
    if not path.is_file():
        raise UserError(missing_weights(spec))
    return file_digest(path)


def file_of_weights(spec: str) -> Path | None:
    """The file that ``spec`` starts from; ``None`` for random weights and timm's hub."""
    return _path(_weights(spec))


def published_preprocessing(spec: str) -> dict[str, Any] | None:
    """What the row of facts of a spec's weights says of it: ``mean``, ``std``, ``clamp``; ``None``
    where there is no row.
    """
    row = _weights(spec).row
    return {"mean": row.mean, "std": row.std, "clamp": row.clamp} if row else None
