"""The other library: called in its own environment, one process for one corruption."""

import json
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.samples import Image

CHILD = Path(__file__).with_name("library_process.py")
# for all calls of one corruption; pure-Python glass_blur needs some 100 s with --full
TIMEOUT_SECONDS = 900.0


@dataclass(frozen=True)
class Adapter:
    """How to call a library: ``function(image, corruption_name=..., severity=...)``."""

    module: str
    function: str = "corrupt"
    distribution: str | None = None
    """Its name in pip, which must be installed: two distributions share one module name."""


ADAPTERS = {
    "imagecorruptions": Adapter("imagecorruptions", distribution="imagecorruptions"),
    "imagecorruptions_imaug": Adapter("imagecorruptions", distribution="imagecorruptions-imaug"),
    # it returns floats; its README applies result.astype(np.uint8)
    "corrupt_tta": Adapter("corrupt_tta", distribution="corrupt-tta"),
}

Call = tuple[str, int, int]  # (image, severity, seed)


@dataclass(frozen=True)
class LibraryResult:
    """The result of one process: images and errors by the call's number.

    ``killed`` describes how the process ended, if it gave no result.
    """

    images: dict[int, Image]
    errors: dict[int, str]
    killed: str | None = None


def get_adapter(library: str) -> Adapter:
    """Look up a library by name (with ``-`` or ``_``), or parse ``module:function``.

    Raises:
        UserError: If it is neither.
    """
    module, colon, function = library.partition(":")
    if colon:
        if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise UserError(
                f"Expected a library as module:function, but got {library!r}; write it as"
                " imagecorruptions:corrupt"
            )
        return Adapter(module, function)
    return lookup("library (or write module:function)", library.replace("-", "_"), ADAPTERS)


def probe_library(adapter: Adapter, python: str) -> dict[str, Any]:
    """Look at a library's environment.

    Returns:
        ``versions`` of the installed packages; ``crash``, the import's error or ``None``.

    Raises:
        UserError: If the interpreter, numpy, module, distribution or function does not exist.
    """
    distributions = sorted({str(known.distribution) for known in ADAPTERS.values()})
    job = {"module": adapter.module, "function": adapter.function, "distributions": distributions}
    with tempfile.TemporaryDirectory(prefix="stillrobust-") as folder:
        answer = _run(job, Path(folder), python, TIMEOUT_SECONDS)
        if isinstance(answer, str):
            raise UserError(
                f"Expected Python 3.8 or newer with numpy at {python}, but got: {answer}; name"
                " another with --python"
            )
    found = answer["versions"]
    there = (
        ", ".join(f"{name} {found[name]}" for name in distributions if name in found)
        or "no library known by name"
    )
    if answer["problem"] == "missing" or (
        adapter.distribution and adapter.distribution not in found
    ):
        wanted = adapter.distribution or f"the module {adapter.module}"
        raise UserError(
            f"Expected {wanted} for {python}, but it has {there}; install it there or name its"
            " --python"
        )
    if answer["problem"] == "no function":
        raise UserError(
            f"Expected a function {adapter.function} in the module {adapter.module}, but there is"
            " none; check its name"
        )
    return {"versions": found, "crash": answer["error"] if answer["problem"] == "crash" else None}


def call_library(
    adapter: Adapter,
    python: str,
    corruption: str,
    calls: list[Call],
    images: dict[str, Image],
    timeout: float = TIMEOUT_SECONDS,
) -> LibraryResult:
    """Make all calls for one corruption in a process of their own. A crash is a result.

    Args:
        adapter: The library.
        python: Its interpreter.
        corruption: The corruption's name.
        calls: (image, severity, seed) each.
        images: Name -> uint8 (H, W, 3) RGB.
        timeout: Seconds for all calls.
    """
    job = {
        "module": adapter.module,
        "function": adapter.function,
        "corruption": corruption,
        "calls": calls,
    }
    with tempfile.TemporaryDirectory(prefix="stillrobust-") as name:
        folder = Path(name)
        np.savez(folder / "images.npz", **images)  # type: ignore[arg-type]
        answer = _run(job, folder, python, timeout)
        if isinstance(answer, str):
            return LibraryResult({}, {}, answer)
        with np.load(folder / "results.npz") as results:
            made = {int(number): results[number] for number in results.files}
    return LibraryResult(made, {int(number): error for number, error in answer["errors"].items()})


def _run(job: dict[str, Any], folder: Path, python: str, timeout: float) -> Any:
    """The process's answer (JSON), or a line that describes how it ended without one."""
    (folder / "job.json").write_text(json.dumps(job))
    command = [python, "-c", CHILD.read_text(), str(folder)]
    try:
        finished = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:g} s"
    except OSError as error:
        raise UserError(
            f"Expected a Python interpreter at {python}, but it cannot be started: {error.strerror}"
        ) from None
    if finished.returncode == 0 and (folder / "answer.json").is_file():
        return json.loads((folder / "answer.json").read_text())
    if finished.returncode < 0:
        return f"killed by {signal.Signals(-finished.returncode).name}"
    lines = finished.stderr.decode(errors="replace").strip().splitlines()
    return f"ended with status {finished.returncode}" + (f": {lines[-1][:300]}" if lines else "")
