"""Model × dataset × corruption × severity -> measurements, one cell at a time, each written as soon
as it is known.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from stillrobust.analysis.budget import image_order
from stillrobust.corruptions import protocol as corruption_protocol
from stillrobust.data.bad_images import counted, counts_of
from stillrobust.data.views import Subset, corrupted_view, has_stored
from stillrobust.errors import UserError
from stillrobust.evaluation.gallery_examples import as_arrays
from stillrobust.evaluation.loader import AtSeverities, batches
from stillrobust.evaluation.process_group import ALONE, Group
from stillrobust.evaluation.protocol import Protocol, cells_of
from stillrobust.grid import CLEAN, Cell, Place
from stillrobust.metrics import METRIC_VERSION, METRICS
from stillrobust.names import slug
from stillrobust.predictors import Predictor, checked, predictor_of_run
from stillrobust.runtime.run_log import RUN_LOG, note
from stillrobust.samples import Dataset, Prediction, Sample
from stillrobust.storage.files import content_key
from stillrobust.storage.store import CORRUPTION_FILE, Run, Store
from stillrobust.training.run_files import file_matches, read_description
from stillrobust.user_files import is_own, keyed, shown

Progress = Callable[[int, int, str], None]
EXAMPLE_SEVERITY = 3  # the middle one is shown in the gallery, beside the clean image
# such cells are measured anew
MAY_CHANGE = {"data_name", "images", "images_chosen", "metric_version", "corruptions_version"}


def evaluate(
    model: Path | str | Predictor,
    dataset: Dataset,
    results: Path | str,
    protocol: Protocol | None = None,
    run: str | None = None,
    progress: Progress = lambda done, total, text: None,
    log: Path | None = None,
    group: Group = ALONE,
) -> str:
    """Measure ``model``, the folder of a finished run or a model of any make, on ``dataset``.

    Writes what is missing in the store ``results``, and returns the run's name there. The corrupted
    pixels depend on (seed, corruption, severity, image) alone, so that every model sees the same
    ones. ``progress`` hears of images, each counted once for every cell that it is in. ``log`` is
    by default ``run.log`` in the folder of the run. Raises ``Held`` while another process measures
    the same run on a corruption that is missing, ``UserError`` where the run's weights change
    meanwhile. Of a ``group`` of processes each measures a part of the images, and the first one
    writes.

    Without ``run`` the name is the folder's or the model's, which others may have too: cells of
    other weights, data or circumstances under it are a ``UserError``. Who gives ``run`` answers for
    it, and such cells are measured anew.
    """
    model = Path(model) if isinstance(model, str) else model
    asked = _asked(model, dataset, Store(results), protocol or Protocol(), run, log, group)
    size, cells, missing = len(asked.dataset), len(asked.views), group.same(asked.missing())
    done = cells - sum(map(len, missing.values()))
    if missing:
        named = f"{size} images of {asked.dataset.info.name}, {', '.join(map(shown, missing))}"
        asked.note(f"evaluation of {asked.run}: {cells - done} of {cells} cells, {named}")
        asked.note(f"left out of the data: {counted(asked.dataset.info.left_out) or 'nothing'}")
    for corruption, severities in missing.items():

        def listen(
            images: int,
            corruption: str = corruption,
            done: int = done,
            several: int = len(severities),
        ) -> None:
            images = min(size, images * group.size)
            progress(
                done * size + images * several,
                cells * size,
                f"{shown(corruption)}, {done} of {cells} cells done",
            )

        _write_corruption(asked, corruption, listen)
        done += len(severities)
        progress(done * size, cells * size, f"{shown(corruption)}, {done} of {cells} cells done")
    if not missing:
        progress(cells * size, cells * size, "all measured before")
    return asked.run


@dataclass(frozen=True)
class _Asked:
    """An evaluation: a run and its model, the data and the key of every cell, and where the numbers
    go.
    """

    run: str
    predictor: Predictor
    folder: Path | None
    """Of a finished run of ours."""
    dataset: Dataset
    protocol: Protocol
    circumstances: dict[str, Any]
    views: Mapping[Place, Dataset]
    keys: Mapping[Place, str]
    store: Store
    log: Path | None
    group: Group

    def missing(self, only: str | None = None) -> dict[str, list[int]]:
        """Corruption -> severities that are not there, of all corruptions or of one."""
        found: dict[str, list[int]] = {}
        for (corruption, severity), key in self.keys.items():
            if only in (None, corruption) and not self.store.has(
                Cell(self.run, shown(corruption), severity), key
            ):
                found.setdefault(corruption, []).append(severity)
        return found

    def note(self, text: str) -> None:
        """A line of the run's log, where it has one."""
        if self.log and self.group.first:
            note(self.log, text)


