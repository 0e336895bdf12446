"""Kernels by name, loaded at first use, so that importing the corruptions is fast."""

import importlib
import logging
from pathlib import Path
from typing import Any

_announced = False


def kernel_cache() -> tuple[Path, str]:
    """Return the folder of the kernels' cache, and what the code there was compiled by and for."""
    jit = importlib.import_module("stillrobust.corruptions.kernels.jit")
    folder, compiler = jit.cache_folder(), jit.compiler()
    return folder, compiler


class Kernels:
    """One module of ``kernels``. Its attributes are the compiled functions."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        function = getattr(
            importlib.import_module(f"stillrobust.corruptions.kernels.{self._module}"), name
        )
        _announce_compilation(function)
        setattr(self, name, function)
        return function


def _announce_compilation(function: Any) -> None:
    """Log once that compiling takes a while, if a function is not in the disk cache."""
    global _announced
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}-*.nbi"
    if not _announced and not any(Path(function.stats.cache_path).glob(name)):
        text = (
            "compiling corruption kernels, once on this machine: up to half a minute in all"
            " (`stillrobust doctor` does it ahead, on all cores)"
        )
        logging.getLogger("stillrobust").warning(text)
        _announced = True
