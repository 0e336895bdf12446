"""Detections and classifications of one cell, read from JSON, JSON Lines or CSV in small parts."""

import csv
import gzip
import json
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from stillrobust.data.formats.masks import decode_mask
from stillrobust.errors import UserError
from stillrobust.evaluation.prediction_manifest import Manifest
from stillrobust.samples import Array, Prediction
from stillrobust.untrusted import open_regular_file

CHUNK = 1 << 20  # characters
LONGEST_ENTRY = 1 << 26  # characters; a longer one is not an entry but a damaged file
SPACE = re.compile(r"\s*")
NAME_TYPES = (int, str, float)


def open_text(path: Path) -> IO[str]:
    """Open a text file, compressed if its name ends with ``.gz``. A byte-order mark is skipped."""
    open_regular_file(path).close()  # a device or a pipe is refused
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def read_entries(path: Path) -> Iterator[dict[str, Any]]:
    """Read the objects of a JSON array or of JSON Lines one by one.

    Args:
        path: ``.json`` or ``.jsonl``, also with ``.gz``.

    Yields:
        The objects, in their order.

    Raises:
        UserError: If the file is damaged, or has anything but objects.
    """

    def reject(constant: str) -> NoReturn:
        raise UserError(
            f"Expected finite numbers in {path}, but entry {count + 1} has {constant}; correct the"
            " predictions"
        )

    decode = json.JSONDecoder(parse_constant=reject).raw_decode
    count, before = 0, ""
    lines = ".jsonl" in path.suffixes[-2:]
    with open_text(path) as file:
        text, place, ended = "", 0, False
        while True:
            place = SPACE.match(text, place).end()  # type: ignore[union-attr]
            if place < len(text) and not lines:
                expected = {"": "[", "[": "{]", "}": ",]", ",": "{", "]": ""}[before]
                mark = text[place]
                if mark not in expected:
                    raise _damaged(path, count)
                if mark != "{":
                    before, place = mark, place + 1
                    continue
            if place < len(text):
                try:
                    entry, place = decode(text, place)
                except json.JSONDecodeError:
                    if ended or len(text) - place > LONGEST_ENTRY:
                        raise _damaged(path, count) from None
                except UserError:
                    raise
                except (RecursionError, ValueError):  # nested too deeply, or thousands of digits
                    raise _damaged(path, count) from None
                else:
                    if not isinstance(entry, dict):
                        raise _damaged(path, count)
                    before, count = "}", count + 1
                    yield entry
                    continue
            if ended:
                break
            part = file.read(CHUNK)
            text, place, ended = text[place:] + part, 0, not part
    if not lines and before != "]":
        raise _damaged(path, count)


def _damaged(path: Path, count: int) -> UserError:
    kind = "JSON Lines of objects" if ".jsonl" in path.suffixes else "a JSON array of objects"
    return UserError(
        f"Expected {kind} in {path}, but after entry {count} it is damaged or cut off; write the"
        " file again"
    )


