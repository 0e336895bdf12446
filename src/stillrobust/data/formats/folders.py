"""The format ``folders``: one folder of images per class."""

import unicodedata
from pathlib import Path
from typing import Any

from stillrobust.data.formats import Format
from stillrobust.data.formats.image_lists import (
    ImageListDataset,
    LabelledImage,
    build_image_list,
)
from stillrobust.data.formats.options import (
    CLASSES,
    LEAVE_OUT_BAD,
    READING_OPTIONS,
    SPLIT,
    OpenOptions,
)
from stillrobust.data.formats.splits import (
    ALIASES,
    NOT_CLASSES,
    SPLIT_NAMES,
    choose_split,
    splits_check,
)
from stillrobust.data.image_headers import IMAGE_KINDS, IMAGE_SUFFIXES
from stillrobust.data.reading import image_files, subfolders
from stillrobust.errors import UserError


def class_folders(folder: Path) -> list[str]:
    """Names of the folders that are classes, sorted; hidden ones and those of systems are not."""
    return [name for name in subfolders(folder) if name not in NOT_CLASSES]


def folder_splits(root: Path, options: OpenOptions) -> list[str]:
    """Names of the splits, sorted."""
    return class_folders(root)


def open_folders(root: Path, split: str, options: OpenOptions) -> ImageListDataset:
    """Open a split of class folders: ``<split>/<class>/``. Classes are the folder names, sorted.

    If there is a split ``train``, its classes hold for every split, so that labels agree.
    """
    splits = folder_splits(root, options)
    chosen = choose_split(split, splits, root, options)
    folder = root / chosen
    training = next((name for name in ALIASES["train"] if name in splits), chosen)
    own, classes = class_folders(folder), class_folders(root / training)
    for name in own:
        if name not in classes:
            raise UserError(
                f"Expected the classes of {root / training} in {folder}, but got {name!r} as well;"
                f" add it to {training} or remove it"
            )
    items = [
        LabelledImage(
            unicodedata.normalize("NFC", path.relative_to(folder).as_posix()),
            path,
            classes.index(name),
        )
        for name in own
        for path in image_files(folder / name)
    ]
    if not items:
        raise UserError(
            f"Expected class folders with {IMAGE_KINDS} images in {folder}, but found no image; add"
            " some"
        )
    if chosen == training:
        _require_images(folder, own, {classes[item.label] for item in items})
    return build_image_list(f"{root.name}/{chosen}", classes, items, options, folder)


def _require_images(folder: Path, own: list[str], used: set[str]) -> None:
    """Refuse class folders that hold files but no image; an empty folder has no images yet."""
    contents = {name: (folder / name).iterdir() for name in own if name not in used}
    unread = [
        name
        for name, paths in contents.items()
        if not all(path.name.startswith(".") for path in paths)
    ]
    if unread:
        raise UserError(
            f"Expected {IMAGE_KINDS} images in every class folder of {folder},"
            f" but what {len(unread)} of {len(own)} hold is none, the first {unread[0]!r}; add"
            " some, or remove the folder"
        )


def detect_folders(root: Path) -> dict[str, Any] | None:
    """Recognise splits with folders of images. Files beside these folders, or ``images`` beside
    ``labels`` or ``v2.0/labels``, belong to other formats.
    """
    for split in (name for name in class_folders(root) if name in SPLIT_NAMES):
        names = class_folders(root / split)
        beside = any(path.is_file() for path in (root / split).iterdir())
        labels = "labels" in names or any((root / split / n / "labels").is_dir() for n in names)
        if beside or ("images" in names and labels):
            continue
        for name in names:
            files = (root / split / name).iterdir()
            if any(path.suffix.lower() in IMAGE_SUFFIXES for path in files):
                return {}
    return None


FOLDERS = Format(
    "classification",
    open_folders,
    splits_check(open_folders, folder_splits),
    detect_folders,
    (SPLIT, CLASSES, LEAVE_OUT_BAD, *READING_OPTIONS),
)
