"""How kernels are compiled: with a cache on disk, and without the interpreter's lock."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba

# This pass adds the four channels of a pixel as one vector. It makes zoom_blur twice as fast.
numba.config.SLP_VECTORIZE = 1

kernel: Callable[[Any], Any] = numba.njit(cache=True, nogil=True, error_model="numpy")
"""Strict IEEE arithmetic: nothing is reordered or fused, so all processors give the same pixels."""
inline_kernel: Callable[[Any], Any] = numba.njit(inline="always", error_model="numpy")


def remove_stale_cache(folder: Path) -> None:
    """Remove cached code that is older than any source in ``folder``.

    numba compares a kernel with its own file only, but machine code also holds copies of the
    kernels that it calls.

    Args:
        folder: Folder of the sources, with the cache in ``__pycache__``.
    """
    newest = max(source.stat().st_mtime_ns for source in folder.glob("*.py"))
    for index in folder.glob("__pycache__/*.nbi"):
        with suppress(OSError):  # another process was faster, or the folder is read-only
            if index.stat().st_mtime_ns < newest:
                index.unlink()


remove_stale_cache(Path(__file__).parent)
