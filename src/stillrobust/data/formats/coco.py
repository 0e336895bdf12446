"""The format ``coco``: one JSON file with boxes and masks, and a folder of images."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stillrobust.data.bad_images import Faults
from stillrobust.data.formats import Format, OpenOptions
from stillrobust.data.formats.checks import FileChecker, PartCheck, run_check
from stillrobust.data.formats.coco_checks import MissingImagesError, parse_coco
from stillrobust.data.formats.coco_table import SMALLEST_SIDE, CocoTable
from stillrobust.data.formats.masks import encode_mask
from stillrobust.data.official import coco_2017
from stillrobust.data.official.layout import COUNTS
from stillrobust.data.reading import fingerprint, read_image, require_split, write_image
from stillrobust.errors import BadImageError, UserError
from stillrobust.samples import DatasetInfo, Sample, Target

# Other annotation files of COCO's downloads, which are not splits.
OTHER_KINDS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


@dataclass(frozen=True)
class CocoDataset:
    """Images with boxes, labels and, if every annotation has an outline, masks.

    Annotations are checked when the dataset is opened. Boxes are clipped to the image. Labels count
    from 0 in the order of COCO's category ids.

    With ``require_objects``, objects without area or under a pixel wide or high are dropped, as in
    mmdetection's ``_parse_ann_info``. Then images with a side under 32 pixels or without an object
    are dropped, as in its ``filter_empty_gt``. Crowds alone do not count as objects, as in
    detectron2. No image of train2017 has crowds only, so both tools and this one keep 117,266 of
    its 118,287 images.

    Attributes:
        images: Folder that ``file_name`` is relative to.
        annotations: JSON file.
        require_objects: For training: drop images and objects that cannot be learned from.
        name: Name in reports; by default the name of the annotation file.
        faults: Collects images with unusable annotations. ``None`` makes them an error.
        classes: Class names.
        has_masks: Whether every annotation has an outline.
        table: The images and objects.
    """

    images: Path
    annotations: Path
    require_objects: bool = False
    name: str = ""
    faults: Faults | None = field(default=None, repr=False, compare=False)
    classes: tuple[str, ...] = field(init=False, default=())
    has_masks: bool = field(init=False, default=False)
    table: CocoTable = field(init=False, repr=False)

    def __post_init__(self) -> None:
        classes, table = parse_coco(self.images, self.annotations, self.faults)
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
        """Facts about the dataset. For the fingerprint, all images of a small set are read."""
        ids = self.table.file_names
        digest = fingerprint(
            self.classes, ids, (self.images / name for name in ids), self.table.content()
        )
        name = self.name or self.annotations.stem
        return DatasetInfo(name, "detection", self.classes, len(ids), digest, self.has_masks)

    def image_id(self, index: int) -> str:
        """The file name in the annotations."""
        return self.table.file_names[index]

    def __len__(self) -> int:
        return len(self.table.file_names)

    def target(self, index: int) -> Target:
        """The ground truth of an image. The image is not read."""
        try:
            return self.table.target(range(len(self))[index], self.has_masks)
        except UserError as error:
            raise BadImageError(str(error), "a damaged mask") from None

    def __getitem__(self, index: int, /) -> Sample:
        target = self.target(index)
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
    """Names of the splits with annotations, sorted."""
    stems = [
        path.stem
        for path in (root / "annotations").glob("*.json")
        if not path.name.startswith((".", *OTHER_KINDS))
    ]
    return sorted({stem.removeprefix("instances_").removesuffix("2017") for stem in stems})


def open_coco(root: Path, split: str, options: OpenOptions) -> CocoDataset:
    """Open a split: ``annotations/instances_<split>.json`` with ``<split>/``, or a similar layout.

    Args:
        root: Folder of the dataset.
        split: Name of the split, also without ``instances_`` and ``2017``.
        options: ``training`` and ``faults`` apply.

    Returns:
        The checked dataset.

    Raises:
        UserError: If annotations are missing or wrong.
        MissingImagesError: If image files are missing.
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
        raise MissingImagesError(
            f"Expected the images of split {split!r} in one of {listed}, but none exists; move them"
            " there"
        )
    return CocoDataset(
        images,
        annotations,
        require_objects=options.training,
        name=f"{root.name}/{split}",
        faults=options.faults,
    )


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


def check_coco(root: Path, checker: FileChecker) -> Iterator[PartCheck]:
    """Check every split with annotations; COCO 2017 needs train and val."""
    splits = coco_splits(root)
    required = ["train", "val"] if coco_2017.is_coco_2017(root) else []
    folder = root / "annotations"
    if not splits and not required:
        text = f"there is no instances_<split>.json in {folder}"
        yield PartCheck("annotations", "missing", text)
    for split in dict.fromkeys([*required, *splits]):
        if split in splits:
            yield run_check(split, _check_split, root, split, checker)
        else:
            text = f"there is no {folder / f'instances_{split}2017.json'}"
            yield PartCheck(split, "missing", text)


def _check_split(root: Path, split: str, checker: FileChecker) -> PartCheck:
    checker.progress(f"parse {split}", 0, 1, "annotations")
    try:
        data = open_coco(root, split, OpenOptions())
    except MissingImagesError as error:
        return PartCheck(split, "missing", str(error))
    expected = COUNTS["coco"].get(split) if data.annotations.stem.endswith("2017") else None
    note = ""
    if split == "train":
        trainable = len(data.table.trainable().file_names)
        note = f", {trainable:,} with something to learn"
        if len(data) == expected and trainable != coco_2017.TRAINABLE_IMAGES:
            text = (
                f"{trainable:,} images with something to learn, not"
                f" {coco_2017.TRAINABLE_IMAGES:,}: the annotations are others"
            )
            return PartCheck(split, "damaged", text)
    files = [data.images / name for name in data.table.file_names]
    return checker.check_files(split, files, expected, data.__getitem__, note)


COCO = Format("detection", open_coco, check_coco, ("leave_out_bad",), coco_2017.coco_advice)
