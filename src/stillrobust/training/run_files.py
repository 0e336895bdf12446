"""Files of a run: the weights as safetensors, what they are as JSON beside them, whole or not at
all.

``resume.json`` is what an unfinished training goes on from, with its weights in
``resume-<digest>.safetensors``; ``model.json`` and ``model.safetensors`` are the finished run. The
JSON is put in place last and holds the checksum of the weights and of itself: its presence means
that all is whole. A pair that is not what was written is set aside (``*.damaged``) with a warning.
Who writes holds the lease on the folder.
"""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import Precision
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stillrobust.errors import UserError
from stillrobust.samples import DatasetInfo
from stillrobust.storage.files import (
    LEFTOVER,
    cached_file_sha256,
    clear_leftovers,
    content_key,
    file_matches,
    move_into_place,
    set_aside,
    temporary_path,
    write_whole,
)

RESUME = "resume-*.safetensors"
HALF = ".tmp??????"  # what safetensors writes into, before it renames that


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"Cannot read {path} ({error.strerror or error}); what was finished is kept: start again"
        " when the folder is there"
    )


def _weights_of(folder: Path, name: str, sha256: str) -> Path:
    """A finished model has one name; what is resumed from is named by its content, so that no JSON
    points at another's weights.
    """
    return folder / (
        f"{name}.safetensors" if name == "model" else f"{name}-{sha256[:16]}.safetensors"
    )


def _write_pair(
    folder: Path, name: str, tensors: Mapping[str, Tensor], description: dict[str, Any]
) -> Path:
    """The weights first, ``name.json`` with their checksum last. Returns where the weights are."""
    written = temporary_path(folder / f"{name}.safetensors")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, written
        )
        description = {**description, "sha256": cached_file_sha256(written)}
        weights = _weights_of(folder, name, description["sha256"])
        if name == "model":
            # of an earlier run, whose weights go now
            (folder / "model.json").unlink(missing_ok=True)
        move_into_place(written, weights)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"Cannot write {folder / name} ({reason}); free some space or choose another folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            written.unlink(missing_ok=True)
    sealed = {**description, "seal": content_key(description)}
    write_whole({folder / f"{name}.json": json.dumps(sealed, indent=1).encode()})
    return weights


def _read_json(path: Path) -> dict[str, Any] | None:
    """What was written, as far as the file itself can say; one that is half-written or altered is
    set aside.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        description = json.loads(content)
        seal = description.pop("seal", None)  # files of the first version have none
        if description.keys() >= {"identity", "sha256"} and seal in (
            None,
            content_key(description),
        ):
            return dict(description)
    except (ValueError, AttributeError):
        pass
    set_aside(path, "it is half-written or altered")
    return None


def _read_pair(folder: Path, name: str, described: dict[str, Any]) -> dict[str, Any] | None:
    """The JSON of a pair of this identity whose weights are whole; one whose weights are not is set
    aside.
    """
    description = _read_json(folder / f"{name}.json")
    if description is None or description["identity"] != described:
        return None
    weights = _weights_of(folder, name, description["sha256"])
    if file_matches(weights, description["sha256"]):
        return description
    set_aside(folder / f"{name}.json", f"{weights.name} is missing or altered")
    with contextlib.suppress(OSError):
        weights.replace(weights.with_name(f"{weights.name}.damaged"))
    return None


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
        tensors |= {
            f"optimiser.{index}.{key}": v for key, v in values.items() if isinstance(v, Tensor)
        }
    tensors |= {f"beside.{name}": value for name, value in beside.items()}
    about = {"identity": described, "step": step, "precision": precision.state_dict()}
    weights = _write_pair(folder, "resume", tensors, about)
    for older in set(folder.glob(RESUME)) - {weights}:
        older.unlink(missing_ok=True)


def resume(
    folder: Path,
    described: dict[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    precision: Precision,
) -> tuple[int, dict[str, Tensor]]:
    """Load what :func:`save` wrote for the same identity; returns the step to go on from and
    ``beside``, or 0 and nothing.
    """
    description = _read_pair(folder, "resume", described)
    if description is None:
        return 0, {}
    tensors = load_file(_weights_of(folder, "resume", description["sha256"]))
    model.load_state_dict(
        {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict(
        {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
    )
    precision.load_state_dict(description["precision"])
    beside = {
        key.removeprefix("beside."): value
        for key, value in tensors.items()
        if key.startswith("beside.")
    }
    return int(description["step"]), beside


def finish(
    folder: Path,
    described: dict[str, Any],
    plan: dict[str, Any],
    loaded: str,
    model: nn.Module,
    info: DatasetInfo,
) -> None:
    """Write the finished model, then drop what was kept for resuming.

    ``plan``: what :func:`load_model` builds it from.
    """
    description = {
        "identity": described,
        "key": content_key(described),
        "plan": plan,
        "loaded": loaded,
        "info": dataclasses.asdict(info),
    }
    _write_pair(folder, "model", model.state_dict(), description)
    tidy(folder, finished=True)


def finished(folder: Path, described: dict[str, Any]) -> bool:
    """Whether the run of this identity is finished and whole."""
    return _read_pair(folder, "model", described) is not None


def untidy(folder: Path) -> bool:
    """Whether a process that was killed left something in the folder of a finished run."""
    return any(LEFTOVER.fullmatch(path.name) for path in folder.iterdir()) or any(
        _passing(folder, finished=True)
    )


def tidy(folder: Path, finished: bool) -> None:
    """Remove what killed processes left half-written and, of a finished run, what was kept for
    resuming.
    """
    clear_leftovers(folder)
    for path in _passing(folder, finished):
        path.unlink(missing_ok=True)


def _passing(folder: Path, finished: bool) -> list[Path]:
    patterns = [HALF, *(["resume.json", RESUME] if finished else [])]
    return [path for pattern in patterns for path in folder.glob(pattern)]


def read_description(folder: Path) -> dict[str, Any] | None:
    """The JSON of a finished run in ``folder``, or ``None`` where there is none."""
    return _read_json(folder / "model.json")
