"""Which ``.pt`` files of Ultralytics may be unpickled: those that run no code of their own.

Such a file is a pickle of a whole model, so Ultralytics has to unpickle it. Before that, its names
are collected without importing any. Allowed are the layers of torch and Ultralytics, which are made
without their constructors, and the functions that rebuild tensors and arrays.
"""

import io
import re
from pathlib import Path

from stillrobust.backbones.pickles import RefusedFileError, pickled_names
from stillrobust.backbones.reader import seek_pickle
from stillrobust.errors import UserError
from stillrobust.untrusted import read_user_file

LARGEST = 4 << 30  # bytes; the largest detector has 250 MB
# only classes: functions of these modules evaluate text and install packages
LAYERS = re.compile(
    r"(torch\.nn\.modules\.\w+|ultralytics\.nn\.(tasks|modules(\.\w+)?)"
    r"|ultralytics\.(yolo\.)?utils(\.loss|\.tal)?) [A-Z]\w*"
)
STORAGES = re.compile(r"torch(\.storage)? [A-Z][A-Za-z0-9]*Storage|torch (b?float|u?int)\d+")
CALLED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch Size",
    "torch device",
    "__builtin__ set",
    "builtins set",
    "pathlib PosixPath",
    "pathlib WindowsPath",
    "pathlib PurePosixPath",
    "numpy dtype",
    "numpy.core.multiarray scalar",
    "numpy._core.multiarray scalar",
    "_codecs encode",
}


def read_safe_checkpoint(path: Path) -> bytes:
    """Read a ``.pt`` file that runs no code when Ultralytics unpickles it.

    Args:
        path: The file.

    Returns:
        Its content, which was checked.

    Raises:
        UserError: If it cannot be read, or names anything else; it says what.
    """
    content = read_user_file(path, "a checkpoint of Ultralytics", LARGEST)
    try:
        file = io.BytesIO(content)
        seek_pickle(file, len(content))
        named, called = pickled_names(file)
    # a broken or hostile file may raise anything
    except Exception as error:
        reason = str(error) if isinstance(error, RefusedFileError) else "it is cut off or damaged"
        raise UserError(
            f"Expected a checkpoint of Ultralytics at {path}, but {reason}; get the file again"
        ) from None
    allowed = {name for name in named if LAYERS.fullmatch(name) or STORAGES.fullmatch(name)}
    if foreign := sorted((named - allowed - CALLED) | (called - CALLED)):
        name = foreign[0].replace(" ", ".")[:100] or "an object that it computes"
        raise UserError(
            f"Expected only layers of Ultralytics and torch in {path}, but it needs {name}, which"
            " may run any code; export the model to ONNX where you trust it"
        )
    return content
