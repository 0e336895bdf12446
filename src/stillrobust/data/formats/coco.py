"""Detection data in COCO's format: one JSON file with boxes and masks, and a folder of images."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stillrobust.data.bad_images import LeftOut
from stillrobust.data.formats.coco_checks import AbsentImages, parse_coco
from stillrobust.data.formats.coco_table import SMALLEST_SIDE, CocoTable
from stillrobust.data.formats.masks import encode_mask
from stillrobust.data.reading import fingerprint, read_image, require_split, write_image
from stillrobust.errors import BadImageError, UserError
from stillrobust.samples import DatasetInfo, Sample, Target

# What COCO's own downloads have beside the instances: no splits.
OTHER_KINDS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


@dataclass(frozen=True)
class CocoDataset:
    """Images with boxes, labels and, where every annotation has an outline, masks; checked when it
    is opened.

    Boxes come out as float32 xyxy, clipped to the image; labels count from 0 in the order of COCO's
    category ids.
    """

    images: Path
    """The folder that ``file_name`` is relative to."""
    annotations: Path
    """The JSON file."""
    require_objects: bool = False
    """For training: leave out what there is nothing to learn from, as mmdetection does.

    Objects of no area or less than a pixel wide or high go (``_parse_ann_info``), then images with
    a side under 32 pixels or without an object (``filter_empty_gt``). Crowds alone do not count as
    objects, as in detectron2; train2017 has no image with crowds alone, so that both tools, and
    this one, keep 117,266 of its 118,287 images.
    """
    name: str = ""
    """Shown in reports; the annotation file's name where it is empty."""
    left_out: LeftOut | None = field(default=None, repr=False, compare=False)
    """Takes the images that cannot be used by what the file says of them; ``None``: they are
    refused.
    """
    classes: tuple[str, ...] = field(init=False, default=())
    has_masks: bool = field(init=False, default=False)
    table: CocoTable = field(init=False, repr=False)

    def __post_init__(self) -> None:
        classes, table = parse_coco(self.images, self.annotations, self.left_out)
        has_masks = table.has_masks
        if self.require_objects:
            table = table.trainable()
        if not table.file_names:
            raise UserError(
                f"Expected at least one image of {SMALLEST_SIDE} pixels or more with objects in"
                f" {self.annotations}, but found none; add some"
            )
        object.__setattr__(self, "classes", tuple(classes))
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "has_masks", has_masks)

    @cached_property
    def info(self) -> DatasetInfo:
        """What this dataset says of itself; the fingerprint reads all images once where the set is
        small.
        """
        ids = self.table.file_names
        digest = fingerprint(
            self.classes, ids, (self.images / name for name in ids), self.table.content()
        )
        name = self.name or self.annotations.stem
        return DatasetInfo(name, "detection", self.classes, len(ids), digest, self.has_masks)

    def image_id(self, index: int) -> str:
        """The image's file name, as the annotations have it."""
        return self.table.file_names[index]

    def __len__(self) -> int:
        return len(self.table.file_names)

    def __getitem__(self, index: int, /) -> Sample:
        try:
            target = self.table.target(range(len(self))[index], self.has_masks)
        except UserError as error:
            raise BadImageError(str(error), "a damaged mask") from None
        path = self.images / target.image_id
        image = read_image(path)
        if image.shape[:2] != target.size:
            raise BadImageError(
                f"Expected {path} to be {target.size[1]}x{target.size[0]} pixels as"
                f" {self.annotations.name} says, but it is {image.shape[1]}x{image.shape[0]};"
                " correct the JSON or the image (and its EXIF orientation)",
                "not of the size that its annotations say",
            )
        return Sample(image, target)


def coco_splits(root: Path) -> list[str]:
    """The splits that ``open_coco`` finds annotations of, sorted."""
    stems = [
        path.stem
        for path in (root / "annotations").glob("*.json")
        if not path.name.startswith((".", *OTHER_KINDS))
    ]
    return sorted({stem.removeprefix("instances_").removesuffix("2017") for stem in stems})


def open_coco(
    root: Path, split: str, training: bool, left_out: LeftOut | None = None
) -> CocoDataset:
    """A split of a COCO folder: ``annotations/instances_<split>.json`` and ``<split>/``, or the
    layouts near to it.
    """
    stems = (f"instances_{split}", f"instances_{split}2017", split, f"{split}2017")
    files = [root / "annotations" / f"{stem}.json" for stem in stems]
    annotations = next((path for path in files if path.is_file()), None)
    if annotations is None:
        require_split("COCO", root, split, set(coco_splits(root)) - {split})
        raise AssertionError("require_split raises for a missing split")
    candidates = [
        *(place / name for place in (root, root / "images") for name in (split, f"{split}2017")),
        root / "images",
    ]
    images = next((folder for folder in candidates if folder.is_dir()), None)
    if images is None:
        listed = ", ".join(str(folder) for folder in candidates)
        raise AbsentImages(
            f"Expected the images of split {split!r} in one of {listed}, but none exists; move them"
            " there"
        )
    return CocoDataset(
        images,
        annotations,
        require_objects=training,
        name=f"{root.name}/{split}",
        left_out=left_out,
    )


def write_coco(folder: Path, split: str, samples: Iterable[Sample], classes: Sequence[str]) -> None:
    """Write samples with boxes and labels (masks, crowd and areas where there are any) as a COCO
    dataset.

    Images go to ``folder/<split>/<image_id>`` as PNG, annotations to
    ``folder/annotations/instances_<split>.json``.
    """
    document: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
    }
    for image_number, sample in enumerate(samples, 1):
        target = sample.target
        path = folder / split / target.image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, sample.image)
        height, width = target.size
        document["images"].append(
            {"id": image_number, "file_name": target.image_id, "height": height, "width": width}
        )
        for entry in annotation_entries(target):
            number = len(document["annotations"]) + 1
            document["annotations"].append({"id": number, "image_id": image_number, **entry})
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / f"instances_{split}.json").write_text(
        json.dumps(document), encoding="utf-8"
    )


def annotation_entries(target: Target) -> list[dict[str, Any]]:
    """COCO annotations of one image, without ids."""
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
