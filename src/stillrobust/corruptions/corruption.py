"""The entry of one corruption: its function, severity tables and properties.

Severities come from Hendrycks & Dietterich 2019, ImageNet-C/imagenet_c/imagenet_c/corruptions.py
(224-px images), as kept by the library imagecorruptions. The tables for small images come from the
same authors' scripts make_cifar_c.py and make_tinyimagenet_c.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stillrobust.corruptions.draws import Rng
from stillrobust.errors import UserError
from stillrobust.samples import Array, Image

REGIMES = {
    "imagenet": "any image size; the library's tables",
    "imagenet-c": "224 px; elastic_transform and pixelate of the original ImageNet-C",
    "cifar": "32 px; the tables of CIFAR-10-C",
    "tiny-imagenet": "64 px; the tables of Tiny-ImageNet-C",
}

Severities = tuple[Any, Any, Any, Any, Any]
"""Parameters at severities 1..5: one value, or a tuple of values."""


@dataclass(frozen=True, eq=False)
class Corruption:
    """An entry of ``CORRUPTIONS``, called as ``corruption(image, severity, rng, regime)``."""

    function: Callable[..., Image]
    """``function(image, rng, *parameters) -> image``."""
    severities: Mapping[str, Severities | None]
    """Regime -> parameters. A regime that is left out has those of ``imagenet``. ``None``: the
    regime's benchmark does not define this corruption."""
    deterministic: bool = False
    """Whether it draws no random numbers."""
    displacement: Callable[..., Array] | None = None
    """For a corruption that moves pixels: ``displacement((H, W), rng, *parameters)`` -> float32
    (H, W, 2), see :func:`stillrobust.corruptions.displacement`."""

    def parameters(self, severity: int, regime: str = "imagenet") -> tuple[Any, ...]:
        """Return the function's parameters at severity 1..5.

        Raises:
            UserError: If the regime does not define this corruption.
        """
        table = self.severities.get(regime, self.severities["imagenet"])
        if table is None:
            raise UserError(
                f"{self.function.__name__} has no published severities in the regime {regime};"
                " leave it out, or use --regime imagenet"
            )
        values = table[severity - 1]
        return values if isinstance(values, tuple) else (values,)

    def __call__(self, image: Image, severity: int, rng: Rng, regime: str = "imagenet") -> Image:
        """Corrupt an image, uint8 (H, W, 3) RGB -> the same shape and type."""
        return self.function(image, rng, *self.parameters(severity, regime))
