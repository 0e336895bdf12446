"""The evaluation loop: the missing cells of a run are evaluated, one corruption after another."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from stillrobust.analysis.plausibility import PLAUSIBILITY
from stillrobust.data.bad_images import format_fault_counts
from stillrobust.data.contract import require_dataset
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
from stillrobust.evaluation.loader import SeverityViews, load_severity_batches
from stillrobust.evaluation.plausibility import Predict, check_plausibility
from stillrobust.evaluation.process_group import SINGLE_PROCESS, ProcessGroup
from stillrobust.evaluation.protocol import Protocol
from stillrobust.grid import CLEAN, Cell, Place
from stillrobust.names import format_count, slug
from stillrobust.predictors import Predictor, load_run_predictor, validated_predictor
from stillrobust.runtime.progress import ProgressCallback, no_progress
from stillrobust.runtime.run_log import RUN_LOG, note
from stillrobust.samples import Dataset, DatasetInfo, Prediction, Sample
from stillrobust.storage.files import file_matches, output_folder
from stillrobust.storage.store import Run, Store
from stillrobust.training.run_files import read_description
from stillrobust.user_files import display_name


def evaluate(
    model: Path | str | Predictor,
    dataset: Dataset,
    results: Path | str,
    protocol: Protocol | None = None,
    run: str | None = None,
    progress: ProgressCallback = no_progress,
    group: ProcessGroup = SINGLE_PROCESS,
    *,
    replace_stale: bool = False,
    log: Path | None = None,
    group_by: str | None = None,
    chance_picture: Path | None = None,
) -> str:
    """Evaluate a model on a dataset under image corruptions.

    Cells that are already in the store are skipped. Corrupted pixels depend only on (seed,
    corruption, severity, image id), so every model sees the same images.

    Args:
        model: Folder of a finished run, or a ``Predictor``.
        dataset: Images with ground truth; see ``stillrobust.data``.
        results: Folder of the results store. Created if missing.
        protocol: Corruptions, severities and draws (default: the 15 common corruptions).
        run: Name of the run in the store (default: name of the folder or model).
        progress: Called as images are processed. ``total`` counts each image once per cell.
        group: Processes that share the images; see ``join_process_group``. The first one writes.
        replace_stale: Whether cells of other weights, data or protocol under that name are removed
            first. Otherwise they are an error.
        log: Log file (default: ``run.log`` in the folder of the run, none for a ``Predictor``).
        group_by: Rule for images that belong together, which intervals then resample as groups;
            see ``dataset_groups`` (default: the rule that is stored with the run, if any).
        chance_picture: PNG file. If it is given and the clean score is no better than chance, the
            evaluation ends after the clean cell, with a picture of three predictions in this file.

    Returns:
        The name of the run in the store.

    Raises:
        UserError: If model and dataset do not fit, a prediction is invalid, the run's weights
            change during evaluation, cells of another model have the name of the run, or the
            clean score is no better than chance (only with ``chance_picture``).
        LeaseHeldError: If another process is evaluating the same run.
    """
    model = Path(model) if isinstance(model, str) else model
    require_dataset(dataset)
    evaluation = _prepare(
        model, dataset, Store(results), protocol or Protocol(), run, replace_stale, group, log
    )
    dataset = evaluation.dataset
    if group.is_main_process:
        store_groups(evaluation.store, evaluation.run, dataset, group_by)
    size, cells, missing = (
        len(dataset),
        len(evaluation.views),
        group.broadcast(evaluation.missing_severities()),
    )
    done = cells - sum(map(len, missing.values()))
    if missing:
        names = ", ".join(map(display_name, missing))
        evaluation.note(
            f"evaluation of {evaluation.run}: {cells - done} of {format_count(cells, 'cell')},"
            f" {format_count(size, 'image')} of {dataset.info.name}, {names}"
        )
        left_out = format_fault_counts(dataset.info.left_out) or "nothing"
        evaluation.note(f"left out of the data: {left_out}")

    def report(corruption: str, severities: int, done: int, images: int) -> None:
        text = f"{display_name(corruption)}, {done} of {cells} cells done"
        images = min(size, images * group.size)
        progress(done * size + images * severities, cells * size, text)

    writes = output_folder(evaluation.store.root) if group.is_main_process else nullcontext()
    with writes:
        if missing and CLEAN[0] not in missing:  # a run that was stopped is not resumed in silence
            evaluation.require_better_than_chance(chance_picture)
        for corruption, severities in missing.items():
            on_images = partial(report, corruption, len(severities), done)
            _evaluate_corruption(evaluation, corruption, on_images)
            done += len(severities)
            report(corruption, 0, done, 0)
            if corruption == CLEAN[0]:
                evaluation.require_better_than_chance(chance_picture)
    if not missing:
        progress(cells * size, cells * size, "all cells were evaluated before")
    return evaluation.run


@dataclass(frozen=True)
class _Evaluation:
    """A run with its model, data, and the view and key of every cell."""

    run: str
    predictor: Predictor
    folder: Path | None
    """Folder of a run trained by stillrobust, or ``None`` for an external model."""
    dataset: Dataset
    protocol: Protocol
    circumstances: dict[str, Any]
    views: Mapping[Place, Dataset]
    keys: Mapping[Place, str]
    store: Store
    group: ProcessGroup
    log: Path | None

    def missing_severities(self, only: str | None = None) -> dict[str, list[int]]:
        """Return the severities that are not stored, by corruption; ``only`` selects one."""
        found: dict[str, list[int]] = {}
        for (corruption, severity), key in self.keys.items():
            cell = Cell(self.run, display_name(corruption), severity)
            if only in (None, corruption) and not self.store.has(cell, key):
                found.setdefault(corruption, []).append(severity)
        return found

    def note(self, text: str) -> None:
        """Write an entry to the log, if there is one."""
        if self.log and self.group.is_main_process:
            note(self.log, text)

    def require_better_than_chance(self, picture: Path | None) -> None:
        """Raise ``UserError`` in all processes if the clean score is no better than chance."""
        if picture is None or CLEAN not in self.keys:
            return
        error = None
        if self.group.is_main_process:
            error = stored_chance_error(
                self.store, self.run, self.dataset, self._predict_clean, picture
            )
        if error := self.group.broadcast(error):
            raise error

    def _predict_clean(self, indices: Sequence[int]) -> list[tuple[Sample, Prediction]]:
        """Predict some clean images, a batch at a time."""
        samples, size = [self.dataset[index] for index in indices], self.protocol.batch_size
        predict = _validated(self.predictor, self.dataset.info)
        found: list[Prediction] = []
        for first in range(0, len(samples), size):
            batch = samples[first : first + size]
            names = [f"{sample.target.image_id} at severity 0" for sample in batch]
            with torch.inference_mode():
                found += predict([sample.image for sample in batch], names)
        return list(zip(samples, found, strict=True))

    def require_unchanged_weights(self) -> None:
        """Raise ``UserError`` if the run's weights are not those that were loaded."""
        folder, weights = self.folder, self.predictor.weights
        if folder and not (
            _weights_in(folder) == weights and file_matches(folder / "model.safetensors", weights)
        ):
            raise UserError(
                f"The weights in {folder} changed during the evaluation, and the new ones were not"
                " evaluated; restore them, or train the run again and then evaluate it"
            )


