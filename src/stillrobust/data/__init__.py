"""Datasets: formats on disk, official sets, views of datasets, and generated images.

``open_dataset("coco:PATH", "val")`` opens a dataset. Every dataset follows the contract
``stillrobust.samples.Dataset``. To add a format, write a ``Format`` (see
``stillrobust.data.formats``) in a file of its own and add it to ``FORMATS``.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stillrobust.data.contract import fingerprint_samples
from stillrobust.data.formats import Format
from stillrobust.data.formats.cityscapes import CITYSCAPES
from stillrobust.data.formats.coco import COCO
from stillrobust.data.formats.coco_writer import write_coco
from stillrobust.data.formats.csv_lists import CSV
from stillrobust.data.formats.detection import DetectionDataset
from stillrobust.data.formats.folders import FOLDERS
from stillrobust.data.formats.huggingface import HUGGINGFACE, huggingface_dataset
from stillrobust.data.formats.image_lists import ImageListDataset
from stillrobust.data.formats.map_dataset import MapDataset
from stillrobust.data.formats.maps import MAPS
from stillrobust.data.formats.options import (
    ANNOTATIONS,
    OpenOptions,
    open_usable,
    require_options,
)
from stillrobust.data.formats.voc import VOC
from stillrobust.data.formats.voc_maps import VOC_MAPS
from stillrobust.data.formats.yolo import YOLO
from stillrobust.data.generated.scene_files import write_scenes
from stillrobust.data.official.ade20k import ADE20K
from stillrobust.data.official.cifar import CIFAR10, CIFAR10_C
from stillrobust.data.official.imagenet import IMAGENET, IMAGENET_C
from stillrobust.data.reading import read_image
from stillrobust.data.views import CorruptedView, Subset
from stillrobust.errors import UserError
from stillrobust.names import format_spec, lookup, parse_spec
from stillrobust.samples import Dataset

__all__ = [
    "FORMATS",
    "CorruptedView",
    "Dataset",
    "DetectionDataset",
    "Format",
    "ImageListDataset",
    "MapDataset",
    "OpenOptions",
    "Subset",
    "detect_formats",
    "fingerprint_samples",
    "huggingface_dataset",
    "open_dataset",
    "parse_dataset_spec",
    "read_image",
    "split_dataset_spec",
    "write_coco",
    "write_scenes",
]

FORMATS: Mapping[str, Format] = {
    "coco": COCO,
    "yolo": YOLO,
    "voc": VOC,
    "maps": MAPS,
    "voc_maps": VOC_MAPS,
    "cityscapes": CITYSCAPES,
    "folders": FOLDERS,
    "csv": CSV,
    "huggingface": HUGGINGFACE,
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
        spec: ``"FORMAT:PATH"`` or ``"FORMAT(option=value):PATH"``, such as ``"coco:mydata"`` or
            ``"coco(split='valid'):mydata"``. ``FORMATS[name].options`` lists the options of a
            format. ``leave_out_bad=True`` reads every image once and leaves out those that cannot
            be used; ``info.left_out`` lists them.
        split: ``"train"`` or ``"val"``. The option ``split`` replaces it. If there is no ``val``,
            then ``valid``, ``validation`` and ``test`` are tried.
        training: Drop images without objects to learn from (see ``DetectionDataset``).

    Returns:
        The dataset. ``info.notes`` says what was assumed and repaired.

    Raises:
        UserError: If the spec, the folder or its annotations are wrong.
    """
    data_format, path, options = parse_dataset_spec(spec)
    return open_usable(
        lambda applied: data_format.open(path, split, applied), replace(options, training=training)
    )


def parse_dataset_spec(spec: str) -> tuple[Format, Path, OpenOptions]:
    """Parse ``FORMAT:PATH`` or ``FORMAT(option=value, ...):PATH``.

    If PATH is a file of a format that has the option ``annotations``, its folder becomes the path
    and the file becomes ``annotations``. Nothing is read.

    Args:
        spec: Spec of a dataset.

    Returns:
        The format, the folder and the options.

    Raises:
        UserError: If the format is unknown, or does not have an option or a value.
    """
    head, text = split_dataset_spec(spec)
    if not head or not text:
        raise UserError(
            f"Expected a dataset as FORMAT:PATH, FORMAT one of {', '.join(FORMATS)}, but got"
            f" {spec!r}; write it as coco:mydata, or let `stillrobust data check PATH` print the"
            " spec of a folder"
        )
    name, given = parse_spec(head)
    data_format = lookup("dataset format", name, FORMATS)
    require_options(name, data_format.options, given, spec)
    path = Path(text).expanduser()
    if "annotations" not in given and ANNOTATIONS in data_format.options and path.is_file():
        given, path = {**given, "annotations": path.name}, path.parent
    return data_format, path, OpenOptions(given=given, typed=given, format_name=name, path=path)


def split_dataset_spec(spec: str) -> tuple[str, str]:
    """Split a spec at the colon between format and path. Colons within brackets do not count.

    Args:
        spec: Such as ``"coco(annotations='a:b.json'):mydata"``.

    Returns:
        The format with its options, and the path; both are empty if there is no such colon.
    """
    depth, quote = 0, ""
    for place, letter in enumerate(spec):
        if quote or (depth and letter in "'\""):
            quote = "" if letter == quote else quote or letter
        elif letter == ":" and not depth:
            return spec[:place].strip(), spec[place + 1 :]
        else:
            depth += (letter == "(") - (letter == ")")
    return "", ""


def detect_formats(root: Path) -> list[str]:
    """Recognise the format of a folder by its telltale files and folders.

    Args:
        root: A folder.

    Returns:
        A spec for every format that the folder may have, such as ``["yolo:mydata"]``.
    """
    found = {name: data_format.detect(root) for name, data_format in FORMATS.items()}
    return [
        f"{format_spec(name, options)}:{root}"
        for name, options in found.items()
        if options is not None
    ]
