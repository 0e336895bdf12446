"""Evaluation of models under image corruptions, and scores of predictions from files."""

from typing import TYPE_CHECKING, Any

from stillrobust.evaluation.keys import cells_to_evaluate
from stillrobust.evaluation.protocol import Protocol, planned_cells
from stillrobust.extras import require_extra

if TYPE_CHECKING:
    from stillrobust.evaluation.loop import evaluate

__all__ = ["Protocol", "cells_to_evaluate", "evaluate", "planned_cells"]


def __getattr__(name: str) -> Any:
    """Import the loop, and with it torch, on first use."""
    if name == "evaluate":
        require_extra("torch")
        from stillrobust.evaluation import loop

        return loop.evaluate
    raise AttributeError(f"module 'stillrobust.evaluation' has no attribute {name!r}")