def _asked(
    model: Path | Predictor,
    dataset: Dataset,
    store: Store,
    protocol: Protocol,
    run: str | None,
    log: Path | None,
    group: Group,
) -> _Asked:
    """All that is known before anything is measured; the run is written down."""
    folder = model if isinstance(model, Path) else None
    predictor = _of_run(model, _weights_in(model)) if isinstance(model, Path) else model
    _check_fit(dataset, predictor)
    every, dataset = dataset, _chosen(dataset, protocol.images, protocol.budget is not None)
    circumstances = _circumstances(dataset, protocol, predictor.weights)
    if run is None:
        run = slug(folder.resolve().name if folder else predictor.model)
        _require_same(store, run, every, circumstances)
    views = _views(dataset, protocol)
    keys = _keys(dataset, circumstances, views)
    info = dataset.info
    about = {**predictor.about, "evaluation": circumstances}
    about |= {"left_out_of_the_data": dict(info.left_out)} if info.left_out else {}
    if group.first:
        store.write_run(
            Run(
                run,
                predictor.task,
                predictor.model,
                predictor.transfer,
                info.name,
                about,
                info.classes,
            )
        )
    log = log or (folder / RUN_LOG if folder else None)
    return _Asked(
        run, predictor, folder, dataset, protocol, circumstances, views, keys, store, log, group
    )


def _require_same(store: Store, run: str, every: Dataset, circumstances: Mapping[str, Any]) -> None:
    """What is finished under this name is of the same model, data and circumstances, on some of the
    images or all.
    """
    for one in {content_key(one.circumstances): one for one in store.measurements(run)}.values():
        known = one.circumstances
        asked = {
            **circumstances,
            "data": _chosen(every, one.images, "images_chosen" in known).info.fingerprint,
        }
        differing = [
            key
            for key in sorted((known.keys() | asked.keys()) - MAY_CHANGE)
            if known.get(key) != asked.get(key)
        ]
        differing += ["images"] if one.images > circumstances["images"] else []
        if differing:
            raise UserError(
                f"Expected the model, data and circumstances that {run} was measured with in"
                f" {store.root}, but {', '.join(differing)} differ; take another --out"
            )


def _write_corruption(asked: _Asked, corruption: str, listen: Callable[[int], None]) -> None:
    """Measure and write what is missing of one corruption, unless another process has done so
    meanwhile.
    """
    group = asked.group
    with (
        asked.store.writing(asked.run, shown(corruption)) if group.first else nullcontext()
    ) as held:
        severities = group.same(asked.missing(corruption).get(corruption, []))
        if not severities:
            return
        _require_unchanged(asked)
        views = {severity: asked.views[corruption, severity] for severity in severities}
        found = _measure(asked.predictor, asked.dataset, views, asked.protocol, listen, group)
        for severity, measured in found.items():
            assert held is not None  # what is found, the first process finds
            held.check()
            _require_unchanged(asked)
            cell, key = (
                Cell(asked.run, shown(corruption), severity),
                asked.keys[corruption, severity],
            )
            own = asked.circumstances | _own(corruption)
            asked.store.write_cell(cell, key, protocol=own, images=len(asked.dataset), **measured)
            numbers = ", ".join(
                f"{name} {value:.4f}" for name, value in measured["metrics"].items()
            )
            said = f"{len(asked.dataset)} images in {measured['seconds']:.1f} s: {numbers}"
            asked.note(f"{asked.run} on {shown(corruption)} {severity}, {said}")


