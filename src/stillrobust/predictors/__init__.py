"""Predictors: finished models from any library.

A spec is a file such as ``my_model.py`` or ``model.onnx``, a folder, a name of torchvision, or
``KIND:NAME`` with a kind of :data:`PREDICTORS`; arguments follow as ``(argument=literal, ...)``.
Each kind is a module with a function ``create_predictor(info, name, ...)``.
Torch is imported when a model is opened.
"""

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillrobust.backbones.library_names import model_names
from stillrobust.errors import UserError
from stillrobust.extras import require_extra
from stillrobust.names import lookup, parse_spec, unknown_name_error
from stillrobust.predictors.predictor import Predict, Predictor, prediction_identity
from stillrobust.predictors.spec_kinds import kind_of
from stillrobust.predictors.validation import validated_predictor
from stillrobust.samples import DatasetInfo

if TYPE_CHECKING:
    from stillrobust.predictors.trained_run import load_run_predictor

__all__ = [
    "PREDICTORS",
    "Predict",
    "Predictor",
    "load_run_predictor",
    "open_predictor",
    "parse_model_spec",
    "validated_predictor",
]

PREDICTORS: Mapping[str, str] = {
    "file": "python_file",
    "torchvision": "torchvision_models",
    "timm": "timm_classifiers",
    "transformers": "transformers_models",
    "ultralytics": "ultralytics_models",
    "onnx": "onnx_models",
}
"""Module of each kind of model. It is imported on first use, because each library is optional."""

KIND = re.compile(r"[a-z_]{2,}")  # not the drive of a path
FILES = ("name", "weights")  # arguments that may be paths; adapters hash the content


def __getattr__(name: str) -> Any:
    """Import what loads trained models, and with it torch, on first use."""
    if name == "load_run_predictor":
        require_extra("torch")
        from stillrobust.predictors import trained_run

        return trained_run.load_run_predictor
    raise AttributeError(f"module 'stillrobust.predictors' has no attribute {name!r}")


def open_predictor(spec: str, info: DatasetInfo) -> Predictor:
    """Load the model that a spec names.

    Everything that the spec says becomes part of the predictor's identity, ``Predictor.weights``:
    another value of an argument is another model. Files count by their content, not their path.

    Args:
        spec: A file, a folder or a name of torchvision, or ``KIND:NAME``; all of them may end with
            ``(argument=literal, ...)``.
        info: Description of the dataset; the model's classes are matched to it.

    Raises:
        UserError: If the model does not exist, does not fit the dataset, or its library is missing.
    """
    kind, name, arguments = parse_model_spec(spec)
    try:
        module = importlib.import_module(f"stillrobust.predictors.{PREDICTORS[kind]}")
    except ModuleNotFoundError as error:
        raise _missing_package(spec, kind, error) from None
    try:
        bound = inspect.signature(module.create_predictor).bind(info, name, **arguments)
    except TypeError as error:
        raise UserError(
            f"{spec} has an argument that {kind} models do not take: {error}; see"
            " docs/reference/models.md"
        ) from None
    bound.apply_defaults()
    try:
        predictor: Predictor = module.create_predictor(*bound.args, **bound.kwargs)
    except ModuleNotFoundError as error:
        raise _missing_package(spec, kind, error) from None
    options = {key: value for key, value in bound.arguments.items() if key != "info"}
    identity = prediction_identity(
        predictor.weights,
        kind=kind,
        options={
            key: "a file" if key in FILES and Path(str(value)).expanduser().exists() else value
            for key, value in options.items()
        },
    )
    return replace(predictor, weights=identity)


def parse_model_spec(spec: str) -> tuple[str, str, dict[str, Any]]:
    """Parse a model spec, and check the names of models of timm and torchvision.

    No library is imported.

    Args:
        spec: As for :func:`open_predictor`.

    Returns:
        A key of ``PREDICTORS``, the name, and the arguments.

    Raises:
        UserError: If the kind, the file or the model does not exist.
    """
    require_extra("torch")
    kind, colon, rest = spec.partition(":")
    if kind not in PREDICTORS or not colon:
        if colon and KIND.fullmatch(kind) and not Path(spec.partition("(")[0]).exists():
            lookup("kind of model", kind, PREDICTORS)
        kind, rest = "", spec
    # brackets in the path of a Python file are characters of the path
    name, arguments = (rest, {}) if rest.endswith(".py") else parse_spec(rest)
    if not kind:
        return kind_of(name), name, arguments
    if kind == "timm" or kind == "torchvision":
        known = model_names(kind)
        if name.partition(".")[0] not in known:
            raise unknown_name_error(f"{kind} model", name, known)
    return kind, name, arguments


def _missing_package(spec: str, kind: str, error: ModuleNotFoundError) -> UserError:
    return UserError(
        f"{spec} needs the package {error.name}; run: pip install 'stillrobust[{kind}]'"
    )
