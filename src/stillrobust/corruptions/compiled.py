"""Kernels by name, loaded at first use, so that importing the corruptions is fast."""

import importlib
import logging
from pathlib import Path
from typing import Any

_announced = False


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
    """Log once that compiling takes a while, if the disk cache is empty."""
    global _announced
    if not _announced and not any(Path(function.stats.cache_path).glob("*.nbi")):
        text = (
            "compiling the corruption kernels, once on this machine: some 20 s in all (`stillrobust"
            " doctor` does it ahead)"
        )
        logging.getLogger("stillrobust").warning(text)
    _announced = True
