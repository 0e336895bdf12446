"""Build the table of a detection dataset from the files of any format."""

from collections.abc import Sequence

import numpy as np

from stillrobust.data.formats.coco_checks import OVERSHOOT, ROUNDING, clip_boxes
from stillrobust.data.formats.coco_repair import outline_area
from stillrobust.data.formats.coco_table import NOT_POLYGONS, CocoTable, Outlines, build_table
from stillrobust.data.formats.options import Notes
from stillrobust.errors import UserError


class TableBuilder:
    """Collects images and objects.

    Args:
        notes: Counts boxes that are clipped.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes, self._outlines = notes, Outlines()
        self._names: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._image_of: list[int] = []
        self._boxes: list[Sequence[float]] = []
        self._labels: list[int] = []
        self._areas: list[float] = []
        self._crowd: list[bool] = []
        self._places: list[tuple[int, int]] = []

    def add_image(self, image_id: str, size: tuple[int, int]) -> None:
        """Add an image; the objects that follow are in it.

        Args:
            image_id: Its id.
            size: (H, W) in pixels.
        """
        self._names.append(image_id)
        self._sizes.append(size)

    def add_object(
        self,
        box: Sequence[float],
        label: int,
        where: str,
        crowd: bool = False,
        polygon: Sequence[float] | None = None,
        area: float | None = None,
    ) -> None:
        """Add an object of the last image.

        Args:
            box: left, top, right, bottom in pixels.
            label: Index of its class.
            where: Its place in a file, for messages.
            crowd: Whether it is ignored in evaluation as a crowd is.
            polygon: Its outline, ``x1, y1, x2, y2, ...`` in pixels.
            area: Its area in pixels; by default that of the outline or box.

        Raises:
            UserError: If the box is not inside the image.
        """
        height, width = self._sizes[-1]
        left, top, right, bottom = box
        if (
            not (left <= right and top <= bottom)
            or min(left, top) < -OVERSHOOT
            or right > width + OVERSHOOT
            or bottom > height + OVERSHOOT
        ):
            raise UserError(
                f"Expected a box inside its image of {width}x{height} pixels in {where}, but got"
                f" left, top, right, bottom = {[round(side, 2) for side in box]}; correct it"
            )
        if area is None and polygon:
            area = outline_area([list(polygon)], self._sizes[-1])
        self._image_of.append(len(self._names) - 1)
        self._boxes.append(box)
        self._labels.append(label)
        self._crowd.append(crowd)
        self._areas.append((right - left) * (bottom - top) if area is None else area)
        self._places.append(self._outlines.add([list(polygon)]) if polygon else (0, NOT_POLYGONS))

    def build(self, classes: int) -> CocoTable:
        """The table, with boxes clipped to their images.

        Args:
            classes: Number of classes.
        """
        image_of, sizes = np.array(self._image_of, np.int64), np.array(self._sizes, np.int64)
        stated = np.array(self._boxes, np.float64).reshape(-1, 4)
        sizes = sizes.reshape(-1, 2)
        boxes = clip_boxes(stated, sizes[image_of])
        outside = np.abs(boxes - stated).max(1, initial=0) > ROUNDING
        self._notes.count("boxes that exceed their image and were clipped", int(outside.sum()))
        return build_table(
            self._names,
            sizes,
            image_of,
            self._outlines,
            image_ids=range(1, len(self._names) + 1),
            category_ids=range(1, classes + 1),
            ids=np.arange(1, len(stated) + 1).astype(object),
            boxes=boxes,
            labels=np.array(self._labels, np.int64),
            areas=np.array(self._areas, np.float64),
            crowd=np.array(self._crowd, bool),
            places=np.array(self._places, np.int64).reshape(-1, 2),
        )
