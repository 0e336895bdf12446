"""The evaluation grid: names of corruptions and their groups, severities, and cells."""

from collections.abc import Sequence
from dataclasses import dataclass

GROUPS: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
COMMON: tuple[str, ...] = tuple(corruption for members in GROUPS.values() for corruption in members)
EXTRA: tuple[str, ...] = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The four that Hendrycks & Dietterich set aside for validation."""
C_BAR: tuple[str, ...] = (
    "blue_noise_sample",
    "plasma_noise",
    "checkerboard_cutout",
    "cocentric_sine_waves",
    "single_frequency_greyscale",
    "brownish_noise",
    "perlin_noise",
    "sparkles",
    "inverse_sparkles",
    "caustic_refraction",
)
"""The ten of ImageNet-C-bar. No technique here trains on anything like them."""
CORRUPTION_SETS: dict[str, tuple[str, ...]] = {"common": COMMON, "extra": EXTRA, "c-bar": C_BAR}
"""Names that stand for several corruptions. Only ``common`` is part of mPC."""
SEVERITIES: tuple[int, ...] = (1, 2, 3, 4, 5)
CLEAN = ("clean", 0)

Place = tuple[str, int]
"""(corruption, severity)."""


@dataclass(frozen=True)
class Cell:
    """A run on the clean data (``"clean"``, 0) or under one corruption at one severity (1..5)."""

    run: str
    corruption: str
    severity: int


def corrupted_places(severities: Sequence[int] = SEVERITIES) -> tuple[Place, ...]:
    """Return the cells that mPC averages: the 15 common corruptions at these severities."""
    return tuple((corruption, severity) for corruption in COMMON for severity in severities)
