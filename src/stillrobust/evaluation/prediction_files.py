"""Files of predictions that were made elsewhere: finding, reading and writing them.

Each cell has one file, or for segmentation one folder, in the folder of predictions::

    fog_3.json  fog_3.jsonl  fog_3.csv       also as fog/3.json, and with .gz
    fog/3/street/01.png                      label maps; beside them 01.confidence.npy, optional

Readers never hold a whole text: detections become columns of numbers while a file is read.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np

from stillrobust.data.formats.masks import encode_mask
from stillrobust.data.reading import encode_png, read_label_map, visible_files
from stillrobust.errors import UserError
from stillrobust.evaluation.prediction_entries import read_classifications, read_detections
from stillrobust.evaluation.prediction_manifest import Manifest, cell_name
from stillrobust.grid import Place
from stillrobust.samples import Prediction
from stillrobust.storage.files import bytes_sha256, file_sha256, move_into_place, temporary_path
from stillrobust.untrusted import open_regular_file
from stillrobust.user_files import display_name

SUFFIXES = {
    "detection": (".json", ".jsonl", ".json.gz", ".jsonl.gz"),
    "classification": (".csv", ".json", ".jsonl", ".csv.gz", ".json.gz", ".jsonl.gz"),
    "segmentation": ("",),
}
"""Endings of the file of a cell, by task. Segmentation has a folder."""
CONFIDENCE = ".confidence.npy"


class CellPredictions(Protocol):
    """The predictions of one cell, by the index of the image in the manifest."""

    @property
    def has_masks(self) -> bool | None:
        """Whether detections have masks; ``None`` without detections and for other tasks."""
        ...

    @property
    def labels_only(self) -> bool:
        """Classification: whether the file has no probabilities."""
        ...

    def prediction(self, index: int, masks: bool) -> Prediction:
        """The prediction of an image, with decoded masks if ``masks`` is set."""
        ...


class LabelMaps:
    """The label maps in the folder of a cell."""

    has_masks: bool | None = None
    labels_only = False

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        existing = {path.relative_to(folder).as_posix() for path in visible_files(folder)}
        for name in manifest.files:
            if name not in existing:
                raise UserError(
                    f"Expected a label map for every image, but {folder / name} is missing; write"
                    " a PNG of class indices for it"
                )
        stems = {name.removesuffix(".png") for name in manifest.files}
        known = {*manifest.files, *(f"{stem}{CONFIDENCE}" for stem in stems)}
        for name in sorted(existing - known):
            raise UserError(
                f"Expected the names of the exported images in {folder}, but got {name}; name each"
                f" label map as its image, such as {manifest.files[0]}, and remove other files"
            )

    def prediction(self, index: int, masks: bool) -> Prediction:
        """Read the label map of an image, and its confidence if there is one."""
        path = self.folder / self.manifest.files[index]
        beside = path.with_name(path.name.removesuffix(".png") + CONFIDENCE)
        confidence = None
        if beside.exists():
            try:
                open_regular_file(beside).close()
                # a header that claims more than the file has is refused before memory is allocated
                confidence = np.load(beside, mmap_mode="r", allow_pickle=False)
            except (ValueError, OSError, EOFError):  # of a pipe or device too
                raise UserError(
                    f"Expected an array of floats at {beside}, but it cannot be read; write it with"
                    " numpy.save"
                ) from None
        return Prediction(label_map=read_label_map(path), confidence=confidence)


def find_prediction_files(root: Path, manifest: Manifest) -> dict[Place, Path]:
    """Find the file or folder of every cell.

    Args:
        root: Folder of the predictions.
        manifest: The export that they are for.

    Returns:
        File or folder of each cell that has one, in the order of the manifest.

    Raises:
        UserError: If there is none, a cell has two, or a file belongs to no exported cell.
    """
    found: dict[Place, Path] = {}
    for place in manifest.cells:
        stems = (cell_name(place), f"{display_name(place[0])}/{place[1]}")
        paths = [root / f"{stem}{end}" for stem in stems for end in SUFFIXES[manifest.task]]
        existing = [path for path in paths if path.exists()]
        if len(existing) > 1:
            raise UserError(
                f"Expected one file for {display_name(place[0])} {place[1]}, but got"
                f" {existing[0]} and {existing[1]}; remove one of them"
            )
        if existing:
            found[place] = existing[0]
    _require_no_others(root, manifest, found)
    for path in found.values():
        if path.is_dir() != (manifest.task == "segmentation"):
            raise UserError(
                f"Expected {'a folder of label maps' if path.is_file() else 'a file'} for"
                f" {manifest.task}, but got {path}; see docs/how_to/predictions.md"
            )
    return found


def _require_no_others(root: Path, manifest: Manifest, found: Mapping[Place, Path]) -> None:
    ends = SUFFIXES[manifest.task]
    examples = [f"{cell_name(place)}{end or '/'}" for place in manifest.cells for end in ends[:1]]
    for path in visible_files(root):
        if not any(path == one or one in path.parents for one in found.values()):
            raise UserError(
                f"Expected predictions of the exported cells in {root}, but got {path}; name them"
                f" like {', '.join(examples[:3])}, and remove other files"
            )
    if not found:
        raise UserError(
            f"Expected predictions in {root}, but found none; name them like"
            f" {', '.join(examples[:3])}"
        )


def read_predictions(path: Path, manifest: Manifest, missing_are_empty: bool) -> CellPredictions:
    """Read the predictions of a cell.

    Args:
        path: File or folder.
        manifest: The export that they are for.
        missing_are_empty: Whether images that a file of detections does not name have none.

    Raises:
        UserError: For the first problem: an unknown or missing image, an unknown class, a
            duplicate, or a value that is not a finite number.
    """
    if manifest.task == "segmentation":
        return LabelMaps(path, manifest)
    try:
        if manifest.task == "detection":
            return read_detections(path, manifest, missing_are_empty)
        return read_classifications(path, manifest)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise UserError(
            f"Expected a whole text file at {path}, but it cannot be read ({error}); write it again"
        ) from None


def predictions_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of the files in a folder."""
    if path.is_file():
        return file_sha256(path)
    names = [(one.relative_to(path).as_posix(), file_sha256(one)) for one in visible_files(path)]
    return bytes_sha256(json.dumps(names).encode())


