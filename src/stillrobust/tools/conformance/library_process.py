"""Program that runs in the other library's environment, passed as text (``python -c``).

It needs that library, numpy and Python 3.8, and imports nothing of this package. Its argument is a
folder, from which it reads ``job.json`` and ``images.npz`` and to which it writes ``answer.json``
and ``results.npz``. One process works on one corruption, so a crash loses no other.
"""

from __future__ import annotations

import importlib
import json
import platform
import random
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

DISTRIBUTIONS = (
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
    "scikit-image",
    "scipy",
    "Pillow",
    "numba",
)


def one_line(error: BaseException) -> str:
    """Format an error as ``KeyError: 'fog'``: its first line."""
    return traceback.format_exception_only(type(error), error)[-1].strip().splitlines()[0][:300]


def versions(distributions: list[str]) -> dict[str, str]:
    """Return the versions of Python and of the installed distributions."""
    found = {"python": platform.python_version()}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def probe(job: dict[str, Any]) -> dict[str, Any]:
    """Report what is installed, and whether the function can be imported.

    ``problem`` is ``None``, ``missing``, ``no function`` or ``crash``.
    """
    answer: dict[str, Any] = {
        "versions": versions([*job["distributions"], *DISTRIBUTIONS]),
        "problem": None,
        "error": "",
    }
    module = job["module"]
    try:
        function = getattr(importlib.import_module(module), job["function"], None)
    except BaseException as error:  # any failure of the import is a result
        absent = isinstance(error, ModuleNotFoundError) and (
            error.name == module or module.startswith(f"{error.name}.")
        )
        return {**answer, "problem": "missing" if absent else "crash", "error": one_line(error)}
    return answer if callable(function) else {**answer, "problem": "no function"}


def as_pixels(result: Any, shape: tuple[int, ...]) -> Any:
    """Convert a result to uint8 (H, W, 3).

    Floats must be in 0..255 and are truncated, as ``np.uint8(...)`` in imagecorruptions.
    """
    result = np.asarray(result)
    if result.shape != shape:
        raise ValueError(f"returned shape {result.shape} for an image of shape {shape}")
    if result.dtype == np.uint8:
        return result.copy()
    if result.dtype.kind not in "fiu":
        raise ValueError(f"returned {result.dtype}, which is no image")
    if not (np.isfinite(result).all() and result.min() >= 0 and result.max() <= 255):
        raise ValueError(
            f"returned {result.dtype} of {result.min()}..{result.max()}, which is not within 0..255"
        )
    return result.astype(np.uint8)


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make every call of the job, [image, severity, seed]. Store results and errors by number."""
    function = getattr(importlib.import_module(job["module"]), job["function"])
    images = np.load(folder / "images.npz")
    results, errors = {}, {}
    for number, (image, severity, seed) in enumerate(job["calls"]):
        clean = images[image]
        np.random.seed(seed)  # noqa: NPY002 - these libraries draw from the global generator
        random.seed(seed)
        try:
            result = function(clean.copy(), corruption_name=job["corruption"], severity=severity)
            results[str(number)] = as_pixels(result, clean.shape)
        except Exception as error:  # an error is a result of this call
            errors[number] = one_line(error)
    np.savez(folder / "results.npz", **results)
    return {"errors": errors}


def main() -> None:
    """Read the job, run it, write the answer."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    answer = work(job, folder) if "calls" in job else probe(job)
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
