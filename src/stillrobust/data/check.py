"""What is there of a data set, what is missing and what is damaged, found before a training finds
it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stillrobust.data.formats.coco import coco_splits, open_coco
from stillrobust.data.formats.coco_checks import MissingImagesError
from stillrobust.data.formats.folders import FolderDataset
from stillrobust.data.formats.maps import MapDataset, read_image_and_labels
from stillrobust.data.official import ade20k, cifar, imagenet
from stillrobust.data.official.layout import COCO_TRAINABLE, COUNTS
from stillrobust.data.official.sources import ARCHIVES, IMAGENET
from stillrobust.data.reading import image_files, read_unrotated, subfolders, visible_files
from stillrobust.errors import UserError
from stillrobust.grid import COMMON, SEVERITIES
from stillrobust.names import lookup

SAMPLE = 200  # images of each part that are decoded, evenly spaced; every one with ``full``
SHOWN = 3  # names in a line
BATCH = 100  # images handed to the threads at once, so that a million is not

Listen = Callable[[str, int, int, str], None]
State = Literal["whole", "missing", "damaged"]


@dataclass(frozen=True)
class Part:
    """One part of a set, and what is so of it."""

    name: str
    state: State
    text: str


@dataclass(frozen=True)
class Verdict:
    """All parts, and how to get what is missing."""

    dataset: str
    root: Path
    parts: tuple[Part, ...]

    @property
    def whole(self) -> bool:
        """Whether every part is."""
        return all(part.state == "whole" for part in self.parts)

    def text(self) -> str:
        """A line for every part, then the verdict."""
        lines = [f"{part.state:8s} {part.name}: {part.text}" for part in self.parts]
        bad = [part.name for part in self.parts if part.state != "whole"]
        if not bad:
            return "\n".join([*lines, f"{self.dataset} in {self.root} is whole."])
        named = ", ".join(bad[:SHOWN]) + (", ..." if len(bad) > SHOWN else "")
        return "\n".join(
            [
                *lines,
                (
                    f"{self.dataset} in {self.root} is not whole ({named})."
                    f" {repair_advice(self.dataset, self.root)}"
                ),
            ]
        )


def repair_advice(dataset: str, root: Path) -> str:
    """A sentence or two; 20 GB of COCO 2017 are no advice for a set of one's own in its format."""
    if dataset == "coco" and not root.exists():
        return (
            f"`stillrobust data fetch coco {root}` gets COCO 2017; for a set of your own, correct"
            " the path."
        )
    if dataset in ARCHIVES and (dataset != "coco" or _is_coco_2017(root)):
        also = (
            f" {IMAGENET}; a link in {root} to its val folder will do."
            if dataset == "imagenet_c"
            else ""
        )
        return (
            f"`stillrobust data fetch {dataset} {root}` gets what is missing; move away what is"
            f" damaged first.{also}"
        )
    return (
        f"{IMAGENET}." if dataset == "imagenet" else "Correct or complete the parts that are named."
    )


def check_dataset(
    dataset: str,
    root: Path,
    full: bool = False,
    listen: Listen = lambda name, done, total, text: None,
) -> Verdict:
    """Look through a set in ``root``, whose format is one of ``FORMATS``.

    Counts, empty files, archives that are cut off, and a sample of the images decoded; with
    ``full``, every one.
    """
    check = lookup("dataset format", dataset, CHECKS)
    if not root.is_dir():
        fetch = (
            f", or get the set: `stillrobust data fetch {dataset} {root}`"
            if dataset in ARCHIVES
            else ""
        )
        raise UserError(
            f"Expected a folder with {dataset} at {root}, but there is none; check the path{fetch}"
        )
    return Verdict(dataset, root, (*check(root, _Reader(full, listen)), *_archives(dataset, root)))


