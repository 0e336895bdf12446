"""Fine-tuning methods that keep robustness, by name.

Specs look like ``lp_ft``, ``ema(decay=0.99)`` or ``lp_ft + wise_ft(alpha=0.5)``. ``method.py``
defines the contract.

To add a method, write a class with its card, and add one entry to ``METHODS`` in ``methods.py``.
Training, the command line, the identity of a run and the list of methods follow from the entry.
"""

from typing import TYPE_CHECKING

from stillrobust.extras import lazy_exports

if TYPE_CHECKING:
    from stillrobust.finetuning.averaging import interpolate_weights
    from stillrobust.finetuning.composition import Methods, build_methods
    from stillrobust.finetuning.method import Fit, MethodCard, MethodEntry, Phase
    from stillrobust.finetuning.methods import METHODS

__all__ = [
    "METHODS",
    "Fit",
    "MethodCard",
    "MethodEntry",
    "Methods",
    "Phase",
    "build_methods",
    "interpolate_weights",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "averaging": ("interpolate_weights",),
        "composition": ("Methods", "build_methods"),
        "method": ("Fit", "MethodCard", "MethodEntry", "Phase"),
        "methods": ("METHODS",),
    },
)
