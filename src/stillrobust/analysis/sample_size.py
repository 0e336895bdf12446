"""Warnings about intervals from few images or groups, or classes that occur in few images.

``docs/explanation/statistics.md`` has the measured coverage behind the limits.
"""

import math
from collections.abc import Sequence

from stillrobust.names import format_count

FEWEST_IMAGES = 30
FEWEST_GROUPS = 20
RARE_IMAGES = 10  # a class in fewer images is rare
RARE_SHARE = 0.25  # of the classes; more rare ones are too many


def sample_size_warnings(
    images: int, images_per_class: Sequence[int] = (), groups: float = math.inf
) -> list[str]:
    """Return a sentence for each reason why intervals may be too narrow.

    Args:
        images: Number of images.
        images_per_class: Number of images that each class counts in; 0 for absent classes. Empty
            if the score is no mean over classes.
        groups: Effective number of groups of images; infinite if the images are independent.
    """
    found = []
    if images < FEWEST_IMAGES:
        found.append(
            f"Only {format_count(images, 'image')}: scores and intervals are not reliable with"
            f" fewer than {FEWEST_IMAGES}; evaluate more images."
        )
    if groups < FEWEST_GROUPS:
        found.append(
            f"Only {groups:.3g} effective groups of images: intervals use Student's t of that"
            f" number and are rough with fewer than {FEWEST_GROUPS}; evaluate images of more"
            " groups."
        )
    present = [count for count in images_per_class if count > 0]
    rare = sum(count < RARE_IMAGES for count in present)
    if rare > RARE_SHARE * len(present):
        found.append(
            f"{rare} of {len(present)} classes occur in fewer than {RARE_IMAGES} images: intervals"
            " of drops may be too narrow, those of differences less so; evaluate more images."
        )
    return found
