"""How kernels are compiled: machine code is kept on disk, and the interpreter's lock is free while
it runs.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba

# Pixels of four channels are added as one vector only with this pass; zoom_blur is twice as fast
# with it.
numba.config.SLP_VECTORIZE = 1

kernel: Callable[[Any], Any] = numba.njit(cache=True, nogil=True, error_model="numpy")
"""Strict IEEE arithmetic, nothing reordered or fused: the same pixels on every machine."""
inline_kernel: Callable[[Any], Any] = numba.njit(inline="always", error_model="numpy")


def remove_stale_cache(folder: Path) -> None:
    """Throw away what was compiled before any source in ``folder`` changed: numba compares a kernel
    with its own file only, but machine code holds a copy of every kernel that it calls.
    """
    newest = max(source.stat().st_mtime_ns for source in folder.glob("*.py"))
    for index in folder.glob("__pycache__/*.nbi"):
        with suppress(OSError):  # another process was faster, or the folder is read-only
            if index.stat().st_mtime_ns < newest:
                index.unlink()


remove_stale_cache(Path(__file__).parent)
