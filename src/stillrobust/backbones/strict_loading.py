"""Strict loading: every tensor of a model comes from the file, by name and shape, and is finite."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from stillrobust.backbones.containers import (
    Found,
    ambiguity,
    join_path,
    prefixes_before,
    strip_prefixes,
)
from stillrobust.backbones.reader import read_weights, unreadable_error
from stillrobust.errors import UserError
from stillrobust.untrusted import printable

MAX_NAMES = 6  # of tensors in an error
MAX_NAME_LENGTH = 80


def load_weight_file(model: nn.Module, path: Path, key: str = "") -> None:
    """Load a weight file into a model. Prefixes that wrappers add to all names are removed.

    Args:
        model: The model to load into, on the CPU.
        path: A safetensors or PyTorch file.
        key: Path of the weights in the file, such as ``model_ema``; empty to find them.

    Raises:
        UserError: If the file cannot be read safely, or does not fit the model.
    """
    weights = read_weights(path.expanduser(), key)
    own = list(model.state_dict())
    found = strip_prefixes(Found(weights.tensors, weights.place), own)
    prefixes = {prefix for name in own[:1] for prefix in prefixes_before(name, found.tensors)}
    if prefixes and "" not in prefixes:
        places = [join_path(found.path, prefix[:-1]) for prefix in sorted(prefixes)]
        raise unreadable_error(path, ambiguity(places))
    load_strictly(model, found.tensors, str(path))


def require_key(key: object, source: str = "") -> str:
    """Check the ``key`` of a spec: the path of the weights in a file.

    Args:
        key: The argument of the spec; ``None`` without one.
        source: What the weights are, if they are no file.

    Returns:
        The path; empty to find it.

    Raises:
        UserError: If it is no text, or there is no file that it could be about.
    """
    if key is None:
        return ""
    if not isinstance(key, str) or not key:
        raise UserError(
            f"Expected key=... as the name of an entry of the weight file, but got {key!r}; write"
            " it like key='model_ema'"
        )
    if source:
        raise UserError(
            f"key={key!r} chooses an entry of a weight file, but weights={source!r} is no file;"
            " give a file, or leave out the key"
        )
    return key


def load_strictly(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    may_lack: tuple[str, ...] = (),
) -> int:
    """Load tensors into a model; every tensor must match by name and shape.

    Values are checked as the model holds them, after their conversion to its types.

    Args:
        model: The model to load into. Unchanged if anything is wrong.
        state: Tensors by name.
        source: Name of the file for messages.
        may_lack: Beginnings of names that ``state`` need not have; the model keeps its own values.

    Returns:
        The number of tensors loaded.

    Raises:
        UserError: If tensors are missing, left over, of another shape or kind, not finite, or
            negative variances. It names them.
    """
    own = model.state_dict()
    # files older than PyTorch 0.4.1 have no batch counters; position indices are computed
    optional = {
        name for name in own if name.endswith(("num_batches_tracked", "relative_position_index"))
    }
    optional |= {name for name in own if may_lack and name.startswith(may_lack)}
    missing = sorted(own.keys() - state.keys() - optional)
    extra = sorted(state.keys() - own.keys())
    shapes = sorted(
        name for name in own.keys() & state.keys() if own[name].shape != state[name].shape
    )
    if missing or extra or shapes:
        raise _misfit_error(own, state, source, missing, extra, shapes)
    _refuse_whole_numbers(own, state, source)
    converted = {name: value.to(own[name].dtype) for name, value in state.items()}
    _refuse_impossible_values(state, converted, source)
    model.load_state_dict(converted, strict=False)
    return len(state)


def require_possible_values(model: nn.Module, source: str) -> None:
    """Check the values of a model whose weights another library loaded.

    Args:
        model: The model.
        source: Name of its file or folder, for messages.

    Raises:
        UserError: If weights are not finite, or variances negative. It names them.
    """
    state = model.state_dict()
    _refuse_impossible_values(state, state, source)


def _misfit_error(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    source: str,
    missing: Sequence[str],
    extra: Sequence[str],
    shapes: Sequence[str],
) -> UserError:
    parts = [
        f"{len(names)} {what} ({tensor_names(names)})"
        for what, names in (("missing", missing), ("left over", extra))
        if names
    ]
    if shapes:
        first = shapes[0]
        parts.append(
            f"{len(shapes)} of another shape ({tensor_names(shapes)};"
            f" {tensor_names([first])} is {tuple(state[first].shape)} instead of"
            f" {tuple(own[first].shape)})"
        )
    return UserError(
        f"Expected weights that fit the model exactly, but of {len(state)} tensors in {source} and"
        f" {len(own)} of the model, there are {'; '.join(parts)}:"
        f" {_likely_cause(own, state, missing, extra, shapes)}"
    )


def _likely_cause(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    missing: Sequence[str],
    extra: Sequence[str],
    shapes: Collection[str],
) -> str:
    """What is probably wrong, and what to do, for the end of a sentence."""
    fitting = len(own.keys() & state.keys()) - len(shapes)
    if fitting * 2 < len(own):
        return (
            "this is probably another architecture; take a file of this architecture, or name the"
            " one that the file belongs to"
        )
    # a classifier's classes are the first dimension of its weight and its bias
    if (
        shapes
        and not missing
        and not extra
        and all(state[name].shape[1:] == own[name].shape[1:] for name in shapes)
    ):
        theirs, ours = (values[min(shapes)].shape[0] for values in (state, own))
        return (
            f"the file probably has another number of classes ({theirs} outputs instead of {ours});"
            f" give classes={theirs} in the spec of the model, or take another file"
        )
    if missing and not extra and not shapes:
        return (
            "the file probably holds a part of the model, such as a backbone without its head; take"
            " a file of the whole model"
        )
    if extra and not missing and not shapes:
        return (
            "the file probably holds more than this model; name the architecture that it belongs"
            " to, or choose a part of the file with key=..."
        )
    return (
        "this is probably a variant of the architecture; name the one that the file belongs to, or"
        " take another file"
    )


def _refuse_whole_numbers(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str
) -> None:
    """Refuse integers where the model has floats: quantised weights, whose scale is not applied."""
    whole = sorted(
        name
        for name, value in state.items()
        if own[name].is_floating_point() and not value.is_floating_point()
    )
    if whole:
        raise UserError(
            f"Expected floating-point weights in {source}, but {len(whole)} tensors hold"
            f" {state[whole[0]].dtype} ({tensor_names(whole)}), as quantised models do; take the"
            " weights from before the quantisation"
        )


def _refuse_impossible_values(
    state: Mapping[str, Tensor], converted: Mapping[str, Tensor], source: str
) -> None:
    """Refuse NaN, infinity and negative variances, before and after the conversion."""
    if wild := sorted(
        name
        for name, value in converted.items()
        if not (_is_finite(value) and _is_finite(state[name]))
    ):
        large = _is_finite(state[wild[0]])
        raise UserError(
            f"Expected finite weights in {source}, but"
            f" {'a value beyond float32' if large else 'NaN or infinity'} is in"
            f" {tensor_names(wild)}; get the file again, or take one of a training that did not"
            " diverge"
        )
    if negative := sorted(
        name
        for name, value in converted.items()
        if name.endswith("running_var") and bool((value < 0).any())
    ):
        raise UserError(
            f"Expected variances of at least 0 in {source}, but negative ones are in"
            f" {tensor_names(negative)}; get the file again, or take one of a training that did not"
            " diverge"
        )


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def tensor_names(names: Sequence[str]) -> str:
    """The first few names of tensors as printable text, for messages."""
    clean = [printable(name)[:MAX_NAME_LENGTH] for name in names[:MAX_NAMES]]
    return ", ".join(clean) + (", ..." if len(names) > MAX_NAMES else "")
