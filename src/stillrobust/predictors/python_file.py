"""Models in Python files with a function ``create()`` that returns ``predict``."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillrobust.errors import UserError
from stillrobust.predictors.predictor import Predictor
from stillrobust.samples import DatasetInfo
from stillrobust.storage.files import file_sha256
from stillrobust.untrusted import read_user_file
from stillrobust.user_files import error_summary, run_user_file

EXPECTED = (
    "one function create() that returns predict(images: list of uint8 (H, W, 3) RGB) -> list of"
    " Prediction"
)


def create_predictor(info: DatasetInfo, name: str) -> Predictor:
    """Run a Python file and call its ``create()``. The file is the user's code and runs as it is.

    Optional names in the file: ``CLASSES``, the classes in the order of the labels; ``MASKS =
    False`` for a detector of boxes only; ``WEIGHTS``, the path or paths of the files that it loads,
    relative to the file. Their content becomes part of the keys of cells.

    Args:
        info: Description of the dataset.
        name: Path of the file.

    Raises:
        UserError: If the file does not exist, fails, or has no valid ``create()``.
    """
    path = Path(name).expanduser()
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"Expected a Python file with {EXPECTED}, but got {path}; check the path")
    module = run_user_file(path, read_user_file(path, "a Python file"), EXPECTED)
    if not callable(getattr(module, "create", None)):
        raise UserError(f"Expected {EXPECTED} in {path}, but there is no create(); add it")
    try:
        predict = module.create()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(
            f"Expected {EXPECTED} in {path}, but create() failed: {error_summary(error)}"
        ) from error
    if not callable(predict):
        raise UserError(
            f"Expected {EXPECTED} in {path}, but create() returned {type(predict).__name__};"
            " correct create()"
        )
    classes = getattr(module, "CLASSES", None)
    if not isinstance(classes, list | tuple | None):
        raise UserError(
            f"Expected a list of names as CLASSES in {path}, but got {type(classes).__name__};"
            " correct it"
        )
    masks = getattr(module, "MASKS", True)
    if type(masks) is not bool:
        raise UserError(f"Expected True or False as MASKS in {path}, but got {masks!r}; correct it")
    return Predictor(
        task=info.task,
        model=path.stem,
        predict=predict,
        weights=_digest(path, getattr(module, "WEIGHTS", ())),
        classes=None if classes is None else tuple(str(name) for name in classes),
        masks=masks,
        about={"file": path.name},
    )


def _digest(path: Path, weights: Any) -> str:
    total = hashlib.sha256(read_user_file(path, "a Python file"))
    listed: Sequence[Any] = weights if isinstance(weights, list | tuple) else (weights,)
    for name in listed:
        file = path.parent / str(name)
        try:
            total.update(bytes.fromhex(file_sha256(file)))
        except OSError as error:
            raise UserError(
                f"Expected the file {file} that WEIGHTS in {path} names, but {error.strerror};"
                " correct it"
            ) from None
    return total.hexdigest()
