"""Reading weight files that strangers made: safetensors, or ``torch.load(weights_only=True)``, never anything else."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stillrobust.errors import UserError

State = dict[str, torch.Tensor]
CONTAINERS = ("state_dict", "model_state_dict", "model")
"""Where published checkpoints keep their weights: PyTorch Lightning and DeepAugment, ANT, MadryLab and Swin."""


def read_state(path: Path) -> State:
    """The tensors of a weight file, by name. Raises ``UserError`` in one sentence for anything that is not one."""
    if not path.is_file():
        raise UserError(f"Expected a weight file at {path}, but there is none; check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or hostile file provokes is one and the same thing to the user
        raise UserError(
            f"Expected weights in {path} (safetensors, or a PyTorch file that holds tensors only), but it cannot be read "
            f"safely: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}"
        ) from None
    return unwrap(content, path)


def unwrap(content: Any, path: Path) -> State:
    """The tensors inside a container such as ``{"state_dict": {...}, "epoch": 90}``."""
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"Expected a dict of tensors in {path}, but got {type(content).__name__}")
    state = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if len(state) != len(content):
        raise UserError(f"Expected tensors only in {path}, but {len(content) - len(state)} entries are something else")
    return state


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and bytes: the identity of weights, whatever file they came from."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def load_strictly(model: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str, may_have: tuple[str, ...] = ()) -> int:
    """Load ``state`` into ``model``; every tensor must match by name and shape.

    ``may_have``: prefixes of keys that the file may hold and the model need not (an upstream classifier, say).
    Returns the number of tensors loaded. Raises ``UserError`` naming what is missing, left over or of another shape.
    """
    own = model.state_dict()
    optional = {name for name in own if name.endswith("num_batches_tracked")}  # absent in files older than PyTorch 0.4.1
    missing = sorted(own.keys() - state.keys() - optional)
    extra = sorted(name for name in state.keys() - own.keys() if not name.startswith(may_have or ("\0",)))
    shapes = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    if missing or extra or shapes:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
            for what, names in (("missing", missing), ("left over", extra), ("of another shape", shapes))
            if names
        ]
        raise UserError(f"Expected weights that fit the model exactly, but in {source} the tensors are {'; '.join(parts)}")
    model.load_state_dict({name: value for name, value in state.items() if name in own}, strict=not optional)
    return len(own.keys() & state.keys())
