"""Every example exactly once."""

from collections.abc import Iterable

from stillrobust.errors import UserError


class SeenImages:
    """The ids of the images that a metric has counted, in order."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._known: set[str] = set()

    def add(self, image_ids: Iterable[str]) -> None:
        """Add images; raises ``UserError`` naming one that was there already."""
        for image_id in image_ids:
            if image_id in self._known:
                raise UserError(f"Expected every image once, but {image_id!r} was counted twice; check the dataset's image ids")
            self._known.add(image_id)
            self.ids.append(image_id)