def _require_unchanged(asked: _Asked) -> None:
    """The weights that were loaded are still those of the run: else its cells would be of two
    models.
    """
    folder, weights = asked.folder, asked.predictor.weights
    if folder and not (
        _weights_in(folder) == weights and file_matches(folder / "model.safetensors", weights)
    ):
        raise UserError(
            f"The weights in {folder} are no longer those that were evaluated so far, and nothing"
            " was measured on the new ones; put them back, or train the run again and then"
            " evaluate it"
        )


def missing_cells(
    dataset: Dataset, results: Path, protocol: Protocol, run: str, weights: str
) -> list[Place]:
    """The cells of ``run`` that :func:`evaluate` would measure: not there, or measured under other
    circumstances.

    ``weights`` is the predictor's; no model is loaded.
    """
    dataset = _chosen(dataset, protocol.images, protocol.budget is not None)
    views = _views(dataset, protocol)
    keys = _keys(dataset, _circumstances(dataset, protocol, weights), views)
    store = Store(results)
    return [
        cell for cell, key in keys.items() if not store.has(Cell(run, shown(cell[0]), cell[1]), key)
    ]


def _weights_in(folder: Path) -> str:
    """The digest of the weights of the finished run in ``folder``; empty where there is none."""
    return str((read_description(folder) or {}).get("sha256", ""))


def _views(dataset: Dataset, protocol: Protocol) -> dict[Place, Dataset]:
    """(corruption, severity) -> the data of every cell, all opened before the first is measured:
    stored ones may be missing.
    """
    chosen = (
        protocol.mode != "fast"
        or protocol.channel_order != "rgb"
        or protocol.regime is not None
        or protocol.warp_truth
    )
    if has_stored(dataset) and chosen:
        raise UserError(
            f"Expected no regime, mode, channel order or warped truth for {dataset.info.name},"
            " whose corruptions are stored, but got one; leave it out, or evaluate on the clean"
            " set to compute the corruptions"
        )
    if has_stored(dataset) and any(map(is_own, protocol.corruptions)):
        raise UserError(
            f"Expected corruptions that are stored with {dataset.info.name}, but got a file of your"
            " own; evaluate it on the clean set, such as imagenet:PATH"
        )
    how: dict[str, Any] = {
        "seed": protocol.seed,
        "mode": protocol.mode,
        "regime": protocol.regime or dataset.info.regime,
    }
    how |= {
        "channel_order": protocol.channel_order,
        "warp_truth": protocol.warp_truth,
        "shared": protocol.shared,
    }
    return {
        cell: corrupted_view(dataset, *cell, **how)
        for cell in cells_of(protocol, dataset.info.task)
    }


@lru_cache(maxsize=2)
def _of_run(folder: Path, weights: str) -> Predictor:
    """The model of a run, kept for the next call; ``weights`` makes a run that was trained anew
    another entry.
    """
    return predictor_of_run(folder)


def _check_fit(dataset: Dataset, predictor: Predictor) -> None:
    info = dataset.info
    if predictor.task != info.task:
        raise UserError(
            f"{predictor.model} is for {predictor.task}, but {info.name} has data for {info.task};"
            " give other data"
        )
    expected = predictor.classes
    if expected is not None and info.classes != expected:
        raise UserError(
            "The model knows the classes"
            f" {', '.join(expected[:6])}{', ...' if len(expected) > 6 else ''} ({len(expected)}),"
            f" but {info.name} has {', '.join(info.classes[:6])} ({len(info.classes)}); evaluate on"
            " data with the same classes in the same order"
        )


