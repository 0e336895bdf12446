"""Evaluation: a model, data and a protocol become measurements.

Torch is loaded with what needs it, the loop.
"""

from typing import TYPE_CHECKING, Any

from stillrobust.evaluation.protocol import Protocol, cells_of
from stillrobust.extras import require_extra

if TYPE_CHECKING:
    from stillrobust.evaluation.loop import evaluate, missing_cells

__all__ = ["Protocol", "cells_of", "evaluate", "missing_cells"]


def __getattr__(name: str) -> Any:
    """Import on first use."""
    if name in ("evaluate", "missing_cells"):
        require_extra("torch")
        from stillrobust.evaluation import loop

        return getattr(loop, name)
    raise AttributeError(f"module 'stillrobust.evaluation' has no attribute {name!r}")
