"""Backbones: specs such as ``efficientnet_lite0``, ``resnet50(weights='random')``, ``convnext_tiny(weights='FILE')``.

Contract: ``.channels``, ``.strides`` (four each); ``forward(x)`` for x float (B, 3, H, W) RGB 0..1 gives four maps
(B, C_i, H/s_i, W/s_i); ``embed(x)`` gives (B, embed_dim); the backbone normalises by itself (``pixel_mean``,
``pixel_std``).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillrobust.backbones.base import Backbone, require_pyramid
from stillrobust.backbones.checkpoints import CHECKPOINTS, IMAGENET_MEAN, IMAGENET_STD, read_checkpoint
from stillrobust.backbones.reader import State, digest, load_strictly, read_state
from stillrobust.backbones.resnet import DEPTHS, build_resnet
from stillrobust.backbones.swin import SHAPES, build_swin
from stillrobust.backbones.timm_models import build_timm
from stillrobust.errors import UserError
from stillrobust.names import format_spec, parse_spec

__all__ = ["CHECKPOINTS", "Backbone", "backbone_names", "build_backbone", "require_pyramid", "upstream_digest"]

ARCHITECTURES: dict[str, Callable[[str], Backbone]] = {
    **dict.fromkeys([*DEPTHS, "resnet_mini"], build_resnet),
    **dict.fromkeys(SHAPES, build_swin),
}
"""Ours; every other name is timm's, and so is ``timm/NAME`` where both have one."""
TIMM = "timm/"
PREFIXES = ("module.model.", "module.", "backbone.", "model.")  # what training wrappers put before every key


def backbone_names() -> list[str]:
    """The backbones whose weights come with a pip package; every timm name works beside these."""
    return sorted(CHECKPOINTS)


def build_backbone(spec: str) -> tuple[Backbone, str]:
    """Build what ``spec`` says, weights loaded strictly; returns it with one line that says what was loaded.

    ``weights``: absent or ``'imagenet'`` for the published ImageNet weights (of the pip package, or timm's hub),
    ``'random'``, or the path of a local file. Raises ``UserError`` for an unknown name, argument or unfitting file.
    """
    name, arguments = parse_spec(spec)
    weights = arguments.pop("weights", "imagenet")
    if arguments:
        raise UserError(f"A backbone takes weights=... only, but {spec!r} also has {', '.join(sorted(arguments))}")
    row = CHECKPOINTS.get(name)
    published = weights == "imagenet"
    if name in ARCHITECTURES:
        backbone = ARCHITECTURES[name](name)
        backbone.set_preprocessing(IMAGENET_MEAN, IMAGENET_STD)
    else:
        timms = row.architecture if row else name.removeprefix(TIMM)
        backbone = build_timm(timms, pretrained=published and row is None)
    backbone.name = name
    if row:
        backbone.set_preprocessing((row.mean,), (row.std,))
    if weights == "random":
        return backbone, f"{spec}: random weights"
    if published and row is None:
        return backbone, f"{spec}: timm's ImageNet weights"
    if published and row is not None:
        loaded = load_strictly(backbone.model, read_checkpoint(row), row.package)
        return backbone, f"{spec}: {loaded} tensors from {row.package}"
    state = _without_prefix(read_state(Path(str(weights)).expanduser()), backbone)
    head = tuple(f"{part}." for part in _classifier_names(backbone))
    own = backbone.model.state_dict()
    fits = {key: value for key, value in state.items() if not key.startswith(head)}
    # The upstream classifier has no part in a transfer; a file trained on other classes may bring its own or none.
    kept = {key: own[key] for key in own if key.startswith(head)}
    kept |= {key: state[key] for key in kept if key in state and state[key].shape == own[key].shape}
    load_strictly(backbone.model, fits | kept, str(weights))
    return backbone, f"{spec}: {len(fits)} tensors from {weights}"


def _classifier_names(backbone: Backbone) -> tuple[str, ...]:
    if backbone.name in ARCHITECTURES:
        return ("fc", "norm", "head")
    cfg: Any = backbone.model.pretrained_cfg
    names = cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _without_prefix(state: State, backbone: Backbone) -> State:
    """Strip one of the known prefixes where all keys carry it."""
    own = backbone.model.state_dict()
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state) and not any(key in own for key in state):
            return {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def upstream_digest(spec: str) -> str:
    """SHA-256 of the weights that ``spec`` starts from; for random weights a word, since the run's seed decides them."""
    name, arguments = parse_spec(spec)
    if arguments.get("weights") == "random":
        return f"random:{format_spec(name, {})}"
    return digest(build_backbone(spec)[0].model.state_dict())
