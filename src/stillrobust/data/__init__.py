"""Datasets: formats on disk, official sets, views of datasets, and generated images.

``open_dataset("coco:PATH", "val")`` opens a dataset. Every dataset follows the contract
``stillrobust.samples.Dataset``. To add a format, write a ``Format`` (see
``stillrobust.data.formats``) in a file of its own and add it to ``FORMATS``.
"""

from collections.abc import Mapping
from pathlib import Path

from stillrobust.data.bad_images import Faults, exclude_bad_images
from stillrobust.data.formats import Format, OpenOptions
from stillrobust.data.formats.coco import COCO, CocoDataset, write_coco
from stillrobust.data.formats.folders import FOLDERS, FolderDataset
from stillrobust.data.formats.maps import MAPS, MapDataset
from stillrobust.data.generated.scene_files import write_scenes
from stillrobust.data.official.ade20k import ADE20K
from stillrobust.data.official.cifar import CIFAR10, CIFAR10_C
from stillrobust.data.official.imagenet import IMAGENET, IMAGENET_C
from stillrobust.data.reading import read_image
from stillrobust.data.views import CorruptedView, Subset
from stillrobust.errors import UserError
from stillrobust.names import lookup, parse_spec
from stillrobust.samples import Dataset

__all__ = [
    "FORMATS",
    "CocoDataset",
    "CorruptedView",
    "FolderDataset",
    "Format",
    "MapDataset",
    "OpenOptions",
    "Subset",
    "open_dataset",
    "parse_dataset_spec",
    "read_image",
    "write_coco",
    "write_scenes",
]

FORMATS: Mapping[str, Format] = {
    "coco": COCO,
    "maps": MAPS,
    "folders": FOLDERS,
    "imagenet": IMAGENET,
    "imagenet_c": IMAGENET_C,
    "cifar10": CIFAR10,
    "cifar10_c": CIFAR10_C,
    "ade20k": ADE20K,
}
"""Format name, as in ``FORMAT:PATH`` -> format."""


def open_dataset(spec: str, split: str, training: bool = False) -> Dataset:
    """Open a split of a dataset; the format implies the task.

    Args:
        spec: ``"FORMAT:PATH"``, such as ``"coco:mydata"``. ``"cifar10(part=True):PATH"`` accepts an
            official set with fewer images than published. ``"coco(leave_out_bad=True):PATH"`` reads
            every image once and leaves out those that cannot be used; ``info.left_out`` lists them.
        split: ``"train"`` or ``"val"``.
        training: Drop images without objects to learn from (see ``CocoDataset``).

    Returns:
        The dataset.

    Raises:
        UserError: If the spec, the folder or its annotations are wrong.
    """
    data_format, path, arguments = parse_dataset_spec(spec)
    part = arguments.get("part", False)
    if not arguments.get("leave_out_bad", False):
        return data_format.open(path, split, OpenOptions(training, part))
    faults: Faults = {}
    return exclude_bad_images(
        data_format.open(path, split, OpenOptions(training, part, faults)), faults
    )


def parse_dataset_spec(spec: str) -> tuple[Format, Path, dict[str, bool]]:
    """Parse ``FORMAT:PATH`` or ``FORMAT(KEY=True):PATH``. The path is not read.

    Args:
        spec: Spec of a dataset.

    Returns:
        The format, the path and the options in brackets.

    Raises:
        UserError: If the format is unknown or does not have an option.
    """
    head, colon, path = spec.partition(":")
    if not colon or not path:
        raise UserError(
            f"Expected a dataset as FORMAT:PATH, FORMAT one of {', '.join(FORMATS)}, but got"
            f" {spec!r}; write it as coco:mydata"
        )
    name, arguments = parse_spec(head)
    data_format = lookup("dataset format", name, FORMATS)
    known = data_format.spec_options
    if any(key not in known or type(value) is not bool for key, value in arguments.items()):
        listed = ", ".join(f"{name}({key}=True):PATH" for key in known)
        raise UserError(
            f"Expected one of {name}:PATH, {listed}, but got {spec!r}; correct the options"
        )
    return data_format, Path(path).expanduser(), arguments
