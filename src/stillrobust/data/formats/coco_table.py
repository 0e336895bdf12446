"""The content of a COCO file as columns: a million annotations are a few arrays, and not a million
objects of Python.
"""

import hashlib
import json
from array import array
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stillrobust.data.formats.masks import decode_mask
from stillrobust.samples import Array, Target

SMALLEST_SIDE = 32  # pixels of an image in training: mmdetection's CustomDataset._filter_imgs
# pixels of an object's width and height in training: mmdetection's CocoDataset._parse_ann_info
SMALLEST_OBJECT = 1.0
NUMBERS = {int, float}
NOT_POLYGONS = -1


@dataclass
class Outlines:
    """Every ``segmentation`` of a file, taken out while the file is parsed: as lists, polygons
    would need four times the memory.

    A segmentation is then two numbers: the first of its polygons and how many there are, or a place
    in ``others`` and ``NOT_POLYGONS``.
    """

    numbers: "array[float]" = field(default_factory=lambda: array("d"))
    """The coordinates of all polygons, one after the other."""
    ends: "array[int]" = field(default_factory=lambda: array("q", [0]))
    """Where in ``numbers`` each polygon ends, after a zero."""
    others: list[Any] = field(default_factory=lambda: [None])
    """What is no list of polygons, as it stands in the file: run lengths, nothing, or what
    ``decode_mask`` will refuse.
    """

    def take_out(self, entry: dict[str, Any]) -> dict[str, Any]:
        """``json.loads``'s ``object_hook``: an object of the file with the two numbers in place of
        its segmentation.
        """
        segmentation = entry.get("segmentation")
        if segmentation is not None:
            first = len(self.ends) - 1
            if self._packed(segmentation):
                entry["segmentation"] = first, len(self.ends) - 1 - first
            else:
                entry["segmentation"] = len(self.others), NOT_POLYGONS
                self.others.append(segmentation)
        return entry

    def _packed(self, segmentation: object) -> bool:
        """Take in a list of lists of numbers; whether they make polygons is seen when they are
        decoded.
        """
        if type(segmentation) is not list or not segmentation:
            return False
        if not all(
            type(polygon) is list and NUMBERS.issuperset(map(type, polygon))
            for polygon in segmentation
        ):
            return False
        for polygon in segmentation:
            try:
                self.numbers.fromlist(polygon)
            except OverflowError:  # a whole number beyond every float
                return False
            self.ends.append(len(self.numbers))
        return True

    def segmentation(self, first: int, count: int) -> Any:
        """What stood in the file."""
        if count == NOT_POLYGONS:
            return self.others[first]
        return [
            self.numbers[self.ends[place] : self.ends[place + 1]].tolist()
            for place in range(first, first + count)
        ]


