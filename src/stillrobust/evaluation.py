"""Model × dataset × corruption × severity -> measurements, one cell at a time, each written as soon as it is known."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stillrobust.corruptions import CHANNEL_ORDERS, COMMON, CORRUPTIONS, MODES, REGIMES, SEVERITIES
from stillrobust.corruptions import protocol as corruption_protocol
from stillrobust.data.views import CorruptedView, Subset
from stillrobust.errors import UserError
from stillrobust.metrics import METRIC_VERSION, METRICS
from stillrobust.names import lookup
from stillrobust.robustness import CLEAN
from stillrobust.samples import Dataset, Prediction, Sample
from stillrobust.store import Cell, Run, Store, content_key
from stillrobust.tasks import Task
from stillrobust.training import load_model

Progress = Callable[[int, int, str], None]
EXAMPLE_SEVERITY = 3  # the middle one is shown in the gallery, beside the clean image


@dataclass(frozen=True)
class Protocol:
    """The circumstances of an evaluation that a caller chooses; the store keeps them with every number."""

    corruptions: tuple[str, ...] = COMMON
    severities: tuple[int, ...] = SEVERITIES
    clean: bool = True
    """Whether the clean cell is measured too."""
    seed: int = 0
    """Keys the corruptions' generators together with corruption, severity and image."""
    images: int | None = None
    """Only so many images, evenly spaced over the set: class folders are sorted, so that the first ones would be a few classes."""
    examples: int = 3
    """Images kept with their predictions for the report's gallery."""
    batch_size: int = 8
    workers: int = 0
    """Processes that read and corrupt images."""
    mode: str = "fast"
    """Draws of the corruptions: ``fast`` or ``exact``."""
    regime: str = "imagenet"
    channel_order: str = "rgb"
    """Of the image that is corrupted; the model always sees RGB."""
    warp_truth: bool = False
    """Ground truth follows the corruptions that move pixels. Numbers are then not comparable with published ones."""

    def __post_init__(self) -> None:
        for name in self.corruptions:
            lookup("corruption", name, CORRUPTIONS)
        lookup("regime", self.regime, REGIMES)
        lookup("mode", self.mode, MODES)
        lookup("channel order", self.channel_order, CHANNEL_ORDERS)
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise UserError(f"Expected severities among 1, 2, 3, 4, 5, but got {severity}")
        if self.images is not None and self.images < 1:
            raise UserError(f"Expected at least one image to evaluate on, but got images={self.images}")

    def cells(self) -> list[tuple[str, int]]:
        """(corruption, severity) of every cell, the clean one first."""
        first = [CLEAN] if self.clean else []
        return [*first, *((name, severity) for name in self.corruptions for severity in self.severities)]


