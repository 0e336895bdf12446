"""The manifest of exported images: what predictions that are made elsewhere are checked against.

EXPORT/manifest.json          protocol, classes and exported cells
EXPORT/images.csv             image, id, file, height, width: one row per image
EXPORT/fog_3.sha256           SHA-256 and path of every image of a cell; for ``sha256sum -c``
EXPORT/fog/3/street/01.png    the image street/01.jpg under fog at severity 3
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from stillrobust.data.formats.detection import DetectionDataset
from stillrobust.errors import UserError
from stillrobust.evaluation.protocol import Protocol
from stillrobust.grid import CLEAN, Place
from stillrobust.metrics import METRICS
from stillrobust.samples import Dataset
from stillrobust.storage.files import read_bytes, write_whole
from stillrobust.untrusted import parse_json
from stillrobust.user_files import display_name

IMAGE_COLUMNS = ("image", "id", "file", "height", "width")
NOT_PIXELS = ("examples", "batch_size", "workers", "shared", "clean")
"""Fields of a ``Protocol`` that do not determine the exported images."""


@dataclass(frozen=True)
class Manifest:
    """The images and cells of an export."""

    circumstances: dict[str, Any]
    """What is stored with every score, without the model."""
    protocol: Protocol
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    """One number per class, by which detections may name it: that of the COCO file, else from 1."""
    cells: tuple[Place, ...]
    """Exported cells; a user's corruption by its path and hash."""
    images: tuple[str, ...]
    """Image ids in the order of the dataset."""
    image_ids: tuple[int, ...]
    """One number per image: that of the COCO file, else from 1."""
    files: tuple[str, ...]
    """Path of each image below the folder of a cell."""
    sizes: tuple[tuple[int, int], ...]
    """(H, W) of each image."""

    @property
    def task(self) -> str:
        """Task of the dataset."""
        return str(self.circumstances["task"])


def cell_name(place: Place) -> str:
    """Return the name of a cell's files, such as ``fog_3``."""
    return f"{display_name(place[0])}_{place[1]}"


def protocol_values(protocol: Protocol) -> dict[str, Any]:
    """Return the fields of a protocol that determine the exported images, as plain data."""
    return {
        field.name: getattr(protocol, field.name)
        for field in fields(protocol)
        if field.name not in NOT_PIXELS
    }


def cell_protocol(protocol: Protocol, corruption: str, severities: tuple[int, ...]) -> Protocol:
    """Return the protocol of some cells of one corruption, for images that are selected already."""
    clean = corruption == CLEAN[0]
    return replace(
        protocol,
        corruptions=() if clean else (corruption,),
        severities=() if clean else severities,
        clean=clean,
        budget=None,
        images=None,
    )


def coco_ids(dataset: Dataset) -> tuple[list[int], list[int]]:
    """Return the numbers by which COCO results name images and categories.

    Returns:
        One number per image and one per class: those of the COCO file, else counted from 1.
    """
    indices: Sequence[int] = range(len(dataset))
    whole: Any = dataset
    while hasattr(whole, "indices") and hasattr(whole, "dataset"):  # a part of another dataset
        indices = [whole.indices[index] for index in indices]
        whole = whole.dataset
    if isinstance(whole, DetectionDataset):
        image_ids = [whole.table.image_ids[index] for index in indices]
        return image_ids, list(whole.table.category_ids)
    return list(range(1, len(dataset) + 1)), list(range(1, len(dataset.info.classes) + 1))


def write_manifest(
    root: Path,
    circumstances: dict[str, Any],
    protocol: Protocol,
    classes: Sequence[str],
    category_ids: Sequence[int],
    cells: Sequence[Place],
) -> None:
    """Write ``manifest.json``.

    Args:
        root: Folder of the export.
        circumstances: See ``Manifest``.
        protocol: Protocol of the export.
        classes: Class names.
        category_ids: One number per class.
        cells: Complete cells.
    """
    content = {
        "circumstances": circumstances,
        "protocol": protocol_values(protocol),
        "classes": [
            {"id": number, "name": name} for number, name in zip(category_ids, classes, strict=True)
        ],
        "cells": [
            {
                "corruption": corruption,
                "severity": severity,
                "name": cell_name((corruption, severity)),
            }
            for corruption, severity in cells
        ],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_whole({root / "manifest.json": text.encode()})


def write_images(root: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write ``images.csv``: a row of ``IMAGE_COLUMNS`` for each image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(IMAGE_COLUMNS)
    writer.writerows(rows)
    write_whole({root / "images.csv": text.getvalue().encode()})


def read_manifest(root: Path) -> Manifest:
    """Read the manifest of an export.

    Args:
        root: Folder that ``stillrobust predictions export`` wrote.

    Raises:
        UserError: If there is none, or it cannot be read.
    """
    path = root / "manifest.json"
    content, table = read_bytes(path), read_bytes(root / "images.csv")
    if content is None or table is None:
        raise UserError(
            f"Expected a finished export with manifest.json and images.csv in {root}, but there is"
            " none; run `stillrobust predictions export`, or check the path"
        )
    try:
        found = parse_json(content)
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in found["protocol"].items()
        }
        rows = list(csv.reader(io.StringIO(table.decode())))[1:]
        images, image_ids, files, heights, widths = zip(*rows, strict=True)
        circumstances = dict(found["circumstances"])
        if circumstances["task"] not in METRICS:
            raise ValueError(f"there is no task {circumstances['task']!r}")
        return Manifest(
            circumstances=circumstances,
            protocol=Protocol(**values),
            classes=tuple(one["name"] for one in found["classes"]),
            category_ids=tuple(one["id"] for one in found["classes"]),
            cells=tuple((one["corruption"], one["severity"]) for one in found["cells"]),
            images=images,
            image_ids=tuple(map(int, image_ids)),
            files=files,
            sizes=tuple(zip(map(int, heights), map(int, widths), strict=True)),
        )
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(
            f"Expected a manifest that `stillrobust predictions export` wrote in {root}, but it"
            f" cannot be read ({error}); export into another folder"
        ) from None
