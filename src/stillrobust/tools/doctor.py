"""What this machine has for the work, and what to do about what it lacks.

Nothing here asks the network.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from stillrobust import corruptions
from stillrobust.extras import EXTRAS
from stillrobust.runtime import capacity
from stillrobust.storage.downloads import cache_folder

OLDEST_PYTHON = (3, 11)  # pyproject.toml, requires-python
# torchvision 0.N belongs to torch 2.(N - 15): 0.19 to 2.4, 0.29 to 2.14 (pytorch/vision, README)
PAIR_OFFSET = 15
ROOM_GB = 5.0  # what a small study and its weights take, with room to spare
GOLDEN = {
    "gaussian_noise": "3935b186d3a9925d",
    "shot_noise": "c5fd54f5e025076f",
    "impulse_noise": "c2cf9aa2005f650a",
    "defocus_blur": "9ae139de84700a44",
    "glass_blur": "684d0e56db3d3e69",
    "motion_blur": "a6afc6937a924b2a",
    "zoom_blur": "32318354504c69bb",
    "snow": "9c8f2eff57c3dd83",
    "fog": "b60e85c0f1d0a476",
    "brightness": "d179ae1c4d220777",
    "contrast": "f16d711078989d97",
    "elastic_transform": "d8e603f2597467e6",
    "pixelate": "1b1e2914f72b313c",
    "jpeg_compression": "03269a29962306e6",
    "speckle_noise": "ab517a7877424671",
    "gaussian_blur": "ac08138ac8b9f1a1",
    "spatter": "d44b2924c3843b0a",
    "saturate": "c4c89cb14d14f7af",
}
"""SHA-256, first 16 digits, of :func:`digest` with corruption version 4."""
GOLDEN_FROST = {
    "reference:dd7620d7c4e4": "332618c514a7f0d2",
    "generated:3953571862c9": "51416bae6e4fb16d",
}
"""The same of frost, by the textures that it takes."""


@dataclass(frozen=True)
class Finding:
    """What one check saw."""

    state: str
    """``ok``; ``note`` for what only some work needs; ``problem`` for what makes work fail or
    numbers wrong.
    """
    text: str
    remedy: str = ""
    """What to do, where there is something."""


def python() -> Finding:
    """New enough."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding(
            "problem",
            f"Python {found}",
            "install Python 3.11 or newer and make the environment anew",
        )
    return Finding("ok", f"Python {found}")


def pairing() -> Finding:
    """torchvision is compiled for one release of torch; another one fails at its first operator."""
    try:
        torch, vision = version("torch"), version("torchvision")
    except PackageNotFoundError as error:
        return Finding(
            "note",
            f"no models and no training: the package {error.name} is not installed",
            "where needed: pip install 'stillrobust[torch]'",
        )
    minor = [int(text.split("+")[0].split(".")[1]) for text in (torch, vision)]
    if minor[1] - minor[0] != PAIR_OFFSET:
        fitting = f"torchvision==0.{minor[0] + PAIR_OFFSET}.*"
        return Finding(
            "problem",
            f"torch {torch} with torchvision {vision} are no pair",
            f"pip install '{fitting}'",
        )
    return Finding("ok", f"torch {torch}, torchvision {vision}")


def processor() -> Finding:
    """Cores that this process may use, and threads: a thread in each process and a process on each
    core is fastest.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return Finding("ok", f"{capacity.cores()} cores to use, OMP_NUM_THREADS {threads}")


def memory() -> Finding:
    """Of the machine, or what the container may take of it."""
    total = capacity.memory()
    size = f"{total / 2**30:.1f} GB of memory"
    if 0 < total < 2 * 2**30:  # a worker with torch and the demo's detector takes 1 to 1.5 GB
        return Finding(
            "problem", size, "give the container or machine 2 GB or more, and use --workers 1"
        )
    return Finding("ok", size)


def gpus() -> Finding:
    """GPUs that torch can use; one that is there and cannot be used is a problem."""
    try:
        import torch
    except ModuleNotFoundError:  # the core is installed without it
        return Finding("note", "GPUs are not used without torch")
    if torch.cuda.is_available():
        names = ", ".join(
            torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        )
        return Finding("ok", f"GPUs: {names}; CUDA {torch.version.cuda}")
    if shutil.which("nvidia-smi") and Path("/proc/driver/nvidia/version").is_file():
        remedy = (
            "install the build of torch for the driver's CUDA release (nvidia-smi shows it), see"
            " pytorch.org"
        )
        return Finding(
            "problem",
            f"an NVIDIA driver is there, but torch {torch.__version__} does not use it",
            remedy,
        )
    return Finding("note", "no GPU: everything works, large trainings take long")


def frost() -> Finding:
    """The reference's photographs, or generated ones: two protocols."""
    name = str(corruptions.protocol()["frost_textures"])
    if name.startswith("generated"):
        remedy = (
            "for numbers like published ones: pip install --no-deps imagecorruptions-imaug==1.1.5,"
            " or STILLROBUST_FROST=FOLDER"
        )
        return Finding("note", f"frost textures: {name}", remedy)
    return Finding("ok", f"frost textures: {name}")


