"""Predictors: finished models from any library.

A spec is ``my_model.py``, ``KIND:NAME`` or ``KIND:NAME(argument=literal, ...)`` with a kind of
:data:`PREDICTORS`. Each kind is a module with a function ``create_predictor(info, name, ...)``.
Only the models load torch; the validation of predictions does not.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stillrobust.errors import UserError
from stillrobust.extras import require_extra
from stillrobust.names import lookup, parse_spec
from stillrobust.predictors.predictor import Predict, Predictor
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


def __getattr__(name: str) -> Any:
    """Import what loads trained models, and with it torch, on first use."""
    if name == "load_run_predictor":
        require_extra("torch")
        from stillrobust.predictors import trained_run

        return trained_run.load_run_predictor
    raise AttributeError(f"module 'stillrobust.predictors' has no attribute {name!r}")


def open_predictor(spec: str, info: DatasetInfo) -> Predictor:
    """Load the model that a spec names.

    Args:
        spec: ``my_model.py``, ``KIND:NAME`` or ``KIND:NAME(argument=literal, ...)``.
        info: Description of the dataset; the model's classes are matched to it.

    Raises:
        UserError: If the model does not exist, does not fit the dataset, or its library is missing.
    """
    require_extra("torch")
    arguments: Mapping[str, object] = {}
    if spec.endswith(".py"):
        kind, name = "file", spec.removeprefix("file:")
    else:
        kind, _, rest = spec.partition(":")
        if not rest:
            listed = ", ".join(f"{name}:NAME" for name in PREDICTORS if name != "file")
            raise UserError(
                f"Expected a model as FILE.py or one of {listed}, but got {spec!r}; see"
                " docs/models.md"
            )
        lookup("kind of model", kind, PREDICTORS)
        name, arguments = parse_spec(rest)
    try:
        module = importlib.import_module(f"stillrobust.predictors.{PREDICTORS[kind]}")
        predictor: Predictor = module.create_predictor(info, name, **arguments)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{spec} needs the package {error.name}; run: pip install 'stillrobust[{kind}]'"
        ) from None
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise UserError(f"{spec} has an argument that {kind} models do not take: {error}") from None
    return predictor
