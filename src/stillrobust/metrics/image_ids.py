"""Every example exactly once."""

from collections.abc import Iterable

import numpy as np

from stillrobust.errors import UserError


class UniqueImageIds:
    """The ids of the images that a metric has counted, in order."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._known: set[str] = set()

    def add(self, image_ids: Iterable[str]) -> None:
        """Add images, all or none; raises ``UserError`` naming one that was there already."""
        new: dict[str, None] = {}  # a set that keeps the order
        for image_id in image_ids:
            if image_id in self._known or image_id in new:
                raise UserError(
                    f"Expected every image once, but {image_id!r} was counted twice; check the"
                    " dataset's image ids"
                )
            new[image_id] = None
        self._known.update(new)
        self.ids += new

    def array(self) -> np.ndarray:
        """The ids as a unicode array (N,), also where there are none."""
        return np.array(self.ids, dtype=np.str_)
