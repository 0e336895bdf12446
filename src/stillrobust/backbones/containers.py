"""Where in a file the weights are: its entries, and the prefixes that wrappers add to names.

A path names a place in a file: names of nested entries, and beginnings of tensor names, joined by
dots. The paths of ``{"state_dict": {"module.conv1.weight": ...}}`` are ``state_dict`` and
``state_dict.module``.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stillrobust.backbones.file_kinds import SAVE_STATE_DICT
from stillrobust.backbones.pickles import RefusedFileError, TensorRef, Unknown

CONTAINERS = (
    "state_dict",
    "state_dict_ema",
    "model_state_dict",
    "model_state",
    "model",
    "model_ema",
    "ema_state_dict",
    "ema_model",
    "ema",
    "module",
    "net",
    "network",
    "backbone",
    "encoder",
    "teacher",
    "student",
    "target_encoder",
    "params",
    "params_ema",
    "weights",
)
"""Entries that hold weights by convention: of Lightning, ANT, Swin, timm, DINO, DeepSpeed, ..."""
PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "network.",
    "backbone.",
    "encoder.",
    "encoder_q.",
    "encoder_k.",
    "base_encoder.",
    "momentum_encoder.",
    "teacher.",
    "student.",
    "trunk.",
    "resnet.",
    "swin.",
    "vit.",
    "deit.",
    "dinov2.",
    "dinov2_with_registers.",
    "convnext.",
    "vision_model.",
    "visual.",
    "params.",
    "img.",
    "opt.",
    "target.",
)
"""What DataParallel, torch.compile, Lightning, OpenMMLab, MoCo, transformers, CLIP, big_vision, ...
add to names.
"""
MAX_DEPTH = 8  # of nested entries
MAX_LISTED = 8  # places in an error
_OPTIMIZER = {"state", "param_groups"}
_AVERAGED = "n_averaged"  # the counter of torch.optim.swa_utils.AveragedModel
_LISTS_OF_EMA = ("shadow_params", "collected_params")  # torch_ema has no names


class AmbiguousFileError(RefusedFileError):
    """A file holds several sets of weights, and nothing says which one is meant."""


@dataclass(frozen=True)
class Found:
    """Tensors of a file, and the place where they are."""

    tensors: Mapping[str, Any]
    path: str
    """Empty for the file itself."""


def find_state(content: Any, key: str = "") -> Found:
    """Find the weights in what a file holds.

    Args:
        content: Nested dicts, with tensors or their descriptions.
        key: The path of the weights, or of the entry that they are in; empty to find them.

    Returns:
        The tensors by the names that they have there, and their path.

    Raises:
        RefusedFileError: If there are none; it says what was found.
        AmbiguousFileError: If there are several; it lists their paths.
    """
    path = ""
    if key:
        content, path = _follow(content, key), key
    for _ in range(MAX_DEPTH):
        if not isinstance(content, Mapping) or not content:
            raise _no_weights(content, path)
        names = _candidates(content)
        if len(names) > 1:
            raise ambiguity([join_path(path, name) for name in names])
        if not names:
            return Found(_named_tensors(content, path), path)
        content, path = content[names[0]], join_path(path, names[0])
    raise RefusedFileError("its entries are nested too deeply")


def ambiguity(paths: Collection[str]) -> AmbiguousFileError:
    """The error for a file with several sets of weights, or with other tensors beside one.

    Args:
        paths: Where the weights are.
    """
    first = next(iter(paths))
    found = "several sets of weights" if len(paths) > 1 else "other tensors beside the weights"
    return AmbiguousFileError(
        f"it holds {found} ({_listed(paths)})",
        f"choose one in the spec, such as weights='FILE', key={first!r}",
    )


def _candidates(content: Mapping[Any, Any]) -> list[str]:
    """Names of the entries that may be the weights; empty if the content itself is a state dict."""
    texts = {name: value for name, value in content.items() if isinstance(name, str)}
    seen: set[int] = set()  # one value under two names counts once
    known = [name for name in CONTAINERS if _holds_weights(texts.get(name), seen)]
    if known:
        return known
    if any(is_tensor(value) for value in texts.values()):
        return []
    return [name for name, value in texts.items() if _holds_weights(value, seen)]


def _holds_weights(value: Any, seen: set[int], depth: int = 0) -> bool:
    """Whether a value not seen yet is a state dict, or has one or a pickled model inside."""
    if depth > MAX_DEPTH or id(value) in seen:
        return False
    if isinstance(value, Unknown):
        seen.add(id(value))
        return value.holds_model
    if not isinstance(value, Mapping) or value.keys() >= _OPTIMIZER:
        return False
    seen.add(id(value))
    return any(isinstance(name, str) and is_tensor(one) for name, one in value.items()) or any(
        _holds_weights(value.get(name), seen, depth + 1) for name in CONTAINERS
    )


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor, or the description of one."""
    return isinstance(value, TensorRef | torch.Tensor)


