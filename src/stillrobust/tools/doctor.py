"""Checks of this machine and installation, with a remedy for each problem. No network is used."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from stillrobust import corruptions
from stillrobust.corruptions.compilation import warm_up
from stillrobust.extras import EXTRAS
from stillrobust.runtime import capacity
from stillrobust.runtime.progress import ProgressCallback, no_progress
from stillrobust.storage.downloads import cache_folder

OLDEST_PYTHON = (3, 11)  # pyproject.toml, requires-python
# torchvision 0.N fits torch 2.(N - 15): 0.19 fits 2.4, 0.29 fits 2.14 (pytorch/vision, README)
PAIR_OFFSET = 15
ROOM_GB = 5.0  # enough for a small study and its weights
PIXEL_DIGESTS = {
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
"""SHA-256, first 16 digits, of :func:`pixel_digest` with corruption version 4."""
FROST_DIGESTS = {
    "reference:dd7620d7c4e4": "332618c514a7f0d2",
    "generated:3953571862c9": "51416bae6e4fb16d",
}
"""The same for frost, by its textures."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    state: str
    """``ok``, ``note`` (affects some work) or ``problem`` (work fails or numbers are wrong)."""
    text: str
    remedy: str = ""
    """What to do; empty if nothing."""


def python() -> Finding:
    """Check that Python is new enough."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding(
            "problem",
            f"Python {found}",
            "install Python 3.11 or newer and create a new environment",
        )
    return Finding("ok", f"Python {found}")


def torch_pair() -> Finding:
    """Check that torchvision was compiled for this release of torch; others fail at first use."""
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
            f"torch {torch} with torchvision {vision} do not fit together",
            f"pip install '{fitting}'",
        )
    return Finding("ok", f"torch {torch}, torchvision {vision}")


def processor() -> Finding:
    """Report cores and threads. One thread per process and one process per core is fastest."""
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return Finding("ok", f"{capacity.cores()} usable cores, OMP_NUM_THREADS {threads}")


def memory() -> Finding:
    """Check the memory of the machine or container."""
    total = capacity.memory()
    size = f"{total / 2**30:.1f} GB of memory"
    if 0 < total < 2 * 2**30:  # a worker with torch and the demo's detector needs 1 to 1.5 GB
        return Finding(
            "problem", size, "give the container or machine 2 GB or more, and use --workers 1"
        )
    return Finding("ok", size)


def gpus() -> Finding:
    """Check for GPUs. An installed driver that torch cannot use is a problem."""
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
            f"an NVIDIA driver, but torch {torch.__version__} does not use it",
            remedy,
        )
    return Finding("note", "no GPU: everything works, but large trainings take long")


def frost() -> Finding:
    """Report the frost textures: the reference's photographs or generated ones."""
    name = str(corruptions.corruption_protocol()["frost_textures"])
    if name.startswith("generated"):
        remedy = (
            "for published numbers: pip install --no-deps imagecorruptions-imaug==1.1.5,"
            " or STILLROBUST_FROST=FOLDER"
        )
        return Finding("note", f"frost textures: {name}", remedy)
    return Finding("ok", f"frost textures: {name}")


def kernels(progress: ProgressCallback = no_progress) -> Finding:
    """Compile the kernels of fast draws on all cores, so that the first use does not wait."""
    warm_up(corruptions.CORRUPTIONS, "fast", progress)
    return Finding("ok", "corruption kernels: compiled")


def pixel_self_test() -> Finding:
    """Check that this machine gives the same corrupted pixels as every other one."""
    textures = str(corruptions.corruption_protocol()["frost_textures"])
    expected = PIXEL_DIGESTS | (
        {"frost": FROST_DIGESTS[textures]} if textures in FROST_DIGESTS else {}
    )
    wrong = [name for name, pixels in expected.items() if pixel_digest(name) != pixels]
    if wrong:
        remedy = (
            "reinstall numba, numpy and opencv-python-headless; numbers from this machine are not"
            " comparable until this passes"
        )
        return Finding("problem", f"self-test: unexpected pixels of {', '.join(wrong)}", remedy)
    left_out = "" if "frost" in expected else " (frost has user textures, whose pixels are unknown)"
    return Finding("ok", f"self-test: expected pixels of {len(expected)} corruptions{left_out}")


def pixel_digest(name: str) -> str:
    """Hash a generated image under corruption ``name`` at severity 3, fast draws."""
    rows, columns = np.mgrid[0:48, 0:64]
    image = np.stack([rows * 5, columns * 3, (rows * columns) % 256], axis=-1).astype(np.uint8)
    pixels = corruptions.corrupt(image, name, 3, seed=0, image_id="doctor")
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def extras() -> Finding:
    """Report optional packages that are not installed."""
    missing = [
        extra
        for extra, modules in EXTRAS.items()
        if any(find_spec(name) is None for name in modules)
    ]
    if missing:
        return Finding(
            "note",
            f"not installed: {', '.join(missing)}",
            f"if needed: pip install 'stillrobust[{','.join(missing)}]'",
        )
    return Finding("ok", f"extras: {', '.join(EXTRAS)}")


def working_folder() -> Finding:
    """Check that the current folder is writable and has space."""
    return _writable(Path.cwd(), "this folder", "change to a writable folder, or pass one as --out")


def weights_cache() -> Finding:
    """Check that the weights cache is writable and has space."""
    folder = cache_folder()
    return _writable(
        folder, "weights cache", "set STILLROBUST_CACHE to a folder that you may write to"
    )


def _writable(folder: Path, name: str, remedy: str) -> Finding:
    present = folder
    while not present.exists():  # a new folder is created in its nearest existing parent
        present = present.parent
    if not os.access(present, os.W_OK) or not present.is_dir():
        return Finding("problem", f"{name} {folder} is not writable", remedy)
    free = shutil.disk_usage(present).free / 1e9
    if free < ROOM_GB:
        return Finding(
            "problem",
            f"{name} {folder}: {free:.1f} GB free",
            f"free at least {ROOM_GB:.0f} GB, or {remedy}",
        )
    return Finding("ok", f"{name} {folder}: writable, {free:.0f} GB free")


CHECKS: dict[str, Callable[[], Finding]] = {
    check.__name__: check
    for check in (
        python,
        torch_pair,
        processor,
        memory,
        gpus,
        frost,
        kernels,
        pixel_self_test,
        extras,
        working_folder,
        weights_cache,
    )
}
"""Name -> check, in the order of the report."""


def run_checks(progress: ProgressCallback = no_progress) -> list[Finding]:
    """Run all checks. A check that raises is reported as a problem, and the others still run.

    Args:
        progress: Called while kernels are compiled, the only check that takes more than seconds.
    """
    checks: dict[str, Callable[[], Finding]] = dict(CHECKS)
    if "kernels" in checks:
        checks["kernels"] = partial(kernels, progress)
    return [_safely(name, check) for name, check in checks.items()]


def _safely(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    # a broken installation may raise anything
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return Finding(
            "problem",
            f"the check of {name} failed: {reason}",
            "reinstall: pip install --force-reinstall stillrobust",
        )


def format_findings(findings: list[Finding]) -> str:
    """Format findings as text: one line each, its remedy below, and a verdict."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<8} {finding.text}")
        lines += [f"{'':<8} -> {finding.remedy}"] if finding.remedy else []
    problems = sum(finding.state == "problem" for finding in findings)
    lines.append(
        "No problems found. No network is needed until you call a command named fetch."
        if not problems
        else f"{problems} problems to fix."
    )
    return "\n".join(lines)