@dataclass(frozen=True)
class _Reader:
    """Reads files of a part, and says what is wrong with them."""

    full: bool
    listen: Listen

    def part(
        self,
        name: str,
        files: Sequence[Path],
        expected: int | None,
        read: Callable[[int], Any],
        note: str = "",
    ) -> Part:
        """The line for a part that should have ``expected`` files (``None``: any number); ``read``
        reads one by its place.
        """
        empty = [
            path
            for number, path in enumerate(files)
            if self._is_empty(name, path, number, len(files))
        ]
        if empty:
            return Part(
                name,
                "damaged",
                f"{len(empty):,} of {len(files):,} files are empty or not there: {_names(empty)}",
            )
        count = len(files) if self.full else min(SAMPLE, len(files))
        problems = self._problems(
            name, [index * len(files) // count for index in range(count)], read
        )
        if problems:
            return Part(
                name,
                "damaged",
                f"{len(problems):,} of the {count:,} files read are bad: {problems[0]}",
            )
        if expected is not None and len(files) != expected:
            return Part(name, "missing", f"{len(files):,} of {expected:,} images{note}")
        return Part(
            name,
            "whole" if files else "missing",
            f"{len(files):,} images, {count:,} of them decoded{note}",
        )

    def _problems(self, name: str, places: Sequence[int], read: Callable[[int], Any]) -> list[str]:
        """What reading says of the files at these places."""

        def problem(place: int) -> str | None:
            try:
                read(place)
            except UserError as error:
                return str(error)
            return None

        found: list[str] = []
        with ThreadPoolExecutor() as threads:  # decoders leave the interpreter alone
            for start in range(0, len(places), BATCH):
                said = threads.map(problem, places[start : start + BATCH])
                found += [sentence for sentence in said if sentence is not None]
                self.listen(f"read {name}", min(start + BATCH, len(places)), len(places), "images")
        return found

    def _is_empty(self, name: str, path: Path, number: int, total: int) -> bool:
        if number % 1000 == 0:
            self.listen(f"sizes {name}", number, total, "files")
        try:
            return path.stat().st_size == 0
        except OSError:  # a link that leads nowhere
            return True


def _by_place(read: Callable[[Path], Any], files: Sequence[Path]) -> Callable[[int], Any]:
    return lambda place: read(files[place])


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:SHOWN]) + (", ..." if len(paths) > SHOWN else "")


def _archives(dataset: str, root: Path) -> Iterator[Part]:
    """Archives that are downloaded in part, or not unpacked."""
    for archive in ARCHIVES.get(dataset, ()):
        if all((root / archive.folder / given).exists() for given in archive.contents):
            continue
        of_all = "" if archive.size is None else f" of {archive.size:,}"
        for path in (root / archive.name, root / archive.folder / archive.name):
            if path.is_file() and archive.size not in (None, path.stat().st_size):
                yield Part(
                    archive.name,
                    "damaged",
                    f"the archive is cut off or another one: {path.stat().st_size:,}{of_all} bytes",
                )
            elif path.is_file():
                yield Part(archive.name, "missing", "the archive is there, but not unpacked")
        begun = root / f".{archive.name}.part"
        if begun.is_file():
            yield Part(
                archive.name,
                "missing",
                f"its download has begun and not ended: {begun.stat().st_size:,}{of_all} bytes",
            )


def _said(name: str, check: Callable[..., Part], *arguments: Any) -> Part:
    """What ``check`` finds, or what it says is wrong."""
    try:
        return check(*arguments)
    except UserError as error:
        return Part(name, "damaged", str(error))


# ---- one function a set: the parts, in the order they are shown
# ---------------------------------------------------------


def check_imagenet(root: Path, reader: _Reader) -> Iterator[Part]:
    """Both splits."""
    for split in ("train", "val"):
        yield _said(split, _imagenet_split, root, split, reader)


def _imagenet_split(root: Path, split: str, reader: _Reader) -> Part:
    if split not in subfolders(imagenet.imagenet_folder(root)):
        return Part(
            split, "missing", f"there is no folder {imagenet.imagenet_folder(root) / split}"
        )
    data = imagenet.open_split(root, split, part=True)
    missing = set(imagenet.wordnet_ids()) - {image_id.partition("/")[0] for image_id in data.ids}
    note = f", {len(missing)} of the 1,000 classes without images" if missing else ""
    files = [data.path(image_id) for image_id in data.ids]
    return reader.part(
        split, files, COUNTS["imagenet"][split], _by_place(read_unrotated, files), note
    )


