"""The ids of the images that a metric has counted, each once."""

from collections.abc import Iterable

import numpy as np

from stillrobust.errors import UserError
from stillrobust.samples import Array


class UniqueImageIds:
    """Image ids in the order in which they were added."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._known: set[str] = set()

    def add(self, image_ids: Iterable[str]) -> None:
        """Add images, all or none.

        Args:
            image_ids: Ids to add.

        Raises:
            UserError: If an image was added before.
        """
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

    def array(self) -> Array:
        """The ids as a string array (N,), also if there are none."""
        return np.array(self.ids, dtype=np.str_)