def _chosen(dataset: Dataset, images: int | None, in_order: bool) -> Dataset:
    """So many images of a set: the first of the budget's order, or evenly spaced ones."""
    if images is None or images >= len(dataset):
        return dataset
    if in_order:
        return Subset(dataset, sorted(image_order(len(dataset))[:images]))
    return Subset(dataset, [index * len(dataset) // images for index in range(images)])


def _circumstances(dataset: Dataset, protocol: Protocol, weights: str) -> dict[str, Any]:
    """What is kept with every number: all that decides it but corruption and severity, and the
    data's name.
    """
    info = dataset.info
    known: dict[str, Any] = {
        "task": info.task,
        "data": info.fingerprint,
        "data_name": info.name,
        "images": len(dataset),
        "weights": weights,
        "stage": info.stage,
        "ground_truth": "warped" if protocol.warp_truth else "not warped",
        "metric_version": METRIC_VERSION[info.task],
        **({"scale": protocol.scale} if protocol.scale else {}),
        **(
            {"images_chosen": "first of the budget's order"}
            if protocol.budget is not None and isinstance(dataset, Subset)
            else {}
        ),
        **({"left_out": counts_of(info.left_out)} if info.left_out else {}),
    }
    if has_stored(dataset):  # seed, regime, draws and channel order were the maker's
        return known
    drawn = corruption_protocol(
        protocol.mode, protocol.regime or info.regime, protocol.channel_order
    )
    return {**known, "seed": protocol.seed, **drawn}


def _keys(
    dataset: Dataset, circumstances: Mapping[str, Any], views: Mapping[Place, Dataset]
) -> dict[Place, str]:
    """The key of each cell: names what decides its number and nothing else (what a data set is
    called, say, does not).

    Computed pixels follow from the circumstances; stored ones are what their files hold.
    """
    deciding = {key: value for key, value in circumstances.items() if key != "data_name"}
    keys = {}
    for cell, view in views.items():
        pixels = {"stored": view.info.fingerprint} if has_stored(dataset) and cell != CLEAN else {}
        keys[cell] = content_key(
            {
                **deciding,
                "corruption": shown(cell[0]),
                "severity": cell[1],
                **pixels,
                **_own(cell[0]),
            }
        )
    return keys


def _own(corruption: str) -> dict[str, str]:
    """What a cell's protocol says more than the others' where the corruption is a file of your own."""
    return {CORRUPTION_FILE: keyed(corruption)} if is_own(corruption) else {}


# ---- one corruption: every image is read once, and seen at all its severities
# --------------------------------------------


def _measure(
    predictor: Predictor,
    dataset: Dataset,
    views: Mapping[int, Dataset],
    protocol: Protocol,
    listen: Callable[[int], None],
    group: Group,
) -> dict[int, dict[str, Any]]:
    """What ``Store.write_cell`` takes, of every severity in ``views``; nothing in processes that
    are not their group's first.
    """
    severities = list(views)
    info = dataset.info if predictor.masks else replace(dataset.info, has_masks=False)
    predict = checked(predictor, len(info.classes), info.has_masks)
    metrics = {severity: METRICS[info.task](info) for severity in severities}
    shown: dict[int, list[tuple[Sample, Prediction]]] = {severity: [] for severity in severities}
    start, seen = time.monotonic(), 0
    part = group.part(len(dataset), protocol.batch_size)
    for batch in batches(
        torch.utils.data.Subset(AtSeverities(dataset, tuple(views.values())), part),
        protocol.batch_size,
        protocol.workers,
    ):
        seen += len(batch)
        for severity, samples in zip(severities, zip(*batch, strict=True), strict=True):
            with torch.inference_mode():
                names = [f"{sample.target.image_id} at severity {severity}" for sample in samples]
                predictions = predict([sample.image for sample in samples], names)
            metrics[severity].update(predictions, [sample.target for sample in samples])
            keep = protocol.examples if severity in (0, EXAMPLE_SEVERITY) else 0
            shown[severity] += zip(
                samples[: max(0, keep - len(shown[severity]))], predictions, strict=False
            )
        listen(seen)
    if not (parts := group.gathered((metrics, shown))):
        return {}
    metrics, shown = parts[0]
    for others, theirs in parts[1:]:
        for severity in severities:
            metrics[severity].merge(others[severity])
            shown[severity] += theirs[severity]
    seconds = round((time.monotonic() - start) / len(severities), 3)
    return {
        severity: {
            "metrics": metrics[severity].compute(),
            "seconds": seconds,
            "statistics": metrics[severity].statistics(),
            "examples": (
                as_arrays(shown[severity][: protocol.examples]) if shown[severity] else None
            ),
        }
        for severity in severities
    }
