"""Techniques that make a model robust, by name, and techniques in files of users.

Specs look like ``ant(kernel=3)``, ``prime(geometry=False)``, ``deepaugment+augmix`` or
``my_technique.py``. ``technique.py`` defines the contract, ``user_techniques.py`` reads files.

To add a technique, write a module with a factory and its card, and add one entry to
``TECHNIQUES`` in ``techniques.py``.
The commands and the report read
it from there.

Nothing here imports ``corruptions/``, so that no technique can train on the test. A technique that
still resembles a corruption of the test names it in its card.
"""

from typing import TYPE_CHECKING

from stillrobust.extras import lazy_exports

if TYPE_CHECKING:
    from stillrobust.robustify.composition import build_technique, cards_of
    from stillrobust.robustify.technique import (
        AuxiliaryNetwork,
        Card,
        Technique,
        TechniqueEntry,
        batch_views,
        image_views,
        require_between,
        require_photometric,
        require_unit_range,
    )
    from stillrobust.robustify.techniques import TECHNIQUES

__all__ = [
    "TECHNIQUES",
    "AuxiliaryNetwork",
    "Card",
    "Technique",
    "TechniqueEntry",
    "batch_views",
    "build_technique",
    "cards_of",
    "image_views",
    "require_between",
    "require_photometric",
    "require_unit_range",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "composition": (
            "build_technique",
            "cards_of",
        ),
        "technique": (
            "AuxiliaryNetwork",
            "Card",
            "Technique",
            "TechniqueEntry",
            "batch_views",
            "image_views",
            "require_between",
            "require_photometric",
            "require_unit_range",
        ),
        "techniques": ("TECHNIQUES",),
    },
)
