"""Optional dependencies: the extra that brings a package, the error if it is missing, and telemetry
that is turned off.
"""

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from stillrobust.errors import UserError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch", "torchvision", "timm", "lightning_fabric"),
    "transformers": ("transformers",),
    "ultralytics": ("ultralytics",),
    "onnx": ("onnxruntime",),
    "huggingface": ("datasets",),
    "ray": ("ray",),
    "slurm": ("submitit",),
    "tensorboard": ("tensorboard",),
}
"""Extra of ``pyproject.toml`` -> the modules that it brings."""

NOT_UNASKED: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers asks the hub to convert a model
    "YOLO_OFFLINE": "true",  # Ultralytics' look-ups, usage statistics and checks for updates
    "YOLO_AUTOINSTALL": "false",  # it installs missing packages with pip
    "ULTRALYTICS_SAFE_LOAD": "true",  # a .pt file is otherwise a pickle that runs code
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables that turn off telemetry, checks for updates and installations. Each library
reads its own when it is imported.
"""


def turn_off_telemetry() -> None:
    """Set the variables of ``NOT_UNASKED`` that the user has not set."""
    for name, value in NOT_UNASKED.items():
        os.environ.setdefault(name, value)


class MissingExtraError(ModuleNotFoundError, UserError):
    """A package of an extra is not installed. The message has the command that installs it."""


def require_extra(extra: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Args:
        extra: A key of ``EXTRAS``.

    Raises:
        MissingExtraError: If one of them is missing.
    """
    for module in EXTRAS[extra]:
        if find_spec(module) is None:
            raise missing_extra(module, extra)


def missing_extra(module: str, extra: str) -> MissingExtraError:
    """Return the error for a missing ``module`` of ``extra``."""
    return MissingExtraError(
        f"The package {module} is not installed, and this needs it; run:"
        f" pip install 'stillrobust[{extra}]'",
        name=module,
    )


def extra_of(module: str) -> str | None:
    """Return the extra that brings ``module`` or its package; ``None`` if there is none."""
    package = module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if package in modules), None)


def lazy_exports(
    package: str, exports: Mapping[str, tuple[str, ...]], extra: str = "torch"
) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package whose exports are imported on first use.

    Importing such a package loads nothing heavy, so that its modules of names can be read at once.

    Args:
        package: The ``__name__`` of the package.
        exports: Module within the package -> the names that it defines.
        extra: The extra that the modules need.

    Returns:
        A function that returns the value of a name. It raises ``MissingExtraError`` without the
        extra.
    """
    modules = {name: module for module, names in exports.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        require_extra(extra)
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return __getattr__