def evaluate(
    folder: Path,
    dataset: Dataset,
    results: Path,
    protocol: Protocol | None = None,
    run: str | None = None,
    progress: Progress = lambda done, total, text: None,
) -> str:
    """Evaluate the finished run in ``folder``; writes what is missing in the store ``results``, returns the run's name.

    The corrupted pixels depend on (seed, corruption, severity, image) alone, so that every model sees the same ones.
    """
    protocol = protocol or Protocol()
    task, model, description = _loaded(folder, (folder / "model.json").stat().st_mtime_ns if folder.exists() else 0)
    _check_classes(dataset, description)
    if protocol.images is not None and protocol.images < len(dataset):
        dataset = Subset(dataset, [index * len(dataset) // protocol.images for index in range(protocol.images)])
    run = run or folder.resolve().name
    store = Store(results)
    circumstances = _circumstances(dataset, protocol, description)
    plan = description["plan"]
    about = {"training": description["identity"], "evaluation": circumstances, "loaded": description["loaded"]}
    store.write_run(Run(run, plan["task"], plan["backbone"], plan["transfer"], dataset.info.name, about, dataset.info.classes))
    cells = protocol.cells()
    for done, (corruption, severity) in enumerate(cells):
        cell = Cell(run, corruption, severity)
        key = content_key({**circumstances, "corruption": corruption, "severity": severity})
        if not store.has(cell, key):
            _measure(store, cell, key, circumstances, task, model, dataset, protocol)
        progress(done + 1, len(cells), f"{corruption} {severity}" if severity else corruption)
    return run


@lru_cache(maxsize=2)
def _loaded(folder: Path, written: int) -> tuple[Task, nn.Module, dict[str, Any]]:
    """The model of a run, kept for the next call; ``written`` makes a run that was trained anew another entry."""
    task, model, description = load_model(folder)
    return task, model.to("cuda" if torch.cuda.is_available() else "cpu"), description


def _check_classes(dataset: Dataset, description: dict[str, Any]) -> None:
    trained = tuple(description["info"]["classes"])
    if dataset.info.classes != trained:
        raise UserError(
            f"The run was trained on the classes {', '.join(trained[:6])}{', ...' if len(trained) > 6 else ''} "
            f"({len(trained)}), but {dataset.info.name} has {', '.join(dataset.info.classes[:6])} "
            f"({len(dataset.info.classes)}); evaluate on data with the same classes in the same order"
        )


def _circumstances(dataset: Dataset, protocol: Protocol, description: dict[str, Any]) -> dict[str, Any]:
    """Everything but corruption and severity that decides a number."""
    task = dataset.info.task
    return {
        "task": task,
        "data": dataset.info.fingerprint,
        "data_name": dataset.info.name,
        "images": len(dataset),
        "weights": description["sha256"],
        "stage": "before resize",
        "ground_truth": "warped" if protocol.warp_truth else "not warped",
        "seed": protocol.seed,
        "metric_version": METRIC_VERSION[task],
        **corruption_protocol(protocol.mode, protocol.regime, protocol.channel_order),
    }


def _batches(view: Dataset, protocol: Protocol) -> Iterator[list[Sample]]:
    loader: Iterable[list[Sample]] = torch.utils.data.DataLoader(
        view,  # type: ignore[arg-type]
        batch_size=protocol.batch_size,
        num_workers=protocol.workers,
        collate_fn=list,
    )
    yield from loader


def _measure(
    store: Store,
    cell: Cell,
    key: str,
    circumstances: dict[str, Any],
    task: Task,
    model: nn.Module,
    dataset: Dataset,
    protocol: Protocol,
) -> None:
    start = time.monotonic()
    metric = METRICS[task.name](dataset.info)
    shown: list[tuple[Sample, Prediction]] = []
    keep = protocol.examples if cell.severity in (0, EXAMPLE_SEVERITY) else 0
    how = protocol.seed, protocol.mode, protocol.regime, protocol.channel_order, protocol.warp_truth
    view = CorruptedView(dataset, cell.corruption, cell.severity, *how)
    for batch in _batches(view, protocol):
        with torch.inference_mode():
            predictions = task.predict(model, [sample.image for sample in batch])
        metric.update(predictions, [sample.target for sample in batch])
        shown += zip(batch[: max(0, keep - len(shown))], predictions, strict=False)
    store.write_cell(
        cell,
        key,
        metrics=metric.compute(),
        protocol=circumstances,
        images=len(dataset),
        seconds=round(time.monotonic() - start, 3),
        statistics=metric.statistics(),
        examples=_examples(shown) if shown else None,
    )


def _examples(shown: Sequence[tuple[Sample, Prediction]]) -> dict[str, np.ndarray]:
    """Images with predictions as plain arrays, for the gallery; images of other sizes than the first are left out."""
    size = shown[0][0].image.shape
    shown = [(sample, prediction) for sample, prediction in shown if sample.image.shape == size]
    samples, predictions = zip(*shown, strict=True)
    arrays = {
        "images": np.stack([sample.image for sample in samples]),
        "image_ids": np.array([sample.target.image_id for sample in samples]),
    }
    first = predictions[0]
    if first.probabilities is not None:
        arrays["label"] = np.array([sample.target.label for sample in samples])
        arrays["predicted"] = np.array([prediction.probabilities.argmax() for prediction in predictions])
        arrays["score"] = np.array([prediction.probabilities.max() for prediction in predictions])
    elif first.label_map is not None:
        arrays["label_map"] = np.stack([prediction.label_map for prediction in predictions])
    else:
        confident = [np.flatnonzero(prediction.scores > 0.5) for prediction in predictions]  # as detectors are shown
        arrays["box_image"] = np.repeat(np.arange(len(confident)), [len(found) for found in confident])
        for name in ("boxes", "labels", "scores", "masks"):
            if getattr(first, name) is not None:
                parts = [getattr(p, name)[found] for p, found in zip(predictions, confident, strict=True)]
                arrays[name] = np.concatenate(parts)
    return arrays
