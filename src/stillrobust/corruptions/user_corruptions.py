"""User corruptions: a Python file with one function ``corrupt(image, severity, rng)``.

They are reported beside the 15 common corruptions and never enter mPC.
"""

from functools import lru_cache, partial

import numpy as np

from stillrobust.corruptions.draws import Key, Rng
from stillrobust.errors import UserError
from stillrobust.samples import Image
from stillrobust.user_files import error_summary, file_name, load_user_module

EXPECTED = (
    "one function corrupt(image uint8 (H, W, 3) RGB, severity 1 to 5, rng np.random.Generator) ->"
    " uint8 (H, W, 3)"
)
CHECK_SIZE = (224, 224)
"""(H, W) of the image that a file is tried on before the evaluation."""


def load_user_corruption(spec: str) -> "partial[Image]":
    """Load a file's corruption.

    Args:
        spec: Path of the file, pinned to its content.

    Returns:
        ``(image, severity, rng, regime) -> image``. It can be pickled, and ignores ``regime``.

    Raises:
        UserError: If the file has no function ``corrupt``.
    """
    if not callable(getattr(load_user_module(spec, EXPECTED), "corrupt", None)):
        raise UserError(
            f"Expected {EXPECTED} in {file_name(spec)}, but there is no corrupt(); add it"
        )
    return partial(_corrupt, spec)


@lru_cache(maxsize=64)
def check_user_corruption(spec: str) -> None:
    """Try a file on an image at severities 1 and 5, twice with the same draws.

    Raises:
        UserError: If it fails, or the two results differ.
    """
    function = load_user_corruption(spec)
    image = np.random.default_rng(0).integers(0, 256, (*CHECK_SIZE, 3), dtype=np.uint8)
    for severity in (1, 5):
        first, second = (
            function(image, severity, Key(tuple(range(8))), "imagenet") for _ in range(2)
        )
        if not np.array_equal(first, second):
            raise UserError(
                f"Expected the same image twice from corrupt() in {file_name(spec)} for the same"
                f" rng, but they differ at severity {severity}; draw every random number from rng"
            )


def _corrupt(spec: str, image: Image, severity: int, rng: Rng, regime: str) -> Image:
    words = rng.words if isinstance(rng, Key) else rng.randint(0, 2**32, 8, np.uint64).tolist()
    where = f"{file_name(spec)} at severity {severity} on an image uint8 {image.shape}"
    try:
        result = load_user_module(spec, EXPECTED).corrupt(
            image.copy(), severity, np.random.default_rng(words)
        )
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(
            f"Expected an image of the same kind from corrupt() in {where}, but it raised"
            f" {error_summary(error)}; correct it there"
        ) from error
    is_array = isinstance(result, np.ndarray)
    if not is_array or result.dtype != np.uint8 or result.shape != image.shape:
        got = f"{result.dtype} {result.shape}" if is_array else type(result).__name__
        raise UserError(
            f"Expected an image of the same kind from corrupt() in {where}, but got {got}; "
            "keep the size, then round, clip to 0..255 and convert to uint8"
        )
    return np.ascontiguousarray(result)
