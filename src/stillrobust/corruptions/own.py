"""A corruption of your own: a Python file with one function ``corrupt(image, severity, rng)``.

It is reported beside the 15 and never enters mPC.
"""

from functools import lru_cache, partial

import numpy as np

from stillrobust.corruptions.draws import Key, Rng
from stillrobust.errors import UserError
from stillrobust.samples import Image
from stillrobust.user_files import USER_CODE_ERRORS, error_summary, file_name, load_user_module

EXPECTED = (
    "one function corrupt(image uint8 (H, W, 3) RGB, severity 1 to 5, rng np.random.Generator) ->"
    " uint8 (H, W, 3)"
)
TRIED_ON = (224, 224)
"""(H, W) of the picture that a file is tried on before anything is measured."""


def own_corruption(spec: str) -> "partial[Image]":
    """The corruption of a pinned file, ``(image, severity, rng, regime) -> image``; it can be
    pickled.

    ``regime`` says nothing to it. Raises ``UserError`` for a file without the function.
    """
    if not callable(getattr(load_user_module(spec, EXPECTED), "corrupt", None)):
        raise UserError(
            f"Expected {EXPECTED} in {file_name(spec)}, but there is no corrupt(); add it"
        )
    return partial(_corrupt, spec)


@lru_cache(maxsize=64)
def require_sound(spec: str) -> None:
    """Try a file on a picture at severities 1 and 5, twice with the same draws; ``UserError``
    unless both times agree.
    """
    function = own_corruption(spec)
    image = np.random.default_rng(0).integers(0, 256, (*TRIED_ON, 3), dtype=np.uint8)
    for severity in (1, 5):
        once, again = (
            function(image, severity, Key(tuple(range(8))), "imagenet") for _ in range(2)
        )
        if not np.array_equal(once, again):
            raise UserError(
                f"Expected the same picture twice from corrupt() in {file_name(spec)} for the same"
                f" rng, but they differ at severity {severity}; draw every random number from rng"
            )


def _corrupt(spec: str, image: Image, severity: int, rng: Rng, regime: str) -> Image:
    words = rng.words if isinstance(rng, Key) else rng.randint(0, 2**32, 8, np.uint64).tolist()
    where = f"{file_name(spec)} at severity {severity} on an image uint8 {image.shape}"
    try:
        made = load_user_module(spec, EXPECTED).corrupt(
            image.copy(), severity, np.random.default_rng(words)
        )
    except USER_CODE_ERRORS as error:
        raise UserError(
            f"Expected an image of the same kind from corrupt() in {where}, but it raised"
            f" {error_summary(error)}; correct it there"
        ) from error
    if not isinstance(made, np.ndarray) or made.dtype != np.uint8 or made.shape != image.shape:
        got = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
        raise UserError(
            f"Expected an image of the same kind from corrupt() in {where}, but got {got}; "
            "keep the size, then round, clip to 0..255 and convert to uint8"
        )
    return np.ascontiguousarray(made)
