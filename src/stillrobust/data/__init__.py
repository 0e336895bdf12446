"""Datasets: three formats on disk, views of them, and generated scenes that need no download."""

from collections.abc import Callable, Mapping
from pathlib import Path

from stillrobust.data.classification import FolderDataset
from stillrobust.data.coco import CocoDataset, write_coco
from stillrobust.data.reading import read_image, require_split
from stillrobust.data.scene_files import write_scenes
from stillrobust.data.segmentation import MapDataset
from stillrobust.data.views import CorruptedView, Subset
from stillrobust.errors import UserError
from stillrobust.names import lookup
from stillrobust.samples import Dataset

__all__ = [
    "FORMATS",
    "CocoDataset",
    "CorruptedView",
    "FolderDataset",
    "MapDataset",
    "Subset",
    "open_dataset",
    "read_image",
    "write_coco",
    "write_scenes",
]


def open_coco(root: Path, split: str, training: bool) -> Dataset:
    """A split of a COCO folder: ``annotations/instances_<split>.json`` and ``<split>/``, or the layouts near to it."""
    files = {path.stem: path for path in sorted((root / "annotations").glob("*.json"))}
    names = {stem: stem.removeprefix("instances_").removesuffix("2017") for stem in files}
    # Caption and keypoint files lie beside the instances in COCO's own download and are no splits.
    splits = {name for stem, name in names.items() if not stem.startswith(("captions_", "person_keypoints_"))}
    stems = (f"instances_{split}", f"instances_{split}2017", split, f"{split}2017")
    stem = next((candidate for candidate in stems if candidate in files), None)
    if stem is None:
        require_split("COCO", root, split, splits - {split})
        raise AssertionError("require_split raises for a missing split")
    candidates = [root / split, root / f"{split}2017", root / "images" / split, root / "images"]
    images = next((folder for folder in candidates if folder.is_dir()), None)
    if images is None:
        listed = ", ".join(str(folder) for folder in candidates)
        raise UserError(f"Expected the images of split {split!r} in one of {listed}, but none exists; move them there")
    return CocoDataset(images, files[stem], require_objects=training, name=f"{root.name}/{split}")


def open_maps(root: Path, split: str, training: bool) -> Dataset:
    """A split of a folder of images and label maps."""
    return MapDataset(root, split)


def open_folders(root: Path, split: str, training: bool) -> Dataset:
    """A split of a folder of class folders."""
    return FolderDataset(root, split)


FORMATS: Mapping[str, Callable[[Path, str, bool], Dataset]] = {
    "coco": open_coco,  # detection
    "maps": open_maps,  # segmentation
    "folders": open_folders,  # classification
}


def open_dataset(spec: str, split: str, training: bool = False) -> Dataset:
    """``"coco:PATH"``, ``"maps:PATH"`` or ``"folders:PATH"`` -> the dataset's split; the format implies the task.

    ``training`` leaves out images that have nothing to learn from (COCO images without objects).
    """
    name, colon, path = spec.partition(":")
    if not colon or not path:
        raise UserError(f"Expected a dataset as FORMAT:PATH, FORMAT one of {', '.join(FORMATS)}, but got {spec!r}")
    return lookup("dataset format", name, FORMATS)(Path(path).expanduser(), split, training)