class Names:
    """Look-up of images and classes by the names that a file uses."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self.images: dict[object, int] = {}
        # a file name that is also the id of another image means that image
        for names in (manifest.image_ids, manifest.images, manifest.files):
            for index, name in enumerate(names):
                self.images.setdefault(name, index)
        self.labels: dict[object, int] = {}
        for classes in (manifest.category_ids, manifest.classes):
            self.labels |= {name: label for label, name in enumerate(classes)}

    def image(self, name: object) -> int:
        """Return the index of an image by its number or file name."""
        index = self.images.get(name) if type(name) in NAME_TYPES else None
        if index is None:
            raise UserError(
                f"Expected images of the manifest in {self.path}, but got {name!r:.80}; use the"
                " columns 'id' or 'image' of images.csv"
            )
        return index

    def label(self, name: object, image: object) -> int:
        """Return the label of a class by its number or name."""
        label = self.labels.get(name) if type(name) in NAME_TYPES else None
        if label is None:
            raise UserError(
                f"Expected classes of the manifest in {self.path}, but got {name!r:.80} for"
                f" {image!r}; use an id or a name of 'classes' in manifest.json"
            )
        return label


@dataclass(frozen=True)
class Detections:
    """The detections of one cell as columns, sorted by image.

    Attributes:
        sizes: (H, W) of each image.
        starts: int64 (images + 1,). Image i has the rows from ``starts[i]`` to ``starts[i + 1]``.
        rows: int64 (D,), where each detection was in the file.
        boxes: float64 (D, 4), x, y, width, height, in the order of the file.
        labels: int16 (D,), likewise.
        scores: float64 (D,), likewise.
        segmentations: One per detection, in the order of the file; empty without masks.
        path: The file, for messages.
    """

    sizes: tuple[tuple[int, int], ...]
    starts: Array
    rows: Array
    boxes: Array
    labels: Array
    scores: Array
    segmentations: list[Any]
    path: Path
    labels_only: bool = False

    @property
    def has_masks(self) -> bool | None:
        """Whether detections have masks; ``None`` without detections."""
        return bool(self.segmentations) if len(self.rows) else None

    def prediction(self, index: int, masks: bool) -> Prediction:
        """The detections of an image, in the order of the file."""
        rows = self.rows[self.starts[index] : self.starts[index + 1]]
        boxes = self.boxes[rows]
        boxes[:, 2:] += boxes[:, :2]
        decoded = None
        if masks:
            decoded = np.zeros((len(rows), *self.sizes[index]), bool)
            for mask, row in zip(decoded, rows.tolist(), strict=True):
                where = f"detection {row + 1} of {self.path}"
                mask[:] = decode_mask(self.segmentations[row], self.sizes[index], where)
        return Prediction(
            boxes=boxes.astype(np.float32),
            labels=self.labels[rows].astype(np.int64),
            scores=self.scores[rows].astype(np.float32),
            masks=decoded,
        )


def read_detections(path: Path, manifest: Manifest, missing_are_empty: bool) -> Detections:
    """Read COCO results. An entry without ``category_id`` lists an image without detections.

    Args:
        path: JSON array or JSON Lines.
        manifest: The export that they are for.
        missing_are_empty: Whether images without an entry have no detections.

    Raises:
        UserError: For the first problem; see ``read_predictions``.
    """
    names = Names(path, manifest)
    images, labels = array("i"), array("h")
    numbers = array("d")  # x, y, width, height, score
    segmentations: list[Any] = []
    listed = np.zeros(len(manifest.images), bool)  # as without detections
    for entry in read_entries(path):
        named = entry.get("image_id")
        index = names.image(named)
        if "category_id" not in entry and "bbox" not in entry:
            if listed[index]:
                raise _listed_twice(path, manifest, index)
            listed[index] = True
            continue
        label = names.label(entry.get("category_id"), named)
        try:
            x, y, width, height = entry["bbox"]
            numbers.extend((x, y, width, height, entry["score"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(
                f"Expected a 'bbox' of four numbers and a 'score' in {path}, but detection"
                f" {len(labels) + 1}, of {named!r}, has {entry.get('bbox')!r:.60} and"
                f" {entry.get('score')!r:.20}; write COCO results"
            ) from None
        images.append(index)
        labels.append(label)
        if (segmentation := entry.get("segmentation")) is not None:
            segmentations.append(segmentation)
        if segmentations and len(segmentations) != len(labels):
            raise UserError(
                f"Expected a segmentation in all detections of {path} or in none, but detection"
                f" {len(labels)}, of {named!r}, differs from those before; write it in all"
            )
    image_of = np.frombuffer(images, np.int32)
    table = np.frombuffer(numbers).reshape(-1, 5)
    _check_numbers(path, manifest, image_of, table)
    counts = np.bincount(image_of, minlength=len(listed))
    _check_images(path, manifest, listed, counts, missing_are_empty)
    rows = np.argsort(image_of, kind="stable")
    label_column = np.frombuffer(labels, np.int16)
    _check_duplicates(path, manifest, image_of[rows], rows, table, label_column)
    return Detections(
        manifest.sizes,
        np.concatenate([[0], np.cumsum(counts)]),
        rows,
        table[:, :4],
        label_column,
        table[:, 4],
        segmentations,
        path,
    )


def _listed_twice(path: Path, manifest: Manifest, index: int) -> UserError:
    return UserError(
        f"Expected {manifest.images[index]!r} once as without detections in {path}, but it has"
        " another entry too; remove one"
    )


def _check_images(
    path: Path, manifest: Manifest, listed: Array, counts: Array, missing_are_empty: bool
) -> None:
    """Require that every image has detections or is listed as without any, but not both."""
    twice = np.flatnonzero(listed & (counts > 0))
    if len(twice):
        raise _listed_twice(path, manifest, int(twice[0]))
    missing = np.flatnonzero(~listed & (counts == 0))
    if len(missing) and not missing_are_empty:
        raise UserError(
            f"Expected every image in {path}, but {len(missing):,} have no entry, first"
            f" {manifest.images[missing[0]]!r}; list images without detections as"
            f' {{"image_id": {manifest.image_ids[missing[0]]}}}, or, if the writer leaves them out,'
            " give --missing-are-empty"
        )


def _check_numbers(path: Path, manifest: Manifest, image_of: Array, table: Array) -> None:
    """Require finite numbers, and widths and heights that are not negative."""
    wrong = np.flatnonzero(~np.isfinite(table).all(1) | (table[:, 2:4] < 0).any(1))
    if len(wrong):
        row = int(wrong[0])
        x, y, width, height, score = table[row].tolist()
        raise UserError(
            f"Expected finite numbers, and x, y, width, height as 'bbox', in {path}, but detection"
            f" {row + 1}, of {manifest.images[image_of[row]]!r}, has {[x, y, width, height]} with"
            f" score {score}; correct the predictions"
        )


def _check_duplicates(
    path: Path, manifest: Manifest, image_of: Array, rows: Array, table: Array, labels: Array
) -> None:
    """Require that no detection occurs twice, as in results of two processes that were joined."""
    if not len(rows):
        return
    # equal detections have equal scores, so only those are compared in full
    order = np.lexsort((table[rows, 4], image_of))
    same = (np.diff(image_of[order]) == 0) & (np.diff(table[rows, 4][order]) == 0)
    chosen = rows[order[np.append(same, False) | np.append(False, same)]]
    image = np.empty(len(rows), np.int32)
    image[rows] = image_of
    columns = np.column_stack((image[chosen], labels[chosen], table[chosen]))
    by_value = np.lexsort((chosen, *columns.T))
    equal = np.flatnonzero((np.diff(columns[by_value], axis=0) == 0).all(1))
    if len(equal):
        first, second = chosen[by_value[equal[0] : equal[0] + 2]].tolist()
        raise UserError(
            f"Expected each detection once in {path}, but one of"
            f" {manifest.images[image[first]]!r} occurs twice, as detections {first + 1} and"
            f" {second + 1}; remove duplicates"
        )


@dataclass(frozen=True)
class Classifications:
    """The probabilities, or the labels, of one cell.

    Attributes:
        classes: Number of classes.
        probabilities: float32 (images, classes), or ``None`` if the file has labels.
        labels: int64 (images,), or ``None`` if the file has probabilities.
    """

    classes: int
    probabilities: Array | None
    labels: Array | None
    has_masks: bool | None = None

    @property
    def labels_only(self) -> bool:
        """Whether the file has no probabilities."""
        return self.probabilities is None

    def prediction(self, index: int, masks: bool) -> Prediction:
        """The probabilities of an image; for a label 1 for its class."""
        if self.probabilities is not None:
            return Prediction(probabilities=self.probabilities[index])
        assert self.labels is not None
        certain = np.zeros(self.classes, np.float32)
        certain[self.labels[index]] = 1
        return Prediction(probabilities=certain)


def read_classifications(path: Path, manifest: Manifest) -> Classifications:
    """Read a CSV, or JSON entries with ``image_id`` and ``label`` or ``probabilities``.

    Args:
        path: The file.
        manifest: The export that the predictions are for.

    Raises:
        UserError: For the first problem; see ``read_predictions``.
    """
    names = Names(path, manifest)
    names.labels = {name: label for label, name in enumerate(manifest.classes)}
    seen = np.zeros(len(manifest.images), bool)
    labels: Array | None = None
    probabilities: Array | None = None
    rows = _csv_rows(path, manifest) if ".csv" in path.suffixes[-2:] else _json_rows(path, manifest)
    for name, answer in rows:
        index = names.image(name)
        if seen[index]:
            raise UserError(
                f"Expected each image once in {path}, but {name!r} occurs twice; remove one"
            )
        seen[index] = True
        if isinstance(answer, np.ndarray):
            if probabilities is None:
                probabilities = np.zeros((len(seen), len(manifest.classes)), np.float32)
            if not np.isfinite(answer).all():
                raise UserError(
                    f"Expected finite probabilities in {path}, but {name!r} has one that is not a"
                    " number; correct the predictions"
                )
            probabilities[index] = answer
        else:
            labels = np.zeros(len(seen), np.int64) if labels is None else labels
            labels[index] = names.label(answer, name)
        if labels is not None and probabilities is not None:
            raise UserError(
                f"Expected labels or probabilities in {path}, but got both, first for {name!r};"
                " write one of them for all images"
            )
    missing = np.flatnonzero(~seen)
    if len(missing):
        raise UserError(
            f"Expected every image in {path}, but {len(missing):,} are missing, first"
            f" {manifest.images[missing[0]]!r}; predict them too"
        )
    return Classifications(len(manifest.classes), probabilities, labels)


def _csv_rows(path: Path, manifest: Manifest) -> Iterator[tuple[object, Any]]:
    """Yield image and label (text), or image and probabilities float64 (classes,)."""
    with open_text(path) as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header == ["image", "label"]:
            read: Callable[[list[str]], Any] = lambda values: values[0]  # noqa: E731
        elif header[:1] == ["image"] and sorted(header[1:]) == sorted(manifest.classes):
            columns = [header.index(name, 1) - 1 for name in manifest.classes]
            read = lambda values: np.array(values, np.float64)[columns]  # noqa: E731
        else:
            raise UserError(
                f"Expected the columns image,label, or image and the {len(manifest.classes)}"
                f" classes, in {path}, but got {','.join(header)!r:.80}; correct the first line"
            )
        for number, row in enumerate(reader, 2):
            try:
                if len(row) != len(header):
                    raise ValueError
                yield row[0], read(row[1:])
            except ValueError:
                raise UserError(
                    f"Expected {len(header)} values in line {number} of {path}, numbers if they are"
                    f" probabilities, but got {','.join(row)!r:.80}; correct the line"
                ) from None


def _json_rows(path: Path, manifest: Manifest) -> Iterator[tuple[object, Any]]:
    """Yield image and label, or image and probabilities float64 (classes,)."""
    for entry in read_entries(path):
        name, values = entry.get("image_id"), entry.get("probabilities")
        if values is None:
            yield name, entry.get("label")
            continue
        try:
            if isinstance(values, dict):
                values = (
                    [values[one] for one in manifest.classes]
                    if len(values) == len(manifest.classes)
                    else []
                )
            found = np.array(values, np.float64)
            if found.shape != (len(manifest.classes),):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"Expected {len(manifest.classes)} probabilities, one per class of the manifest,"
                f" in {path}, but {name!r} has {values!r:.60}; correct them"
            ) from None
        yield name, found