@dataclass(frozen=True)
class CocoTable:
    """Images sorted by file name, and the objects of all images as rows, those of one image
    together in the file's order.
    """

    file_names: Sequence[str]
    sizes: Array
    """int64 (images, 2): H, W."""
    starts: Array
    """int64 (images + 1,): the objects of image i are the rows from ``starts[i]`` to ``starts[i +
    1]``.
    """
    ids: Array
    """Of the annotations, as the file has them."""
    boxes: Array
    """float64 (objects, 4): xyxy, inside the image."""
    labels: Array
    """int64 (objects,): from 0."""
    areas: Array
    """float64 (objects,)."""
    crowd: Array
    """bool (objects,)."""
    places: Array
    """int64 (objects, 2): where each object's segmentation is in ``outlines``."""
    outlines: Outlines

    @property
    def has_masks(self) -> bool:
        """Whether every object has an outline; one that is missing would count as an empty mask, so
        masks are all or nothing.
        """
        first, count = self.places.T
        empty = [place for place, other in enumerate(self.outlines.others) if not other]
        return len(first) > 0 and not np.any((count == NOT_POLYGONS) & np.isin(first, empty))

    def target(self, index: int, masks: bool) -> Target:
        """The ground truth of one image, masks decoded if they are wanted."""
        rows = slice(self.starts[index], self.starts[index + 1])
        height, width = self.sizes[index].tolist()
        decoded = None
        if masks:
            decoded = np.zeros((rows.stop - rows.start, height, width), bool)
            for mask, identity, place in zip(
                decoded, self.ids[rows], self.places[rows].tolist(), strict=True
            ):
                mask[:] = decode_mask(
                    self.outlines.segmentation(*place), (height, width), f"annotation {identity}"
                )
        return Target(
            image_id=self.file_names[index],
            size=(height, width),
            boxes=self.boxes[rows].astype(np.float32),
            labels=self.labels[rows].copy(),
            masks=decoded,
            crowd=self.crowd[rows].copy(),
            areas=self.areas[rows].copy(),
        )

    def trainable(self) -> "CocoTable":
        """The same without objects that no detector can learn from, and without the images where
        nothing is left to learn.
        """
        image_of = np.repeat(np.arange(len(self.sizes)), np.diff(self.starts))
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        kept = (self.areas > 0) & (sides.min(1) >= SMALLEST_OBJECT)
        objects = np.bincount(image_of[kept & ~self.crowd], minlength=len(self.sizes))
        images = (self.sizes.min(1) >= SMALLEST_SIDE) & (objects > 0)
        return self._part(images, kept)

    def without(self, names: Container[str]) -> "CocoTable":
        """The same without the images of these file names."""
        images = np.array([name not in names for name in self.file_names], bool)
        return self if images.all() else self._part(images, np.ones(len(self.labels), bool))

    def _part(self, images: Array, objects: Array) -> "CocoTable":
        """Some images, bool (images,), and of their objects some, bool (objects,)."""
        image_of = np.repeat(np.arange(len(self.sizes)), np.diff(self.starts))
        kept = objects & images[image_of]
        counts = np.bincount(image_of[kept], minlength=len(self.sizes))[images]
        columns = {
            name: getattr(self, name)[kept]
            for name in ("ids", "boxes", "labels", "areas", "crowd", "places")
        }
        names = [self.file_names[index] for index in np.flatnonzero(images).tolist()]
        return replace(
            self, file_names=names, sizes=self.sizes[images], starts=_starts(counts), **columns
        )

    def content(self) -> bytes:
        """SHA-256 over what decides a score beside classes, file names and pixels: sizes, boxes,
        labels, areas, crowds, outlines.

        Ids of annotations and what else stands in the file decide none. The order of the
        annotations is in it.
        """
        outlines = np.frombuffer(self.outlines.numbers), np.frombuffer(self.outlines.ends, np.int64)
        digest = hashlib.sha256(json.dumps(self.outlines.others).encode())
        for column in (
            self.sizes,
            self.starts,
            self.boxes,
            self.labels,
            self.areas,
            self.crowd,
            self.places,
            *outlines,
        ):
            # keeps the concatenation unambiguous
            digest.update(f"{column.dtype} {column.shape} ".encode())
            digest.update(np.ascontiguousarray(column).data)
        return digest.digest()


def table_of(
    file_names: Sequence[str], sizes: Array, image_of: Array, outlines: Outlines, **columns: Array
) -> CocoTable:
    """A table from images and objects in any order; ``image_of`` is the place of each object's
    image in ``file_names``.
    """
    order = sorted(range(len(file_names)), key=file_names.__getitem__)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    rows = np.argsort(rank[image_of], kind="stable")
    starts = _starts(np.bincount(image_of, minlength=len(order))[order])
    sorted_columns = {name: column[rows] for name, column in columns.items()}
    return CocoTable(
        [file_names[index] for index in order],
        sizes[order],
        starts,
        outlines=outlines,
        **sorted_columns,
    )


def _starts(counts: Array) -> Array:
    """Where the rows of each image begin, and the end of the last."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
