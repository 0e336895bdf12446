"""The format ``folders``: one folder of images per class."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from stillrobust.data.formats import Format, OpenOptions
from stillrobust.data.formats.checks import (
    FileChecker,
    PartCheck,
    check_splits,
    unread_files_note,
)
from stillrobust.data.reading import (
    IMAGE_KINDS,
    fingerprint,
    image_files,
    read_image,
    require_split,
    subfolders,
)
from stillrobust.errors import UserError
from stillrobust.samples import DatasetInfo, Sample, Target


@dataclass(frozen=True)
class FolderDataset:
    """Images in ``<split>/<class>/``. Classes are the folder names, sorted.

    If there is a split ``train``, its classes hold for every split, so that labels agree.

    Attributes:
        root: Folder of the dataset.
        split: Name of the split.
        name: Name in reports; by default folder and split.
        classes: Class names.
        files: (file, label) of every image.
    """

    root: Path
    split: str
    name: str = ""
    classes: tuple[str, ...] = field(init=False, default=())
    files: tuple[tuple[Path, int], ...] = field(init=False, default=(), repr=False)

    def __post_init__(self) -> None:
        splits = subfolders(self.root)
        require_split("classification", self.root, self.split, splits)
        own = subfolders(self.root / self.split)
        classes = subfolders(self.root / "train") if "train" in splits else own
        for name in own:
            if name not in classes:
                raise UserError(
                    f"Expected the classes of {self.root / 'train'} in {self.root / self.split},"
                    f" but got {name!r} as well; add it to train or remove it"
                )
        files = [
            (path, classes.index(name))
            for name in own
            for path in image_files(self.root / self.split / name)
        ]
        if not files:
            raise UserError(
                f"Expected class folders with {IMAGE_KINDS} images in {self.root / self.split}, but"
                " found no image; add some"
            )
        without = sorted(set(own) - {classes[label] for _, label in files})
        folders = {name: (self.root / self.split / name).iterdir() for name in without}
        unread = [
            name
            for name, paths in folders.items()
            if not all(path.name.startswith(".") for path in paths)
        ]
        # an empty folder is a class without images yet
        if self.split == "train" and unread:
            raise UserError(
                f"Expected {IMAGE_KINDS} images in every class folder of {self.root / self.split},"
                f" but what {len(unread)} of {len(own)} hold is none, the first {unread[0]!r}; add"
                " some, or remove the folder"
            )
        object.__setattr__(self, "classes", tuple(classes))
        object.__setattr__(self, "files", tuple(files))

    def image_id(self, index: int) -> str:
        """The path of the image below the split: ``<class>/<file>``."""
        return self.files[index][0].relative_to(self.root / self.split).as_posix()

    @cached_property
    def info(self) -> DatasetInfo:
        """Facts about the dataset. For the fingerprint, all files of a small set are read."""
        ids = [self.image_id(index) for index in range(len(self))]
        digest = fingerprint(self.classes, ids, [path for path, _ in self.files], b"")
        return DatasetInfo(
            self.name or f"{self.root.name}/{self.split}",
            "classification",
            self.classes,
            len(ids),
            digest,
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Sample:
        path, label = self.files[index]
        image = read_image(path)
        return Sample(
            image, Target(self.image_id(index), (image.shape[0], image.shape[1]), label=label)
        )


def open_folders(root: Path, split: str, options: OpenOptions) -> FolderDataset:
    """Open a split of a folder of class folders."""
    return FolderDataset(root, split)


def check_folders(root: Path, checker: FileChecker) -> Iterator[PartCheck]:
    """Check every split."""

    def check(split: str) -> PartCheck:
        data = FolderDataset(root, split)
        files = [path for path, _ in data.files]
        classes, without = (
            len(data.classes),
            len(data.classes) - len({one for _, one in data.files}),
        )
        note = f", {without:,} of the {classes:,} classes without images" if without else ""
        note += unread_files_note(root / split, files)
        return checker.check_files(split, files, None, data.__getitem__, note)

    return check_splits(root, check)


FOLDERS = Format("classification", open_folders, check_folders, ("leave_out_bad",))
