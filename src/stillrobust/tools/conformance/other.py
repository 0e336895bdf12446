"""The other library: called in its own environment, one process for one corruption."""

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.samples import Image

CHILD = Path(__file__).with_name("child.py")
# for all calls of one corruption; pure-Python glass_blur needs some 100 s of it with --full
TIMEOUT_SECONDS = 900.0


@dataclass(frozen=True)
class Adapter:
    """A library that is known by name; each is called ``function(image, corruption_name=...,
    severity=...)``.
    """

    module: str
    function: str = "corrupt"
    distribution: str | None = None
    """What pip calls it; it must be there under this name, for two of them share the module
    ``imagecorruptions``.
    """


ADAPTERS = {
    "imagecorruptions": Adapter("imagecorruptions", distribution="imagecorruptions"),
    "imagecorruptions_imaug": Adapter("imagecorruptions", distribution="imagecorruptions-imaug"),
    # floats; its README: result.astype(np.uint8)
    "corrupt_tta": Adapter("corrupt_tta", distribution="corrupt-tta"),
}

Call = tuple[str, int, int]  # (image, severity, seed)


@dataclass(frozen=True)
class Answer:
    """What one process made: images and errors by the call's number; ``killed`` says how it ended
    without an answer.
    """

    images: dict[int, Image]
    errors: dict[int, str]
    killed: str | None = None


def adapter_of(library: str) -> Adapter:
    """By name (``-`` or ``_``), or ``module:function``."""
    module, colon, function = library.partition(":")
    if colon:
        if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise UserError(
                f"Expected a library as module:function, but got {library!r}; write it as"
                " imagecorruptions:corrupt"
            )
        return Adapter(module, function)
    return lookup("library (or write module:function)", library.replace("-", "_"), ADAPTERS)


def probe(adapter: Adapter, python: str) -> dict[str, Any]:
    """``versions`` of what is installed there and ``crash``, the line with which the import
    crashed, or None.

    Raises ``UserError`` where there is no such interpreter, no numpy, no such module, distribution
    or function.
    """
    distributions = sorted({str(known.distribution) for known in ADAPTERS.values()})
    job = {"module": adapter.module, "function": adapter.function, "distributions": distributions}
    with tempfile.TemporaryDirectory(prefix="stillrobust-") as folder:
        ended = _run(job, Path(folder), python, TIMEOUT_SECONDS)
        if isinstance(ended, str):
            raise UserError(
                f"Expected at {python} a Python of 3.8 or newer with numpy, but it ended so:"
                f" {ended}"
            )
    found = ended["versions"]
    there = (
        ", ".join(f"{name} {found[name]}" for name in distributions if name in found)
        or "no library known by name"
    )
    if ended["problem"] == "missing" or (
        adapter.distribution and adapter.distribution not in found
    ):
        wanted = adapter.distribution or f"the module {adapter.module}"
        raise UserError(
            f"Expected {wanted} for {python}, but it has {there}; install it there or name its"
            " --python"
        )
    if ended["problem"] == "no function":
        raise UserError(
            f"Expected a function {adapter.function} in the module {adapter.module}, but there is"
            " none; check its name"
        )
    return {"versions": found, "crash": ended["error"] if ended["problem"] == "crash" else None}


def call(
    adapter: Adapter,
    python: str,
    corruption: str,
    calls: list[Call],
    images: dict[str, Image],
    timeout: float = TIMEOUT_SECONDS,
) -> Answer:
    """Make the calls in a process of their own; whatever happens there is an answer."""
    job = {
        "module": adapter.module,
        "function": adapter.function,
        "corruption": corruption,
        "calls": calls,
    }
    with tempfile.TemporaryDirectory(prefix="stillrobust-") as name:
        folder = Path(name)
        np.savez(folder / "images.npz", **images)  # type: ignore[arg-type]
        ended = _run(job, folder, python, timeout)
        if isinstance(ended, str):
            return Answer({}, {}, ended)
        with np.load(folder / "results.npz") as results:
            made = {int(number): results[number] for number in results.files}
    return Answer(made, {int(number): error for number, error in ended["errors"].items()})


def _run(job: dict[str, Any], folder: Path, python: str, timeout: float) -> Any:
    """The child's answer (JSON), or a line that says how it ended without one."""
    (folder / "job.json").write_text(json.dumps(job))
    command = [python, "-c", CHILD.read_text(), str(folder)]
    try:
        ended = subprocess.run(
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
    if ended.returncode == 0 and (folder / "answer.json").is_file():
        return json.loads((folder / "answer.json").read_text())
    if ended.returncode < 0:
        return f"killed by {signal.Signals(-ended.returncode).name}"
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    return f"ended with status {ended.returncode}" + (f": {lines[-1][:300]}" if lines else "")


def interpreter(python: Path | str | None) -> str:
    """The current interpreter by default."""
    return str(python) if python is not None else sys.executable
