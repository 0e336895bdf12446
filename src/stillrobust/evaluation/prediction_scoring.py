"""Score predictions that were made elsewhere, with the same records as ``evaluate``."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stillrobust.analysis.plausibility import PLAUSIBILITY
from stillrobust.data.views import read_target
from stillrobust.errors import UserError
from stillrobust.evaluation.cell_scores import CellScores
from stillrobust.evaluation.clean_score import stored_chance_error
from stillrobust.evaluation.image_groups import store_groups
from stillrobust.evaluation.keys import (
    cell_keys,
    cell_views,
    corruption_file,
    evaluation_facts,
    require_same_circumstances,
    resolve_circumstances,
    select_images,
    stale_cells,
)
from stillrobust.evaluation.plausibility import BATCH, check_data, check_file_plausibility
from stillrobust.evaluation.prediction_files import (
    CellPredictions,
    files_digest,
    find_prediction_files,
    predictions_digest,
    read_predictions,
)
from stillrobust.evaluation.prediction_manifest import Manifest, cell_protocol, read_manifest
from stillrobust.evaluation.protocol import Protocol
from stillrobust.grid import CLEAN, Cell, Place
from stillrobust.predictors.validation import PredictionFault, validated_prediction
from stillrobust.runtime.progress import ProgressCallback, no_progress
from stillrobust.samples import Dataset, DatasetInfo, Prediction, Sample
from stillrobust.storage.files import cached_file_sha256
from stillrobust.storage.store import Run, Store
from stillrobust.user_files import display_name

STEP = 256  # images between two calls of progress


@dataclass(frozen=True)
class ScoringSummary:
    """The result of scoring files."""

    scored: tuple[Place, ...]
    """Cells that this call wrote."""
    already: tuple[Place, ...]
    """Cells that were stored before, with the same files."""
    without_file: tuple[Place, ...]
    """Exported cells for which there are no predictions."""
    masks_missing: bool
    """Whether the data has masks and the predictions have none, so that only boxes are scored."""


@dataclass(frozen=True)
class _Scoring:
    """Prediction files with everything that is needed to score them."""

    name: str
    manifest: Manifest
    dataset: Dataset
    """The exported images."""
    views: Mapping[Place, Dataset]
    files: Mapping[Place, Path]
    digests: Mapping[Place, str]
    """Of the content of the files when the keys were made."""
    missing_are_empty: bool
    circumstances: dict[str, Any]
    keys: Mapping[Place, str]
    store: Store

    def cell_and_key(self, place: Place) -> tuple[Cell, str]:
        """Return the cell in the store and its key."""
        return Cell(self.name, display_name(place[0]), place[1]), self.keys[place]

    def require_unchanged_file(self, place: Place) -> None:
        """Raise ``UserError`` if a file is not the one that the key of its cell stands for."""
        if predictions_digest(self.files[place]) != self.digests[place]:
            raise UserError(
                f"Expected {self.files[place]} to stay as it is while it is scored, but it changed;"
                " run the same command again when it is complete"
            )

    def read(self, place: Place) -> CellPredictions:
        """Read the predictions of a cell."""
        return read_predictions(self.files[place], self.manifest, self.missing_are_empty)


def score_predictions(
    export: Path,
    predictions: Path,
    dataset: Dataset,
    results: Path,
    name: str,
    weights: Path | None = None,
    *,
    missing_are_empty: bool = False,
    replace_stale: bool = False,
    progress: ProgressCallback = no_progress,
    group_by: str | None = None,
    chance_picture: Path | None = None,
) -> ScoringSummary:
    """Score the predictions that were made elsewhere for exported images.

    All files are checked before the first record is written. Cells that are stored with the same
    files are skipped.

    Args:
        export: Folder that ``stillrobust predictions export`` wrote.
        predictions: Folder with a file or folder for each cell; see ``prediction_files``.
        dataset: The dataset that was exported, with its ground truth.
        results: Folder of the results store. Created if missing.
        name: Name of the run in the store.
        weights: File that identifies the model (default: the prediction files identify it).
        missing_are_empty: Whether images that a file of detections does not name have none.
        replace_stale: Whether cells of other files, weights or data under that name are removed.
        progress: Called as images are processed; every image is checked and then scored.
        group_by: Rule for images that belong together; see ``dataset_groups``.
        chance_picture: PNG file. If it is given and the clean score is no better than chance,
            scoring ends after the clean cell, with a picture of three predictions in this file.

    Returns:
        What was scored.

    Raises:
        UserError: For the first problem of the files; nothing is written. For a clean score that
            is no better than chance, with ``chance_picture``.
        LeaseHeldError: If another process is evaluating the same run.
    """
    scoring = _prepare(
        export, predictions, dataset, Store(results), name, weights, missing_are_empty
    )
    store, info, circumstances = scoring.store, scoring.dataset.info, scoring.circumstances
    if not replace_stale:
        require_same_circumstances(store, name, dataset, circumstances)
    missing = [place for place in scoring.files if not store.has(*scoring.cell_and_key(place))]
    steps = _Steps(progress, 2 * len(missing) * len(scoring.dataset))
    has_masks, first = _check(scoring, missing, steps)
    if replace_stale:
        store.remove_cells(stale_cells(store, name, dataset, circumstances))
    if missing:
        facts = evaluation_facts(info, circumstances)
        facts[PLAUSIBILITY] = _plausibility(scoring, first)
        store.write_run(
            Run(name, info.task, name, None, info.name, facts, info.classes, "external")
        )
        if CLEAN not in missing:
            _require_better_than_chance(scoring, chance_picture)
    store_groups(store, name, scoring.dataset, group_by)
    for place in missing:
        with store.lease_cells(name, display_name(place[0])) as held:
            record = _score(scoring, place, replace(info, has_masks=has_masks), steps)
            held.check()
            scoring.require_unchanged_file(place)
            store.write_cell(
                *scoring.cell_and_key(place),
                protocol=circumstances | corruption_file(place[0]),
                images=len(scoring.dataset),
                **record,
            )
        if place == CLEAN:
            _require_better_than_chance(scoring, chance_picture)
    return ScoringSummary(
        scored=tuple(missing),
        already=tuple(place for place in scoring.files if place not in missing),
        without_file=tuple(place for place in scoring.manifest.cells if place not in scoring.files),
        masks_missing=bool(missing) and info.has_masks and not has_masks,
    )


def _prepare(
    export: Path,
    predictions: Path,
    dataset: Dataset,
    store: Store,
    name: str,
    weights: Path | None,
    missing_are_empty: bool,
) -> _Scoring:
    """Find the files and compare the dataset with the exported one."""
    manifest = read_manifest(export)
    selected = select_images(dataset, manifest.protocol)
    files = find_prediction_files(predictions, manifest)
    digests = {place: predictions_digest(path) for place, path in files.items()}
    identity = files_digest(digests) if weights is None else _weights_sha256(weights)
    circumstances = resolve_circumstances(selected, manifest.protocol, identity)
    _require_exported_data(manifest, selected, circumstances)
    circumstances["predictions"] = "from files"
    views = {place: _view(selected, manifest.protocol, place) for place in files}
    keys = cell_keys(selected, circumstances, views, digests)
    return _Scoring(
        name=name,
        manifest=manifest,
        dataset=selected,
        views=views,
        files=files,
        digests=digests,
        missing_are_empty=missing_are_empty,
        circumstances=circumstances,
        keys=keys,
        store=store,
    )


class _Steps:
    """Counts images for a progress callback."""

    def __init__(self, progress: ProgressCallback, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def advance(self, text: str) -> None:
        self.done += 1
        if self.done % STEP == 0 or self.done == self.total:
            self.progress(self.done, self.total, text)


def _weights_sha256(weights: Path) -> str:
    try:
        return cached_file_sha256(weights)
    except OSError as error:
        raise UserError(
            f"Expected a file of weights at {weights}, but got: {error.strerror}; check the path"
        ) from None


def _require_exported_data(
    manifest: Manifest, dataset: Dataset, circumstances: Mapping[str, Any]
) -> None:
    """Require the dataset that was exported, read by the same rules."""
    exported = manifest.circumstances
    differing = [
        key
        for key in sorted((exported.keys() | circumstances.keys()) - {"weights", "data_name"})
        if exported.get(key) != circumstances.get(key)
    ]
    ids = [dataset.image_id(index) for index in range(len(dataset))]
    if differing or ids != list(manifest.images) or dataset.info.classes != manifest.classes:
        raise UserError(
            f"Expected the dataset that was exported, {exported.get('data_name')}, but"
            f" {dataset.info.name} differs in {', '.join(differing) or 'its images'}; give the same"
            " --data as for the export, or export again"
        )


def _view(dataset: Dataset, protocol: Protocol, place: Place) -> Dataset:
    part = cell_protocol(protocol, place[0], (place[1],))
    (view,) = cell_views(dataset, part).values()
    return view


def _plausibility(scoring: _Scoring, first: Sequence[Prediction]) -> dict[str, Any]:
    """Check the data and the first clean predictions, or return what an earlier call stored."""
    if first:
        return asdict(check_file_plausibility(scoring.views[CLEAN], first))
    for run in scoring.store.runs():
        if run.name == scoring.name and PLAUSIBILITY in run.protocol:
            return dict(run.protocol[PLAUSIBILITY])
    return asdict(check_data(scoring.dataset))


def _require_better_than_chance(scoring: _Scoring, picture: Path | None) -> None:
    if picture is None or CLEAN not in scoring.files:
        return
    view = scoring.views[CLEAN]

    def read(indices: Sequence[int]) -> list[tuple[Sample, Prediction]]:
        cell = scoring.read(CLEAN)
        return [(view[index], cell.prediction(index, False)) for index in indices]

    if error := stored_chance_error(scoring.store, scoring.name, view, read, picture):
        raise error


def _check(scoring: _Scoring, places: list[Place], steps: _Steps) -> tuple[bool, list[Prediction]]:
    """Check all predictions of these cells.

    Returns:
        Whether masks are scored: the data has them, and the detections too. And the first
        predictions of the clean cell, if it is one of these cells.
    """
    manifest, info = scoring.manifest, scoring.dataset.info
    first: tuple[Place, bool] | None = None
    first_predictions: list[Prediction] = []
    for place in places:
        cell = scoring.read(place)
        if cell.has_masks is not None and info.has_masks:
            first = first or (place, cell.has_masks)
            if first[1] != cell.has_masks:
                raise UserError(
                    f"Expected masks in all files or in none, but {scoring.files[first[0]]} and"
                    f" {scoring.files[place]} differ; write 'segmentation' in all of them"
                )
        masks = info.has_masks and bool(cell.has_masks)
        for index, image in enumerate(manifest.images):
            size, found = manifest.sizes[index], cell.prediction(index, masks)
            try:
                validated_prediction(found, info.task, size, len(info.classes), masks)
            except PredictionFault as fault:
                raise UserError(
                    f"{scoring.files[place]} cannot be scored on {image} {size}: expected {fault}"
                ) from None
            if place == CLEAN and index < BATCH:
                first_predictions.append(found)
            steps.advance(f"check {display_name(place[0])} {place[1]}")
    return info.has_masks and (first is None or first[1]), first_predictions


def _score(scoring: _Scoring, place: Place, info: DatasetInfo, steps: _Steps) -> dict[str, Any]:
    """Score one cell.

    Returns:
        Metrics, seconds, statistics and examples, as ``Store.write_cell`` takes them.
    """
    start, cell, view = time.monotonic(), scoring.read(place), scoring.views[place]
    scores = CellScores(info, place[1], scoring.manifest.protocol.examples)
    for index in range(len(view)):
        prediction = cell.prediction(index, info.has_masks)
        scores.update([prediction], [read_target(view, index)])
        if scores.missing_examples:
            scores.keep_examples([view[index]], [prediction])
        steps.advance(f"score {display_name(place[0])} {place[1]}")
    record = scores.record(round(time.monotonic() - start, 3))
    if cell.labels_only:
        del record["statistics"]["confidence"]  # labels say nothing about calibration
    return record
