"""Files of a run: weights as safetensors, with a description as JSON beside them.

An unfinished training resumes from ``resume.json`` and ``resume-<digest>.safetensors``. A finished
run is ``model.json`` and ``model.safetensors``. The JSON file is written last, with checksums of
the weights and of itself, so that its presence means a complete pair. A damaged pair is renamed to
``*.damaged`` with a warning. The process that writes holds the lease on the folder.
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
from safetensors.torch import save_file
from torch import Tensor, nn

from stillrobust.backbones.reader import read_weights
from stillrobust.errors import UserError
from stillrobust.samples import DatasetInfo
from stillrobust.storage.files import (
    LEFTOVER,
    cached_file_sha256,
    clear_leftovers,
    content_key,
    file_matches,
    flush_to_disk,
    make_folder,
    move_into_place,
    set_aside,
    temporary_path,
    write_whole,
)
from stillrobust.untrusted import parse_json, read_regular_file

RESUME_WEIGHTS = "resume-*.safetensors"
SAFETENSORS_TEMPORARY = ".tmp??????"  # safetensors writes into such a file, then renames it


def _cannot_read(path: Path, error: OSError) -> UserError:
    return UserError(
        f"Cannot read {path} ({error.strerror or error}); what was finished is kept: start again"
        " when the folder is there"
    )


def _weights_of(folder: Path, name: str, sha256: str) -> Path:
    """Weights to resume from are named by their content: no JSON file points at other weights."""
    return folder / (
        f"{name}.safetensors" if name == "model" else f"{name}-{sha256[:16]}.safetensors"
    )


def _write_pair(
    folder: Path, name: str, tensors: Mapping[str, Tensor], description: dict[str, Any]
) -> Path:
    """Write the weights, then ``name.json`` with their checksum; returns the weights' path."""
    written = temporary_path(folder / f"{name}.safetensors")
    try:
        make_folder(folder)
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, written
        )
        with written.open("rb") as file:
            flush_to_disk(file)
        description = {**description, "sha256": cached_file_sha256(written)}
        weights = _weights_of(folder, name, description["sha256"])
        if name == "model":
            # describes an earlier run, whose weights are replaced now
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
    """The content of a sealed JSON file; a damaged one is set aside."""
    try:
        content = read_regular_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _cannot_read(path, error) from None
    try:
        description = parse_json(content)
        seal = description.pop("seal")
        if description.keys() >= {"identity", "sha256"} and seal == content_key(description):
            return dict(description)
    except (ValueError, AttributeError, KeyError):
        pass
    set_aside(path, "it is half-written or altered")
    return None


def _read_pair(folder: Path, name: str, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The JSON of a pair of this identity; one with damaged weights is set aside."""
    description = _read_json(folder / f"{name}.json")
    if description is None or description["identity"] != identity:
        return None
    weights = _weights_of(folder, name, description["sha256"])
    if file_matches(weights, description["sha256"]):
        return description
    set_aside(folder / f"{name}.json", f"{weights.name} is missing or altered")
    with contextlib.suppress(OSError):
        weights.replace(weights.with_name(f"{weights.name}.damaged"))
    return None


def save_resume_state(
    folder: Path,
    identity: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    step: int,
    companion: Mapping[str, Tensor],
) -> None:
    """Write the state of an unfinished training, and remove the older one.

    Args:
        folder: Folder of the run.
        identity: What decides the weights of the run.
        model: The model that trains.
        optimizer: Its optimizer.
        precision: Fabric's precision, with the scale of the gradients in half precision.
        step: Steps that are done.
        companion: Tensors of what trains beside the model.

    Raises:
        UserError: If the folder cannot be written.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{index}.{key}": v for key, v in values.items() if isinstance(v, Tensor)
        }
    tensors |= {f"companion.{name}": value for name, value in companion.items()}
    description = {"identity": identity, "step": step, "precision": precision.state_dict()}
    weights = _write_pair(folder, "resume", tensors, description)
    for older in set(folder.glob(RESUME_WEIGHTS)) - {weights}:
        older.unlink(missing_ok=True)


def load_resume_state(
    folder: Path,
    identity: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
) -> tuple[int, dict[str, Tensor]]:
    """Load the state that ``save_resume_state`` wrote for the same identity.

    Args:
        folder: Folder of the run.
        identity: What decides the weights of the run.
        model: The model that trains. Changed in place.
        optimizer: Its optimizer. Changed in place.
        precision: Fabric's precision. Changed in place.

    Returns:
        Steps that are done, and the tensors of what trains beside the model; 0 and nothing without
        a state.

    Raises:
        UserError: If the weights change while they are read.
    """
    description = _read_pair(folder, "resume", identity)
    if description is None:
        return 0, {}
    path = _weights_of(folder, "resume", description["sha256"])
    weights = read_weights(path)
    if weights.sha256 != description["sha256"]:
        raise UserError(
            f"Expected {path} unchanged since its checksum was verified, but it has changed; start"
            " again, and let nothing else write to the folder"
        )
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "companion": {}}
    for key, value in weights.tensors.items():
        part, _, name = key.partition(".")
        parts[part][name] = value
    model.load_state_dict(parts["model"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in parts["optimizer"].items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    precision.load_state_dict(description["precision"])
    return int(description["step"]), parts["companion"]


def write_finished_model(
    folder: Path,
    identity: dict[str, Any],
    plan: dict[str, Any],
    loaded: str,
    model: nn.Module,
    info: DatasetInfo,
) -> None:
    """Write the finished model, and remove the state to resume from.

    Args:
        folder: Folder of the run.
        identity: What decides the weights of the run.
        plan: What ``load_model`` builds the model from.
        loaded: One line on the weights that training started from.
        model: The trained model.
        info: Description of the training data.

    Raises:
        UserError: If the folder cannot be written.
    """
    description = {
        "identity": identity,
        "key": content_key(identity),
        "plan": plan,
        "loaded": loaded,
        "info": dataclasses.asdict(info),
    }
    _write_pair(folder, "model", model.state_dict(), description)
    remove_leftovers(folder, finished=True)


def is_finished(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether the folder holds the complete run of this identity."""
    return _read_pair(folder, "model", identity) is not None


def has_leftovers(folder: Path) -> bool:
    """Whether a killed process left temporary files in the folder of a finished run."""
    return any(LEFTOVER.fullmatch(path.name) for path in folder.iterdir()) or any(
        _disposable_files(folder, finished=True)
    )


def remove_leftovers(folder: Path, finished: bool) -> None:
    """Remove the temporary files of killed processes.

    Args:
        folder: Folder of the run.
        finished: Whether the run is finished; its state to resume from is then removed too.
    """
    clear_leftovers(folder)
    for path in _disposable_files(folder, finished):
        path.unlink(missing_ok=True)


def _disposable_files(folder: Path, finished: bool) -> list[Path]:
    patterns = [SAFETENSORS_TEMPORARY, *(["resume.json", RESUME_WEIGHTS] if finished else [])]
    return [path for pattern in patterns for path in folder.glob(pattern)]


def read_description(folder: Path) -> dict[str, Any] | None:
    """The content of ``model.json`` in ``folder``; ``None`` if there is no finished run."""
    return _read_json(folder / "model.json")
