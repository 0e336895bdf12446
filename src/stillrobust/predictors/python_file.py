"""Your own model: a Python file with one function ``create()`` that returns ``predict``."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from stillrobust.errors import UserError
from stillrobust.predictors.predictor import Predictor
from stillrobust.user_files import USER_CODE_ERRORS, error_summary, run_file

EXPECTED = (
    "one function create() that returns predict(images: list of uint8 (H, W, 3) RGB) -> list of"
    " Prediction"
)


def load_file_predictor(path: Path, task: str) -> Predictor:
    """The model that ``path`` makes. The file is run as it is: it is your code.

    Optional names in it: ``CLASSES``, the model's classes in the order of its labels, so that data
    with others is refused; ``MASKS = False`` for a detector of boxes only; ``WEIGHTS``, the path
    (or paths) of what it loads, relative to the file, whose content then decides with the file's
    own whether a number has been measured before.
    """
    module = _run(path)
    if not callable(getattr(module, "create", None)):
        raise UserError(f"Expected {EXPECTED} in {path}, but there is no create(); add it")
    try:
        predict = module.create()
    except USER_CODE_ERRORS as error:
        raise UserError(
            f"Expected {EXPECTED} in {path}, but create() failed: {error_summary(error)}"
        ) from error
    if not callable(predict):
        raise UserError(
            f"Expected {EXPECTED} in {path}, but create() returned {type(predict).__name__};"
            " correct create()"
        )
    classes = getattr(module, "CLASSES", None)
    return Predictor(
        task=task,
        model=path.stem,
        predict=predict,
        weights=_digest(path, getattr(module, "WEIGHTS", ())),
        classes=None if classes is None else tuple(str(name) for name in classes),
        masks=bool(getattr(module, "MASKS", True)),
        about={"file": path.name},
    )


def _run(path: Path) -> ModuleType:
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"Expected a Python file with {EXPECTED}, but got {path}; check the path")
    return run_file(path, path.read_bytes(), EXPECTED)


def _digest(path: Path, weights: Any) -> str:
    total = hashlib.sha256(path.read_bytes())
    listed: Sequence[Any] = weights if isinstance(weights, list | tuple) else (weights,)
    for name in listed:
        file = path.parent / str(name)
        try:
            with file.open("rb") as opened:
                total.update(hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            raise UserError(
                f"Expected the file {file} that WEIGHTS in {path} names, but {error.strerror};"
                " correct it"
            ) from None
    return total.hexdigest()
