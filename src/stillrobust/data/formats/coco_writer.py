"""Write datasets in COCO's format."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stillrobust.data.formats.masks import encode_mask
from stillrobust.data.reading import write_image
from stillrobust.samples import Sample, Target
from stillrobust.storage.files import make_folder


def write_coco(folder: Path, split: str, samples: Iterable[Sample], classes: Sequence[str]) -> None:
    """Write a COCO dataset.

    Images are written to ``folder/<split>/<image_id>`` as PNG, and annotations to
    ``folder/annotations/instances_<split>.json``.

    Args:
        folder: Folder of the dataset.
        split: Name of the split.
        samples: Samples with boxes and labels; masks, crowd and areas are optional.
        classes: Class names, in the order of the labels.
    """
    document: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
    }
    for image_number, sample in enumerate(samples, 1):
        target = sample.target
        path = folder / split / target.image_id
        make_folder(path.parent)
        write_image(path, sample.image)
        height, width = target.size
        document["images"].append(
            {"id": image_number, "file_name": target.image_id, "height": height, "width": width}
        )
        for entry in annotation_entries(target):
            number = len(document["annotations"]) + 1
            document["annotations"].append({"id": number, "image_id": image_number, **entry})
    make_folder(folder / "annotations")
    (folder / "annotations" / f"instances_{split}.json").write_text(
        json.dumps(document), encoding="utf-8"
    )


def annotation_entries(target: Target) -> list[dict[str, Any]]:
    """The COCO annotations of one image, without ids.

    Args:
        target: Ground truth with boxes and labels.

    Returns:
        One dict per object.

    Raises:
        ValueError: If boxes or labels are missing.
    """
    if target.boxes is None or target.labels is None:
        raise ValueError(f"{target.image_id}: a COCO file needs boxes and labels")
    entries = []
    for index, (box, label) in enumerate(
        zip(target.boxes.tolist(), target.labels.tolist(), strict=True)
    ):
        left, top, right, bottom = box
        area = (
            (right - left) * (bottom - top) if target.areas is None else float(target.areas[index])
        )
        entry: dict[str, Any] = {
            "category_id": label + 1,
            "bbox": [left, top, right - left, bottom - top],
            "area": area,
            "iscrowd": 0 if target.crowd is None else int(target.crowd[index]),
        }
        if target.masks is not None:
            entry["segmentation"] = encode_mask(target.masks[index])
        entries.append(entry)
    return entries
