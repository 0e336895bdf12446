"""Models of any make, ready to be measured: runs of ours, a Python file of yours, and what other
libraries have.

A spec is ``my_model.py``, or ``LIBRARY:NAME`` or ``LIBRARY:NAME(argument=literal, ...)`` with a
library of ``LIBRARIES``.
"""

from stillrobust.extras import require_extra

require_extra("torch")

import importlib
from collections.abc import Mapping
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.names import lookup, parse_spec
from stillrobust.predictors.predictor import Predict, Predictor, checked
from stillrobust.predictors.python_file import predictor_of_file
from stillrobust.samples import DatasetInfo
from stillrobust.training import load_model

__all__ = [
    "LIBRARIES",
    "Predict",
    "Predictor",
    "checked",
    "open_predictor",
    "predictor_of_file",
    "predictor_of_run",
]

LIBRARIES: Mapping[str, tuple[str, str]] = {
    "torchvision": ("torchvision_models", "torchvision_predictor"),
    "timm": ("timm_classifiers", "timm_predictor"),
    "transformers": ("transformers_models", "transformers_predictor"),
    "ultralytics": ("ultralytics_models", "ultralytics_predictor"),
    "onnx": ("onnx_models", "onnx_predictor"),
}
"""Library -> its module here and the function in it; imported when asked for, since each is an
extra of its own.
"""


def open_predictor(spec: str, info: DatasetInfo) -> Predictor:
    """The model that ``spec`` names, for data like ``info``.

    Raises ``UserError`` where it is not there or does not fit.
    """
    if spec.endswith(".py"):
        return predictor_of_file(Path(spec).expanduser(), info.task)
    library, colon, rest = spec.partition(":")
    if not colon or not rest:
        listed = ", ".join(f"{name}:NAME" for name in LIBRARIES)
        raise UserError(
            f"Expected a model as FILE.py or one of {listed}, but got {spec!r}; see docs/models.md"
        )
    module, function = lookup("library of models", library, LIBRARIES)
    name, arguments = parse_spec(rest)
    try:
        make = getattr(importlib.import_module(f"stillrobust.predictors.{module}"), function)
        predictor: Predictor = make(info, name, **arguments)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{spec} needs the package {error.name}; run: pip install 'stillrobust[{library}]'"
        ) from None
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise UserError(
            f"{spec} has an argument that {library} models here do not take: {error}"
        ) from None
    return predictor


def predictor_of_run(folder: Path) -> Predictor:
    """The finished run in ``folder``, on the GPU where there is one."""
    import torch

    task, model, description = load_model(folder)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    plan = description["plan"]
    made_by = {"made_by": plan["made_by"]} if plan.get("made_by") else {}
    return Predictor(
        task=task.name,
        model=plan["shown"],
        predict=lambda images: task.predict(model, images),
        weights=description["sha256"],
        classes=tuple(description["info"]["classes"]),
        masks=bool(description["info"]["has_masks"]),
        transfer=plan["transfer"],
        about={"training": description["identity"], **made_by, "loaded": description["loaded"]},
    )