def check_imagenet_c(root: Path, reader: _Reader) -> Iterator[Part]:
    """The clean images, and the 15 common corruptions."""
    yield _said("val", _imagenet_split, root, "val", reader)
    expected = COUNTS["imagenet_c"]["val"]
    for corruption in COMMON:
        folder = imagenet.stored_folder(root, corruption)
        cells = {
            severity: imagenet.list_stored_ids(folder / str(severity)) for severity in SEVERITIES
        }
        short = [
            f"{severity} has {len(ids):,}"
            for severity, ids in cells.items()
            if len(ids) != expected
        ]
        if not folder.is_dir():
            yield Part(corruption, "missing", f"there is no folder {folder}")
        elif short:
            yield Part(
                corruption,
                "missing",
                f"expected {expected:,} images a severity, but {', '.join(short)}",
            )
        else:
            files = [
                folder / str(severity) / image_id
                for severity, ids in cells.items()
                for image_id in ids
            ]
            yield reader.part(corruption, files, None, _by_place(imagenet.read_stored, files))


def check_cifar10(root: Path, reader: _Reader) -> Iterator[Part]:
    """The six batches."""
    folder = cifar.cifar10_folder(root)
    for split, names in cifar.BATCHES.items():
        for name in names:
            yield _said(name, _cifar_batch, folder / name, COUNTS["cifar10"][split] // len(names))


def _cifar_batch(path: Path, expected: int) -> Part:
    if not path.is_file():
        return Part(path.name, "missing", f"there is no file {path}")
    images, _ = cifar.read_batch(path)
    state: State = "whole" if len(images) == expected else "missing"
    return Part(path.name, state, f"{len(images):,} of {expected:,} images")


def check_cifar10_c(root: Path, reader: _Reader) -> Iterator[Part]:
    """The test batch, the labels and the 15 common corruptions."""
    images = COUNTS["cifar10_c"]["val"]
    place = cifar.find_cifar10_root(root)
    if place is None:
        yield Part("test_batch", "missing", f"there is no {cifar.FOLDER} beside CIFAR-10-C")
    else:
        yield _said("test_batch", _cifar_batch, cifar.cifar10_folder(place) / "test_batch", images)
    folder = cifar.cifar10_c_folder(root)
    for name in ("labels", *COMMON):
        yield _said(name, _cifar_stack, folder / f"{name}.npy", images)


def _cifar_stack(path: Path, images: int) -> Part:
    if not path.is_file():
        return Part(path.stem, "missing", f"there is no file {path}")
    if path.stem == "labels":
        found = cifar.load_array(path)
        right = found.shape == (len(SEVERITIES) * images,) and int(found.max()) < len(cifar.CLASSES)
        return Part(
            path.stem,
            "whole" if right else "damaged",
            f"{len(found):,} of {len(SEVERITIES) * images:,} labels",
        )
    stack = cifar.open_corruption_array(path, images)
    if not stack[-1].any():
        return Part(
            path.stem, "damaged", "the last image is black: the file was not written to its end"
        )
    return Part(path.stem, "whole", f"{len(stack):,} images of 5 severities")


def check_ade20k(root: Path, reader: _Reader) -> Iterator[Part]:
    """Both splits, and the list of classes where it is there."""
    home = ade20k.ade20k_folder(root)
    for split, folder in ade20k.FOLDERS.items():
        images, labels = home / "images" / folder, home / "annotations" / folder
        if not images.is_dir() or not labels.is_dir():
            yield Part(
                split, "missing", f"there is no folder {images if not images.is_dir() else labels}"
            )
        else:
            yield _said(split, _ade20k_split, split, images, labels, reader)
    if (home / "objectInfo150.txt").is_file():
        agrees = ade20k.names_agree(
            (home / "objectInfo150.txt").read_text(encoding="utf-8", errors="replace")
        )
        text = (
            "the 150 classes in their order"
            if agrees
            else "the classes are others, or in another order"
        )
        yield Part("objectInfo150.txt", "whole" if agrees else "damaged", text)


def _ade20k_split(split: str, images: Path, labels: Path, reader: _Reader) -> Part:
    files = image_files(images)
    without = [path for path in files if not (labels / f"{path.stem}.png").is_file()]
    if without:
        return Part(
            split,
            "missing",
            f"{len(without):,} of {len(files):,} images have no label map: {_names(without)}",
        )

    def read(path: Path) -> None:
        read_image_and_labels(
            path, labels / f"{path.stem}.png", len(ade20k.CLASSES), ade20k.reduce_zero_label
        )

    return reader.part(split, files, COUNTS["ade20k"][split], _by_place(read, files))


def check_coco(root: Path, reader: _Reader) -> Iterator[Part]:
    """Every split with annotations; of COCO 2017, train and val."""
    splits = coco_splits(root)
    wanted = ["train", "val"] if _is_coco_2017(root) else []
    if not splits and not wanted:
        yield Part(
            "annotations",
            "missing",
            f"there is no instances_<split>.json in {root / 'annotations'}",
        )
    for split in dict.fromkeys([*wanted, *splits]):
        if split in splits:
            yield _said(split, _coco_split, root, split, reader)
        else:
            yield Part(
                split,
                "missing",
                f"there is no {root / 'annotations' / f'instances_{split}2017.json'}",
            )


def _is_coco_2017(root: Path) -> bool:
    """Whether a folder is COCO 2017's or is to be: empty, or with one of its archives, folders or
    files.
    """
    archives = [
        name for archive in ARCHIVES["coco"] for name in (archive.name, f".{archive.name}.part")
    ]
    places = [
        place
        for name in ("train2017", "val2017")
        for place in (name, f"images/{name}", f"annotations/instances_{name}.json")
    ]
    return root.is_dir() and (
        not any(root.iterdir()) or any((root / name).exists() for name in (*archives, *places))
    )


def _coco_split(root: Path, split: str, reader: _Reader) -> Part:
    reader.listen(f"parse {split}", 0, 1, "annotations")
    try:
        data = open_coco(root, split, training=False)
    except MissingImagesError as error:
        return Part(split, "missing", str(error))
    expected = COUNTS["coco"].get(split) if data.annotations.stem.endswith("2017") else None
    learnable = len(data.table.trainable().file_names)
    if split == "train" and len(data) == expected and learnable != COCO_TRAINABLE:
        return Part(
            split,
            "damaged",
            f"{learnable:,} images with something to learn, not {COCO_TRAINABLE:,}: the annotations"
            " are others",
        )
    note = f", {learnable:,} with something to learn" if split == "train" else ""
    return reader.part(
        split,
        [data.images / name for name in data.table.file_names],
        expected,
        data.__getitem__,
        note,
    )


def check_maps(root: Path, reader: _Reader) -> Iterator[Part]:
    """Every split."""

    def check(split: str) -> Part:
        data = MapDataset(root, split)
        files = [image for image, _ in data.pairs]
        return reader.part(
            split, files, None, data.__getitem__, _not_read(root / "images" / split, files)
        )

    yield from _own_splits(root / "images", check)


def check_folders(root: Path, reader: _Reader) -> Iterator[Part]:
    """Every split."""

    def check(split: str) -> Part:
        data = FolderDataset(root, split)
        files = [path for path, _ in data.files]
        without = len(data.classes) - len({label for _, label in data.files})
        note = (
            f", {without:,} of the {len(data.classes):,} classes without images" if without else ""
        )
        return reader.part(
            split, files, None, data.__getitem__, note + _not_read(root / split, files)
        )

    yield from _own_splits(root, check)


def _not_read(folder: Path, files: Sequence[Path]) -> str:
    """What lies beside the images and is none, or is of a kind that is not read."""
    others = sorted(set(visible_files(folder)) - set(files))
    return f", {len(others):,} other files that are not read: {_names(others)}" if others else ""


def _own_splits(folder: Path, check: Callable[[str], Part]) -> Iterator[Part]:
    splits = subfolders(folder)
    if not splits:
        yield Part("splits", "missing", f"there are no folders for train and val in {folder}")
    for split in splits:
        yield _said(split, check, split)


CHECKS: Mapping[str, Callable[[Path, _Reader], Iterator[Part]]] = {
    "coco": check_coco,
    "maps": check_maps,
    "folders": check_folders,
    "imagenet": check_imagenet,
    "imagenet_c": check_imagenet_c,
    "cifar10": check_cifar10,
    "cifar10_c": check_cifar10_c,
    "ade20k": check_ade20k,
}
"""The formats of ``open_dataset``, each with its check."""
