"""Training: a plan, and the one loop that trains it."""

from stillrobust.extras import require_extra

require_extra("torch")

from stillrobust.tasks.recipes import Recipe
from stillrobust.training.loop import load_model, train
from stillrobust.training.plan import TRANSFERS, Plan, identity

__all__ = ["TRANSFERS", "Plan", "Recipe", "identity", "load_model", "train"]
