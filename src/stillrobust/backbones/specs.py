"""Backbone specs: the architectures by name, and where the weights of a spec come from."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stillrobust.backbones.architectures import (
    ARCHITECTURES,
    HUB,
    RANDOM,
    TIMM,
    require_known_backbone,
)
from stillrobust.backbones.base import Backbone
from stillrobust.backbones.checkpoint_facts import IMAGENET_MEAN, IMAGENET_STD, Checkpoint
from stillrobust.backbones.checkpoints import checkpoints_of
from stillrobust.backbones.hubs import timm_file
from stillrobust.backbones.reader import kind_of_path, read_weights, require_file
from stillrobust.backbones.strict_loading import require_key
from stillrobust.backbones.timm_models import LITE_REPEATS, build_timm
from stillrobust.backbones.weight_loading import HEAD_KEYS, load_weights
from stillrobust.backbones.weights import checkpoint_file, read_folder, verify_checkpoint
from stillrobust.errors import UserError
from stillrobust.names import format_spec, parse_spec
from stillrobust.storage.files import bytes_sha256, cached_file_sha256


@dataclass
class ResolvedBackbone:
    """A backbone spec whose weights have been located: what to build and what to load into it.

    A training resolves its spec once and passes this value on. Its facts, its hash and its model
    therefore belong to the same weights.
    """

    spec: str
    architecture: str
    kind: Literal["random", "hub", "published", "folder", "file"]
    """``hub``: timm's own weights, from its cache. ``folder``: of ``stillrobust robustify``."""
    checkpoint: Checkpoint | None = None
    """The row of facts of published weights and of folders."""
    file: Path | None = None
    """The weight file; ``None`` for random weights."""
    key: str = ""
    """Path of the weights in the file, such as ``model_ema``; empty to find them."""

    @property
    def display_name(self) -> str:
        """The spec as reports show it: a folder by its technique, a file by its name."""
        if self.kind == "folder" and self.checkpoint:
            return robustified_name(self.architecture, self.checkpoint.technique)
        if self.kind == "file" and self.file:
            key = {"key": self.key} if self.key else {}
            return format_spec(self.architecture, {"weights": self.file.name, **key})
        return self.spec

    @property
    def folder(self) -> Path | None:
        """The folder of ``stillrobust robustify`` that holds the weights; ``None`` for others."""
        return self.file.parent if self.kind == "folder" and self.file else None

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """Arguments of ``set_preprocessing`` from the row of facts; ``None`` without a row."""
        row = self.checkpoint
        return {"mean": row.mean, "std": row.std, "clamp": row.clamp} if row else None

    @cached_property
    def digest(self) -> str:
        """The identity of the weights: the SHA-256 (hex) of their file, or of that and ``key``.

        Random weights depend on the run's seed, so that their identity is
        ``random:ARCHITECTURE``.

        Raises:
            UserError: If a published file is not the one that its publisher names.
        """
        if self.file is None:
            return f"random:{self.architecture}"
        if self.kind == "published" and self.checkpoint:
            verify_checkpoint(self.checkpoint, self.file)
        return self._identity_of(cached_file_sha256(self.file))

    def build(self) -> tuple[Backbone, str]:
        """Build the backbone and load its weights strictly.

        Random weights are drawn from torch's generator.

        Returns:
            The backbone, and one line that says what was loaded.

        Raises:
            UserError: If the weights do not fit, or changed since ``digest`` was computed.
        """
        expected = self.digest
        if self.file is None:
            return self._build_architecture(), f"{self.spec}: random weights"
        weights = read_weights(self.file, self.key)
        if self._identity_of(weights.sha256) != expected:
            raise self._changed()
        if self.kind == "hub":
            backbone: Backbone = build_timm(self.architecture.removeprefix(TIMM), weights.tensors)
            backbone.name = self.architecture
            return backbone, f"{self.spec}: the weights of timm, {self.file}"
        backbone = self._build_architecture()
        if self.preprocessing:
            backbone.set_preprocessing(**self.preprocessing)
        may_differ = self.checkpoint.may_differ if self.checkpoint else HEAD_KEYS
        return backbone, f"{self.spec}: {load_weights(backbone, weights, self.file, may_differ)}"

    def _identity_of(self, sha256: str) -> str:
        return bytes_sha256(f"{sha256} {self.key}".encode()) if self.key else sha256

    def _build_architecture(self) -> Backbone:
        name = self.architecture
        if name not in ARCHITECTURES:
            backbone: Backbone = build_timm(name.removeprefix(TIMM))
            backbone.name = name
            return backbone
        backbone = ARCHITECTURES[name](name)
        if name not in LITE_REPEATS:
            backbone.set_preprocessing(IMAGENET_MEAN, IMAGENET_STD)
        return backbone

    def _changed(self) -> UserError:
        return UserError(
            f"The weights of {self.spec} changed while a training began from them; start again,"
            " once they stay as they are"
        )


