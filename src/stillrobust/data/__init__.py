"""Datasets: formats on disk, official sets among them, views of them, and generated scenes that
need no download.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from stillrobust.data.bad_images import Faults, exclude_bad_images
from stillrobust.data.formats.coco import CocoDataset, open_coco, write_coco
from stillrobust.data.formats.folders import FolderDataset
from stillrobust.data.formats.maps import MapDataset
from stillrobust.data.generated.scene_files import write_scenes
from stillrobust.data.official.ade20k import open_ade20k
from stillrobust.data.official.cifar import open_cifar10, open_cifar10_c
from stillrobust.data.official.imagenet import open_imagenet, open_imagenet_c
from stillrobust.data.reading import read_image
from stillrobust.data.views import CorruptedView, Subset
from stillrobust.errors import UserError
from stillrobust.names import lookup, parse_spec
from stillrobust.samples import Dataset

__all__ = [
    "FORMATS",
    "OFFICIAL",
    "CocoDataset",
    "CorruptedView",
    "FolderDataset",
    "MapDataset",
    "Subset",
    "open_dataset",
    "parse_dataset_spec",
    "read_image",
    "write_coco",
    "write_scenes",
]


def open_maps(root: Path, split: str, training: bool, left_out: Faults | None = None) -> Dataset:
    """A split of a folder of images and label maps."""
    return MapDataset(root, split, left_out=left_out)


def open_folders(root: Path, split: str, training: bool, left_out: Faults | None = None) -> Dataset:
    """A split of a folder of class folders; nothing is seen to be wrong before images are read."""
    return FolderDataset(root, split)


OFFICIAL: Mapping[str, Callable[..., Dataset]] = {
    "imagenet": open_imagenet,
    "imagenet_c": open_imagenet_c,
    "cifar10": open_cifar10,
    "cifar10_c": open_cifar10_c,
    "ade20k": open_ade20k,
}
"""Sets whose number of images is known: another number is refused, unless ``part=True`` says that a
part is wanted.
"""
FORMATS: Mapping[str, Callable[..., Dataset]] = {
    "coco": open_coco,  # detection; COCO 2017 itself is of this format
    "maps": open_maps,  # segmentation
    "folders": open_folders,  # classification
    **OFFICIAL,
}
"""Name -> ``open(root, split, training)``."""
WITH_FILES = ("coco", "maps", "folders", "imagenet", "ade20k")
"""What ``leave_out_bad=True`` may be said of: a file for every image, and no stored corruptions
that would need the same images.
"""


def open_dataset(spec: str, split: str, training: bool = False) -> Dataset:
    """``"coco:PATH"``, ``"imagenet:PATH"``, ...

    -> the dataset's split ``train`` or ``val``; the format implies the task.

    ``training`` leaves out images that have nothing to learn from (see ``CocoDataset``).
    ``"cifar10(part=True):PATH"`` opens what is there of an official set, which otherwise must be
    whole. ``"coco(leave_out_bad=True):PATH"`` reads every image once and leaves out those that
    cannot be used, which otherwise are refused; ``info.left_out`` says which.
    """
    opener, path, arguments = parse_dataset_spec(spec)
    if not arguments.pop("leave_out_bad", False):
        return opener(path, split, training, **arguments)
    left_out: Faults = {}
    return exclude_bad_images(
        opener(path, split, training, left_out=left_out, **arguments), left_out
    )


def parse_dataset_spec(spec: str) -> tuple[Callable[..., Dataset], Path, dict[str, bool]]:
    """What opens ``FORMAT:PATH``, the path, and what is said in brackets; nothing is looked for.

    Else ``UserError``.
    """
    head, colon, path = spec.partition(":")
    if not colon or not path:
        raise UserError(
            f"Expected a dataset as FORMAT:PATH, FORMAT one of {', '.join(FORMATS)}, but got"
            f" {spec!r}; write it as coco:mydata"
        )
    name, arguments = parse_spec(head)
    opener = lookup("dataset format", name, FORMATS)
    known = {"part": OFFICIAL, "leave_out_bad": WITH_FILES}
    if any(
        name not in known.get(key, ()) or type(value) is not bool
        for key, value in arguments.items()
    ):
        parts = ", ".join(
            f"({key}=True) after one of {', '.join(names)}" for key, names in known.items()
        )
        raise UserError(f"Expected {name}:PATH, or {parts}, but got {spec!r}; correct it")
    return opener, Path(path).expanduser(), arguments