def kernels() -> Finding:
    """Compiled, which the first use would otherwise wait for."""
    corruptions.warm_up()
    return Finding("ok", "corruption kernels: compiled")


def golden() -> Finding:
    """Whether this machine makes the same corrupted pixels as every other one."""
    textures = str(corruptions.protocol()["frost_textures"])
    expected = GOLDEN | ({"frost": GOLDEN_FROST[textures]} if textures in GOLDEN_FROST else {})
    wrong = [name for name, pixels in expected.items() if digest(name) != pixels]
    if wrong:
        remedy = (
            "reinstall numba, numpy and opencv-python-headless; numbers of this machine are not"
            " comparable until this passes"
        )
        return Finding(
            "problem", f"self-test: other pixels than expected of {', '.join(wrong)}", remedy
        )
    left_out = (
        ""
        if "frost" in expected
        else " (frost has textures of your own, whose pixels are not known)"
    )
    return Finding("ok", f"self-test: the expected pixels of {len(expected)} corruptions{left_out}")


def digest(name: str) -> str:
    """Of a generated image under corruption ``name`` at severity 3, fast mode."""
    rows, columns = np.mgrid[0:48, 0:64]
    image = np.stack([rows * 5, columns * 3, (rows * columns) % 256], axis=-1).astype(np.uint8)
    pixels = corruptions.corrupt(image, name, 3, seed=0, image_id="doctor")
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def extras() -> Finding:
    """Optional packages: other libraries' models."""
    missing = [
        extra
        for extra, modules in EXTRAS.items()
        if any(find_spec(name) is None for name in modules)
    ]
    if missing:
        return Finding(
            "note",
            f"not installed: {', '.join(missing)}",
            f"where needed: pip install 'stillrobust[{','.join(missing)}]'",
        )
    return Finding("ok", f"extras: {', '.join(EXTRAS)}")


def here() -> Finding:
    """The current folder can be written to and has room."""
    return _writable(Path.cwd(), "this folder", "go to a folder of your own, or give --out one")


def cache() -> Finding:
    """The folder of weights."""
    folder = cache_folder()
    return _writable(
        folder, "weights cache", "set STILLROBUST_CACHE to a folder that you may write to"
    )


def _writable(folder: Path, name: str, remedy: str) -> Finding:
    present = folder
    while not present.exists():  # a folder that is not there yet is made in the nearest one that is
        present = present.parent
    if not os.access(present, os.W_OK) or not present.is_dir():
        return Finding("problem", f"{name} {folder} cannot be written to", remedy)
    free = shutil.disk_usage(present).free / 1e9
    if free < ROOM_GB:
        return Finding(
            "problem",
            f"{name} {folder}: {free:.1f} GB free",
            f"make room for at least {ROOM_GB:.0f} GB, or {remedy}",
        )
    return Finding("ok", f"{name} {folder}: can be written to, {free:.0f} GB free")


CHECKS: dict[str, Callable[[], Finding]] = {
    check.__name__: check
    for check in (
        python,
        pairing,
        processor,
        memory,
        gpus,
        frost,
        kernels,
        golden,
        extras,
        here,
        cache,
    )
}
"""Name -> check, in the order in which they are told."""


def examine() -> list[Finding]:
    """All checks; one that raises is a problem and stops no other."""
    return [_safely(name, check) for name, check in CHECKS.items()]


def _safely(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    # a broken installation may raise anything; the others are still looked at
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return Finding(
            "problem",
            f"the check of {name} failed: {reason}",
            "reinstall: pip install --force-reinstall stillrobust",
        )


def findings_text(findings: list[Finding]) -> str:
    """A line each, the remedy below it, and a verdict."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<8} {finding.text}")
        lines += [f"{'':<8} -> {finding.remedy}"] if finding.remedy else []
    problems = sum(finding.state == "problem" for finding in findings)
    lines.append(
        "All is well; no network is needed until you call a command named fetch."
        if not problems
        else f"{problems} to mend."
    )
    return "\n".join(lines)