def _prepare(
    model: Path | Predictor,
    dataset: Dataset,
    store: Store,
    protocol: Protocol,
    run: str | None,
    replace_stale: bool,
    group: ProcessGroup,
    log: Path | None,
) -> _Evaluation:
    """Load the model, open all views, and write the record of the run."""
    folder = model if isinstance(model, Path) else None
    predictor = _load_run(model, _weights_in(model)) if isinstance(model, Path) else model
    _require_fit(dataset, predictor)
    whole, dataset = dataset, select_images(dataset, protocol)
    circumstances = resolve_circumstances(dataset, protocol, predictor.weights)
    run = run or slug(folder.resolve().name if folder else predictor.model)
    if not replace_stale:
        require_same_circumstances(store, run, whole, circumstances)
    views = cell_views(dataset, protocol)
    keys = cell_keys(dataset, circumstances, views)
    if replace_stale and group.is_main_process:
        store.remove_cells(stale_cells(store, run, whole, circumstances))
    info = dataset.info
    about = {**predictor.about, **evaluation_facts(info, circumstances)}
    if group.is_main_process:
        about[PLAUSIBILITY] = _plausibility(store, run, predictor, dataset, circumstances)
        transfer, name = predictor.transfer, predictor.model
        store.write_run(
            Run(
                run,
                predictor.task,
                name,
                transfer,
                info.name,
                about,
                info.classes,
                predictor.kind,
            )
        )
    log = log or (folder / RUN_LOG if folder else None)
    return _Evaluation(
        run, predictor, folder, dataset, protocol, circumstances, views, keys, store, group, log
    )


def _plausibility(
    store: Store, run: str, predictor: Predictor, dataset: Dataset, circumstances: dict[str, Any]
) -> dict[str, Any]:
    """Return what is stored for the same protocol, or check data and first predictions."""
    for one in store.runs():
        if one.name == run and one.protocol.get("evaluation") == circumstances:
            return dict(one.protocol.get(PLAUSIBILITY, {}))
    with torch.inference_mode():
        return asdict(check_plausibility(dataset, _validated(predictor, dataset.info)))