def resolve_backbone(spec: str) -> ResolvedBackbone:
    """Locate the weights of a backbone spec. Neither builds the model nor reads the weights.

    Args:
        spec: ``NAME`` or ``NAME(weights='WEIGHTS')``. WEIGHTS is the name of published weights
            (default: the architecture's first in ``CHECKPOINTS``), ``random``, the path of a weight
            file, or a folder written by ``stillrobust robustify``. For a file with several sets of
            weights, ``key='ENTRY'`` chooses one.

    Raises:
        UserError: If a name or argument is unknown, or the weights are missing.
    """
    backbone = _locate(spec)
    if backbone.file is not None:
        require_file(backbone.file)
    return backbone


def _locate(spec: str) -> ResolvedBackbone:
    require_known_backbone(spec)
    name, arguments = parse_spec(spec)
    built_in = name in ARCHITECTURES
    rows = checkpoints_of(name)
    value = str(arguments.pop("weights", next(iter(rows), "") if built_in else HUB))
    key = arguments.pop("key", None)
    if arguments:
        raise UserError(
            f"A backbone takes weights=... and key=... only, but {spec!r} also has"
            f" {', '.join(sorted(arguments))}; leave them out"
        )
    path = Path(value).expanduser()
    kind = kind_of_path(path)
    no_file = value not in rows and (value in (RANDOM, HUB, "") or kind == "a folder")
    key = require_key(key, value if no_file else "")
    if value in rows:
        row = rows[value]
        return ResolvedBackbone(spec, name, "published", row, checkpoint_file(row), key)
    if value == RANDOM:
        return ResolvedBackbone(spec, name, "random")
    if value == HUB and not built_in:
        return ResolvedBackbone(spec, name, "hub", None, timm_file(name.removeprefix(TIMM)))
    if not value:
        raise UserError(
            f"No weights of {name} are published; use {name}(weights='{RANDOM}'), or name a weight"
            " file"
        )
    if kind == "a folder":
        row = read_folder(path)
        if row.architecture != name:
            raise UserError(
                f"Expected weights of {name}, but {path} holds those of {row.architecture}; write"
                f" {row.spec}"
            )
        return ResolvedBackbone(spec, name, "folder", row, path / row.file)
    return ResolvedBackbone(spec, name, "file", None, path, key)


def build_backbone(spec: str) -> tuple[Backbone, str]:
    """Build the backbone of a spec, with its weights loaded strictly.

    Args:
        spec: See ``resolve_backbone``.

    Returns:
        The backbone, and one line that says what was loaded.

    Raises:
        UserError: If a name or argument is unknown, or weights are missing or do not fit.
    """
    return resolve_backbone(spec).build()


def weights_file(spec: str) -> Path | None:
    """The weight file of a spec; ``None`` for random weights.

    Raises:
        UserError: If a name is unknown, or weights of a publisher or a hub are missing.
    """
    return _locate(spec).file


def missing_weights(spec: str) -> str:
    """Why the weights of a spec cannot be read, and how to get them; empty if they are there."""
    try:
        resolve_backbone(spec)
    except UserError as error:
        return str(error)
    return ""


def robustified_name(architecture: str, technique: str) -> str:
    """How reports show a backbone made by ``stillrobust robustify``.

    Args:
        architecture: Name of the architecture.
        technique: Technique as reports show it; empty for regular training.
    """
    return f"{architecture} ({technique or 'regular'})"