def _follow(content: Any, key: str) -> Any:
    """The content at a path: an entry, or the tensors whose names begin so."""
    rest = key
    while isinstance(content, Mapping) and rest:
        if rest in content:
            return content[rest]
        entries = [
            name
            for name, value in content.items()
            if isinstance(name, str) and rest.startswith(f"{name}.") and isinstance(value, Mapping)
        ]
        if not entries:
            beginning = f"{rest}."
            inside = {
                name.removeprefix(beginning): value
                for name, value in content.items()
                if isinstance(name, str) and name.startswith(beginning)
            }
            if inside:
                return inside
            break
        entry = max(entries, key=len)
        content, rest = content[entry], rest.removeprefix(f"{entry}.")
    names = [name for name in content if isinstance(name, str)] if isinstance(content, dict) else []
    raise RefusedFileError(
        f"it has nothing under the key {key!r} (it has {_listed(names) or 'no names'})",
        "name an entry of the file with key=..., or leave it out",
    )


def _named_tensors(content: Mapping[Any, Any], path: str) -> dict[str, Any]:
    """The tensors of a state dict. Plain numbers and text beside them are left out."""
    tensors = {str(name): value for name, value in content.items() if is_tensor(value)}
    for name, value in content.items():
        if isinstance(value, Unknown) and tensors:
            raise RefusedFileError(f"its {str(name)[:60]!r} is {_describe(value)}", _ADVICE)
    if not tensors:
        raise _no_weights(content, path)
    counter = tensors.get(_AVERAGED)
    if counter is not None and len(tensors) > 1:
        del tensors[_AVERAGED]
    return tensors


_ADVICE = "save the state_dict() as float tensors of PyTorch, which hold no other objects"


def _describe(value: Unknown) -> str:
    name = value.name
    if value.holds_model:
        return f"a pickled model or average of one ({name})"
    if "numpy" in name:
        return "an array of NumPy and no tensor"
    return f"stored as {name}, which is not read" if name else "no tensor"


def _no_weights(content: Any, path: str) -> RefusedFileError:
    """Say what a file without weights holds."""
    where = f" under {path!r}" if path else ""
    if isinstance(content, Unknown):
        if content.holds_model:
            return RefusedFileError(
                f"it holds a whole pickled model{where} ({content.name}) instead of a state dict",
                SAVE_STATE_DICT,
            )
        return RefusedFileError(f"what it holds{where} is {_describe(content)}", _ADVICE)
    if is_tensor(content):
        return RefusedFileError(f"it holds one tensor without a name{where}", _ADVICE)
    if not isinstance(content, Mapping):
        return RefusedFileError(
            f"it holds a {type(content).__name__}{where} and no tensors by name", _ADVICE
        )
    if any(name in content for name in _LISTS_OF_EMA):
        return RefusedFileError(
            f"it holds averaged weights{where} as a list without names",
            "copy them into the model, and save its state_dict()",
        )
    if content.keys() >= _OPTIMIZER or any(
        isinstance(value, Mapping) and value.keys() >= _OPTIMIZER for value in content.values()
    ):
        return RefusedFileError(
            f"it holds the state of an optimizer{where} and no weights",
            "give the file that the model was saved in",
        )
    for name, value in content.items():
        if isinstance(value, Unknown):
            return RefusedFileError(
                f"it has no tensors by name{where}: its {str(name)[:60]!r} is {_describe(value)}",
                _ADVICE,
            )
    return RefusedFileError(f"it holds no tensors by name{where}", _ADVICE)


def strip_prefixes(found: Found, expected: Collection[str]) -> Found:
    """Remove the prefixes of wrappers from names, as often as all names have one.

    Args:
        found: Tensors of a file.
        expected: Names that end the search: the first one that is in the file is no wrapper's.

    Returns:
        The tensors by their shorter names, and their path.
    """
    tensors, path = found.tensors, found.path
    while not any(name in tensors for name in expected):
        prefix = next(
            (one for one in PREFIXES if all(name.startswith(one) for name in tensors)), None
        )
        if prefix is None or prefix in tensors:
            break
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        path = join_path(path, prefix.removesuffix("."))
    return Found(tensors, path)


def prefixes_before(name: str, names: Collection[str]) -> Iterator[str]:
    """Iterate over the prefixes of wrappers under which a tensor is in a file.

    Args:
        name: The tensor's name in the model.
        names: Names in the file; not all need the prefix.

    Yields:
        Prefixes, with their dot at the end; empty for the name as it is.
    """
    for found in names:
        if found.endswith(name):
            rest = prefix = found[: len(found) - len(name)]
            while part := next((one for one in PREFIXES if rest.startswith(one)), ""):
                rest = rest.removeprefix(part)
            if not rest:
                yield prefix


def join_path(path: str, name: str) -> str:
    """The path of an entry, or of the names with a prefix, below a path."""
    return f"{path}.{name}" if path else name


def _listed(names: Collection[str]) -> str:
    shown = [repr(name[:60]) for name in list(names)[:MAX_LISTED]]
    return ", ".join(shown) + (", ..." if len(names) > MAX_LISTED else "")