def _validated(predictor: Predictor, info: DatasetInfo) -> Predict:
    has_masks = info.has_masks and predictor.masks
    return validated_predictor(predictor, len(info.classes), has_masks)


def _weights_in(folder: Path) -> str:
    """Return the SHA-256 of a finished run's weights; empty if the run is not finished."""
    return str((read_description(folder) or {}).get("sha256", ""))


@lru_cache(maxsize=2)
def _load_run(folder: Path, weights: str) -> Predictor:
    """Load a run's model and keep it for the next call; ``weights`` identifies a new training."""
    return load_run_predictor(folder)


def _require_fit(dataset: Dataset, predictor: Predictor) -> None:
    info, expected = dataset.info, predictor.classes
    if predictor.task != info.task:
        raise UserError(
            f"{predictor.model} is for {predictor.task}, but {info.name} has data for {info.task};"
            " give other data"
        )
    if expected is not None and info.classes != expected:
        raise UserError(
            f"{predictor.model} has {format_count(len(expected), 'class')}"
            f" ({', '.join(expected[:6])}{', ...' if len(expected) > 6 else ''}), but {info.name}"
            f" has {len(info.classes)} ({', '.join(info.classes[:6])}); evaluate on data with the"
            " same classes in the same order"
        )


def _evaluate_corruption(
    evaluation: _Evaluation, corruption: str, on_images: Callable[[int], None]
) -> None:
    """Evaluate and write the missing cells of one corruption, under a lease."""
    group, store, run = evaluation.group, evaluation.store, evaluation.run
    shown = display_name(corruption)
    lease = store.lease_cells(run, shown) if group.is_main_process else nullcontext()
    with lease as held:
        # another process may have finished cells in the meantime
        severities = group.broadcast(evaluation.missing_severities(corruption).get(corruption, []))
        if not severities:
            return
        evaluation.require_unchanged_weights()
        scores = _score_severities(evaluation, corruption, severities, on_images)
        for severity, score in scores.items():
            assert held is not None  # only the main process has scores
            held.check()
            evaluation.require_unchanged_weights()
            images = len(evaluation.dataset)
            store.write_cell(
                Cell(run, shown, severity),
                evaluation.keys[corruption, severity],
                protocol=evaluation.circumstances | corruption_file(corruption),
                images=images,
                **score,
            )
            numbers = ", ".join(f"{name} {value:.4f}" for name, value in score["metrics"].items())
            evaluation.note(
                f"{run} on {shown} {severity},"
                f" {format_count(images, 'image')} in {score['seconds']:.1f} s: {numbers}"
            )


def _score_severities(
    evaluation: _Evaluation,
    corruption: str,
    severities: list[int],
    on_images: Callable[[int], None],
) -> dict[int, dict[str, Any]]:
    """Score one corruption: every image is read once and predicted at all severities.

    Returns:
        Metrics, seconds, statistics and examples by severity, as ``Store.write_cell`` takes them.
        Empty in all processes but the main one.
    """
    dataset, protocol, group = evaluation.dataset, evaluation.protocol, evaluation.group
    predictor = evaluation.predictor
    info = dataset.info if predictor.masks else replace(dataset.info, has_masks=False)
    predict = _validated(predictor, info)
    scores = {level: CellScores(info, level, protocol.examples) for level in severities}
    views = tuple(evaluation.views[corruption, severity] for severity in severities)
    shard = group.shard(len(dataset), protocol.batch_size)
    images = torch.utils.data.Subset(SeverityViews(dataset, views), shard)
    start, seen = time.monotonic(), 0
    for batch in load_severity_batches(images, protocol.batch_size, protocol.workers):
        seen += len(batch)
        for severity, samples in zip(severities, zip(*batch, strict=True), strict=True):
            names = [f"{sample.target.image_id} at severity {severity}" for sample in samples]
            with torch.inference_mode():
                predictions = predict([sample.image for sample in samples], names)
            scores[severity].update(predictions, [sample.target for sample in samples])
            scores[severity].keep_examples(samples, predictions)
        on_images(seen)
    if not (gathered := group.gather(scores)):
        return {}
    scores = gathered[0]
    for other in gathered[1:]:
        for severity in severities:
            scores[severity].merge(other[severity])
    seconds = round((time.monotonic() - start) / len(severities), 3)
    return {severity: scores[severity].record(seconds) for severity in severities}
