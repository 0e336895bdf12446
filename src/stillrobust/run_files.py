"""Files of a run: the weights as safetensors, what they are as JSON beside them, whole or not at all.

``resume.*`` is what an unfinished training goes on from, ``model.*`` the finished run. The JSON is put in place last and holds
the checksum of the weights: its presence means that both are whole.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import Precision
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stillrobust.downloads import sha256_of
from stillrobust.errors import UserError
from stillrobust.samples import DatasetInfo
from stillrobust.store import content_key


def checked(path: Path, sha256: str) -> bool:
    """Whether the file is there and is the one that was written."""
    return path.is_file() and sha256_of(path) == sha256


def _write_pair(folder: Path, name: str, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """``name.safetensors`` first, ``name.json`` with its checksum last: the JSON's presence means that both are whole."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights, temporary = folder / f"{name}.safetensors", folder / f".{name}.{os.getpid()}.tmp"
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary)
        description = {**description, "sha256": sha256_of(temporary)}
        _sync(temporary)
        temporary.replace(weights)
        temporary.write_text(json.dumps(description, indent=1), encoding="utf-8")
        _sync(temporary)
        temporary.replace(folder / f"{name}.json")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"Cannot write {folder / name} ({reason}); free some space or choose another folder") from None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and {"identity", "sha256"} <= content.keys() else None


def save(
    folder: Path,
    described: dict[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    precision: Precision,
    step: int,
    beside: Mapping[str, Tensor],
) -> None:
    """Write what :func:`resume` needs; ``beside`` is what trains beside the model."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": v for key, v in values.items() if isinstance(v, Tensor)}
    tensors |= {f"beside.{name}": value for name, value in beside.items()}
    _write_pair(folder, "resume", tensors, {"identity": described, "step": step, "precision": precision.state_dict()})


def resume(
    folder: Path, described: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer, precision: Precision
) -> tuple[int, dict[str, Tensor]]:
    """Load what :func:`save` wrote for the same identity; returns the step to go on from and ``beside``, or 0 and nothing."""
    description = _read_json(folder / "resume.json")
    path = folder / "resume.safetensors"
    if not description or description["identity"] != described or not checked(path, description["sha256"]):
        return 0, {}
    tensors = load_file(path)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    precision.load_state_dict(description["precision"])
    beside = {key.removeprefix("beside."): value for key, value in tensors.items() if key.startswith("beside.")}
    return int(description["step"]), beside


def finish(folder: Path, described: dict[str, Any], plan: dict[str, Any], loaded: str, model: nn.Module, info: DatasetInfo) -> None:
    """Write the finished model, then drop what was kept for resuming. ``plan``: what :func:`load_model` builds it from."""
    description = {
        "identity": described,
        "key": content_key(described),
        "plan": plan,
        "loaded": loaded,
        "info": dataclasses.asdict(info),
    }
    _write_pair(folder, "model", model.state_dict(), description)
    for name in ("resume.json", "resume.safetensors"):
        (folder / name).unlink(missing_ok=True)


def read_description(folder: Path) -> dict[str, Any] | None:
    """The JSON of a finished run in ``folder``, or ``None`` where there is none."""
    return _read_json(folder / "model.json")
