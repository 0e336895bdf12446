"""Training: a plan, and the one loop that trains it."""

from stillrobust.extras import require_extra

require_extra("torch")

from stillrobust.training.loop import TRANSFERS, Plan, Recipe, identity, load_model, train

__all__ = ["TRANSFERS", "Plan", "Recipe", "identity", "load_model", "train"]
