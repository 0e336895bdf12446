"""The content of a COCO file as columns: a few arrays instead of a million Python objects."""

import copy
import hashlib
import json
from array import array
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stillrobust.data.formats.masks import decode_mask, unpack_run_lengths
from stillrobust.samples import Array, Target

SMALLEST_SIDE = 32  # pixels of an image in training: mmdetection's CustomDataset._filter_imgs
# pixels of an object's width and height in training: mmdetection's CocoDataset._parse_ann_info
SMALLEST_OBJECT = 1.0
NUMBERS = {int, float}
NOT_POLYGONS = -1


@dataclass
class Outlines:
    """All segmentations of a file, packed while it is parsed: lists need four times the memory.

    A segmentation becomes two numbers: the index of its first polygon and the number of polygons,
    or an index in ``others`` and ``NOT_POLYGONS``.

    Attributes:
        numbers: The coordinates of all polygons, concatenated.
        ends: Where each polygon ends in ``numbers``, after a leading zero.
        others: Segmentations that are not lists of polygons, as in the file: run lengths, ``None``,
            or values that ``decode_mask`` refuses.
    """

    numbers: "array[float]" = field(default_factory=lambda: array("d"))
    ends: "array[int]" = field(default_factory=lambda: array("q", [0]))
    others: list[Any] = field(default_factory=lambda: [None])

    def take_out(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Replace the segmentation of a parsed object; an ``object_hook`` for ``parse_json``."""
        segmentation = entry.get("segmentation")
        if type(segmentation) is list:
            segmentation = _as_polygons(segmentation)
        if segmentation is not None:
            first = len(self.ends) - 1
            if self._pack(segmentation):
                entry["segmentation"] = first, len(self.ends) - 1 - first
            else:
                entry["segmentation"] = len(self.others), NOT_POLYGONS
                self.others.append(segmentation)
        return entry

    def add(self, polygons: list[list[float]]) -> tuple[int, int]:
        """Add polygons; the two numbers of their place."""
        first = len(self.ends) - 1
        for polygon in polygons:
            self.numbers.extend(polygon)
            self.ends.append(len(self.numbers))
        return first, len(polygons)

    def _pack(self, segmentation: object) -> bool:
        """Pack a list of lists of numbers, if it is one. Polygons are checked when decoded."""
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
            except OverflowError:  # an integer larger than every float
                return False
            self.ends.append(len(self.numbers))
        return True

    def segmentation(self, first: int, count: int) -> Any:
        """The segmentation as it was in the file."""
        if count == NOT_POLYGONS:
            return self.others[first]
        return [
            self.numbers[self.ends[place] : self.ends[place + 1]].tolist()
            for place in range(first, first + count)
        ]


def _as_polygons(segmentation: list[Any]) -> list[Any]:
    """Polygons without empty ones; a bare list of coordinates is one polygon."""
    if len(segmentation) >= 6 and NUMBERS.issuperset(map(type, segmentation)):
        return [segmentation]
    return [polygon for polygon in segmentation if polygon != []]


@dataclass(frozen=True)
class CocoTable:
    """Images sorted by file name, and the objects of all images as rows.

    The objects of an image are consecutive, in the order of the file.

    Attributes:
        file_names: One name per image.
        sizes: int64 (images, 2), H and W.
        starts: int64 (images + 1,). Image i has the rows from ``starts[i]`` to ``starts[i + 1]``.
        ids: object (objects,), annotation ids.
        boxes: float64 (objects, 4), xyxy, inside the image.
        labels: int64 (objects,), from 0.
        areas: float64 (objects,), pixels.
        crowd: bool (objects,).
        places: int64 (objects, 2), where each object's segmentation is in ``outlines``.
        outlines: All segmentations.
        image_ids: One id of the file per image, by which predictions may name it.
        category_ids: One id of the file per class.
    """

    file_names: Sequence[str]
    sizes: Array
    starts: Array
    ids: Array
    boxes: Array
    labels: Array
    areas: Array
    crowd: Array
    places: Array
    outlines: Outlines
    image_ids: Sequence[int]
    category_ids: Sequence[int]

    @property
    def without_outline(self) -> Array:
        """bool (objects,): the objects without an outline."""
        first, count = self.places.T
        empty = [place for place, other in enumerate(self.outlines.others) if not other]
        return np.asarray((count == NOT_POLYGONS) & np.isin(first, empty))

    def fill_outlines(self) -> "CocoTable":
        """The table with the box as the outline of every object without one."""
        outlines, places = copy.deepcopy(self.outlines), self.places.copy()
        for row in np.flatnonzero(self.without_outline).tolist():
            left, top, right, bottom = self.boxes[row].tolist()
            places[row] = outlines.add([[left, top, right, top, right, bottom, left, bottom]])
        return replace(self, outlines=outlines, places=places)

    def with_classes(self, kept: Sequence[int]) -> "CocoTable":
        """The table with the objects of the classes ``kept``, whose labels become 0, 1, ..."""
        table = self._part(np.ones(len(self.sizes), bool), np.isin(self.labels, kept))
        new = np.zeros(max(kept, default=0) + 1, np.int64)
        new[list(kept)] = np.arange(len(kept))
        numbers = [self.category_ids[index] for index in kept]
        return replace(table, labels=new[table.labels], category_ids=numbers)

    def target(self, index: int, masks: bool) -> Target:
        """The ground truth of one image, with decoded masks if ``masks`` is set."""
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
        """The table without the images of these file names."""
        images = np.array([name not in names for name in self.file_names], bool)
        return self if images.all() else self._part(images, np.ones(len(self.labels), bool))

    def _part(self, images: Array, objects: Array) -> "CocoTable":
        """Some images, bool (images,), with some of their objects, bool (objects,)."""
        image_of = np.repeat(np.arange(len(self.sizes)), np.diff(self.starts))
        kept = objects & images[image_of]
        counts = np.bincount(image_of[kept], minlength=len(self.sizes))[images]
        columns = {
            name: getattr(self, name)[kept]
            for name in ("ids", "boxes", "labels", "areas", "crowd", "places")
        }
        kept_images = np.flatnonzero(images).tolist()
        return replace(
            self,
            file_names=[self.file_names[index] for index in kept_images],
            image_ids=[self.image_ids[index] for index in kept_images],
            sizes=self.sizes[images],
            starts=_starts(counts),
            **columns,
        )

    def content(self) -> bytes:
        """SHA-256 digest of sizes, boxes, labels, areas, crowds, outlines and their order.

        Together with classes, image ids and pixels they determine a score. Annotation ids, other
        fields and the order of images in the file do not.
        """
        digest = hashlib.sha256()
        for column in (self.sizes, self.starts, self.boxes, self.labels, self.areas, self.crowd):
            # keeps the concatenation unambiguous
            digest.update(f"{column.dtype} {column.shape} ".encode())
            digest.update(np.ascontiguousarray(column).data)
        numbers = np.frombuffer(self.outlines.numbers)
        ends = np.frombuffer(self.outlines.ends, np.int64)
        for first, count in self.places.tolist():
            if count == NOT_POLYGONS:
                digest.update(_canonical(self.outlines.others[first]))
            else:
                polygons = ends[first : first + count + 1]
                digest.update(np.diff(polygons).tobytes())
                digest.update(numbers[polygons[0] : polygons[-1]].data)
        return digest.digest()


def _canonical(segmentation: Any) -> bytes:
    """Run lengths as a list, whatever way they were written; other values as JSON."""
    if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), str):
        runs = unpack_run_lengths(segmentation["counts"])
        segmentation = {**segmentation, "counts": runs or segmentation["counts"]}
    return json.dumps(segmentation or None, sort_keys=True).encode()


def build_table(
    file_names: Sequence[str],
    sizes: Array,
    image_of: Array,
    outlines: Outlines,
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    **columns: Array,
) -> CocoTable:
    """Build a table from images and objects in any order.

    Args:
        file_names: One name per image.
        sizes: int64 (images, 2), H and W.
        image_of: int64 (objects,), index of each object's image.
        outlines: All segmentations.
        image_ids: One id of the file per image.
        category_ids: One id of the file per class.
        **columns: The other columns of ``CocoTable``.

    Returns:
        The sorted table.
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
        image_ids=[image_ids[index] for index in order],
        category_ids=category_ids,
        **sorted_columns,
    )


def _starts(counts: Array) -> Array:
    """The first row of each image, and the end of the last."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