def write_predictions(
    root: Path, manifest: Manifest, place: Place, predictions: Iterable[Prediction]
) -> Path:
    """Write the predictions of a cell in the form that ``stillrobust predictions score`` reads.

    Args:
        root: Folder of the predictions.
        manifest: The export; see :func:`read_manifest`.
        place: (corruption, severity) of ``manifest.cells``.
        predictions: One prediction per image, in the order of ``manifest.images``.

    Returns:
        The file, or for segmentation the folder.

    Raises:
        ValueError: If there are fewer or more predictions than images.
    """
    if manifest.task == "segmentation":
        folder = root / display_name(place[0]) / str(place[1])
        for name, one in zip(manifest.files, predictions, strict=True):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(np.asarray(one.label_map)))
            if one.confidence is not None:
                np.save(path.with_name(path.name.removesuffix(".png") + CONFIDENCE), one.confidence)
        return folder
    detection = manifest.task == "detection"
    target = root / f"{cell_name(place)}{'.json.gz' if detection else '.csv.gz'}"
    root.mkdir(parents=True, exist_ok=True)
    written = temporary_path(target)
    try:
        with gzip.open(written, "wt", encoding="utf-8", newline="") as file:
            text = cast(IO[str], file)
            if detection:
                _write_detections(text, manifest, predictions)
            else:
                _write_probabilities(text, manifest, predictions)
        move_into_place(written, target)
    finally:
        written.unlink(missing_ok=True)
    return target


def _write_probabilities(
    file: IO[str], manifest: Manifest, predictions: Iterable[Prediction]
) -> None:
    writer = csv.writer(file)
    writer.writerow(["image", *manifest.classes])
    for image, one in zip(manifest.images, predictions, strict=True):
        writer.writerow([image, *np.asarray(one.probabilities, np.float64).tolist()])


def _write_detections(file: IO[str], manifest: Manifest, predictions: Iterable[Prediction]) -> None:
    separator = "["
    for number, one in zip(manifest.image_ids, predictions, strict=True):
        for entry in detection_entries(one, number, manifest.category_ids):
            file.write(separator + json.dumps(entry))
            separator = ",\n"
    file.write("]\n" if separator != "[" else "[]\n")


def detection_entries(
    prediction: Prediction, image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the COCO results of one image; without detections an entry with its id alone.

    Args:
        prediction: Boxes, labels and scores; masks are optional.
        image_id: Number of the image.
        category_ids: One number per class.
    """
    boxes = np.array(prediction.boxes, np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    labels = np.asarray(prediction.labels).tolist()
    scores = np.asarray(prediction.scores, np.float64).tolist()
    entries: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, label, score in zip(boxes.tolist(), labels, scores, strict=True)
    ]
    if prediction.masks is not None:
        for entry, mask in zip(entries, prediction.masks, strict=True):
            entry["segmentation"] = encode_mask(mask)
    return entries or [{"image_id": image_id}]


def files_digest(digests: Mapping[Place, str]) -> str:
    """Return one SHA-256 for the prediction files of all cells."""
    lines = sorted(f"{cell_name(place)} {digest}" for place, digest in digests.items())
    return bytes_sha256("\n".join(lines).encode())
