"""Training: a plan says what is trained, and one loop trains it."""

from typing import TYPE_CHECKING

from stillrobust.extras import lazy_exports
from stillrobust.tasks.recipes import Recipe
from stillrobust.training.transfers import TRANSFERS

if TYPE_CHECKING:
    from stillrobust.training.loop import load_model, train
    from stillrobust.training.plan import Plan, identity

__all__ = ["TRANSFERS", "Plan", "Recipe", "identity", "load_model", "train"]

__getattr__ = lazy_exports(
    __name__, {"loop": ("load_model", "train"), "plan": ("Plan", "identity")}
)
