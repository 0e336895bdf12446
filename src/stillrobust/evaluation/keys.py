"""Views, circumstances and keys of the cells of an evaluation.

A cell's key is a hash of everything that determines its scores. A stored cell is valid as long as
its key is unchanged.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillrobust.analysis.budget import image_order
from stillrobust.corruptions import corruption_protocol
from stillrobust.data.bad_images import count_faults
from stillrobust.data.views import Subset, corrupted_view, has_stored_corruptions
from stillrobust.errors import UserError
from stillrobust.evaluation.protocol import Protocol, planned_cells
from stillrobust.grid import CLEAN, Cell, Place
from stillrobust.metrics import METRICS
from stillrobust.samples import Dataset, DatasetInfo
from stillrobust.storage.files import content_key
from stillrobust.storage.store import CORRUPTION_FILE, Measurement, Store
from stillrobust.user_files import display_name, is_user_file, with_content_hash

# may differ between cells of one run: such cells are evaluated again
REPLACEABLE = {"data_name", "images", "images_chosen", "metric_version", "corruptions_version"}


def cells_to_evaluate(
    dataset: Dataset, results: Path, protocol: Protocol, run: str, weights: str
) -> list[Place]:
    """Return the cells that :func:`evaluate` would evaluate. No model is loaded.

    Args:
        dataset: Images with ground truth.
        results: Folder of the results store.
        protocol: Cells and circumstances.
        run: Name of the run in the store.
        weights: Identity of the model; see ``Predictor.weights``.

    Returns:
        (corruption, severity) of the cells that are not stored under these circumstances.
    """
    dataset = select_images(dataset, protocol)
    views = cell_views(dataset, protocol)
    keys = cell_keys(dataset, resolve_circumstances(dataset, protocol, weights), views)
    store = Store(results)
    return [
        (corruption, severity)
        for (corruption, severity), key in keys.items()
        if not store.has(Cell(run, display_name(corruption), severity), key)
    ]


def select_images(dataset: Dataset, protocol: Protocol) -> Dataset:
    """Return the images that the protocol selects."""
    return _subset(dataset, protocol.images, protocol.budget is not None)


def _subset(dataset: Dataset, images: int | None, in_budget_order: bool) -> Dataset:
    if images is None or images >= len(dataset):
        return dataset
    if in_budget_order:
        return Subset(dataset, sorted(image_order(len(dataset))[:images]))
    return Subset(dataset, [index * len(dataset) // images for index in range(images)])


def cell_views(dataset: Dataset, protocol: Protocol) -> dict[Place, Dataset]:
    """Open the dataset under every corruption and severity of the protocol.

    All views are opened before the first image is read, because stored corruptions may be missing.

    Returns:
        Datasets by (corruption, severity).

    Raises:
        UserError: If the corruptions of the dataset are stored and the protocol would compute them.
    """
    stored = has_stored_corruptions(dataset)
    if stored and (
        protocol.draws != "fast"
        or protocol.channel_order != "rgb"
        or protocol.regime is not None
        or protocol.warp_truth
    ):
        raise UserError(
            f"The corruptions of {dataset.info.name} are stored, so draws, regime, channel order"
            " and warped ground truth cannot be chosen. Expected their defaults; leave them out, or"
            " evaluate on the clean set to compute the corruptions"
        )
    if stored and any(map(is_user_file, protocol.corruptions)):
        raise UserError(
            f"Expected corruptions that are stored with {dataset.info.name}, but got a file of your"
            " own; evaluate it on the clean set, such as imagenet:PATH"
        )
    return {
        cell: corrupted_view(
            dataset,
            *cell,
            seed=protocol.seed,
            draws=protocol.draws,
            regime=protocol.regime or dataset.info.regime,
            channel_order=protocol.channel_order,
            warp_truth=protocol.warp_truth,
            shared=protocol.shared,
        )
        for cell in planned_cells(protocol, dataset.info.task)
    }


def resolve_circumstances(dataset: Dataset, protocol: Protocol, weights: str) -> dict[str, Any]:
    """Return what is stored with every score: all that determines it but corruption and severity.

    Args:
        dataset: The selected images.
        protocol: The chosen protocol; ``None`` values are resolved for the dataset.
        weights: Identity of the model; see ``Predictor.weights``.
    """
    info = dataset.info
    found: dict[str, Any] = {
        "task": info.task,
        "data": info.fingerprint,
        "data_name": info.name,
        "images": len(dataset),
        "weights": weights,
        "stage": info.stage,
        "ground_truth": "warped" if protocol.warp_truth else "not warped",
        "metric_version": METRICS[info.task].version,
    }
    if protocol.scale:
        found["scale"] = protocol.scale
    if protocol.budget is not None and isinstance(dataset, Subset):
        found["images_chosen"] = "first of the budget's order"
    if info.reading:
        found["reading"] = info.reading
    if info.left_out:
        found["left_out"] = count_faults(info.left_out)
    if has_stored_corruptions(
        dataset
    ):  # whoever made the files chose seed, regime, draws and channel order
        return found
    regime = protocol.regime or info.regime
    return {
        **found,
        "seed": protocol.seed,
        **corruption_protocol(protocol.draws, regime, protocol.channel_order),
    }


def cell_keys(
    dataset: Dataset,
    circumstances: Mapping[str, Any],
    views: Mapping[Place, Dataset],
    predictions: Mapping[Place, str] | None = None,
) -> dict[Place, str]:
    """Return the key of each cell, by (corruption, severity).

    Computed pixels follow from the circumstances. Stored pixels are identified by their files. The
    name of the dataset does not enter.

    Args:
        dataset: The selected images.
        circumstances: See :func:`resolve_circumstances`.
        views: The dataset under every corruption and severity.
        predictions: SHA-256 of the prediction files of each cell; ``None`` if a model predicts.
    """
    shared = {key: value for key, value in circumstances.items() if key != "data_name"}
    keys = {}
    for (corruption, severity), view in views.items():
        cell = {**shared, "corruption": display_name(corruption), "severity": severity}
        if has_stored_corruptions(dataset) and (corruption, severity) != CLEAN:
            cell["stored"] = view.info.fingerprint
        if predictions is not None:
            cell["prediction_files"] = predictions[corruption, severity]
        keys[corruption, severity] = content_key({**cell, **corruption_file(corruption)})
    return keys


def evaluation_facts(info: DatasetInfo, circumstances: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run stores about its evaluation and its data, whoever made the predictions."""
    facts: dict[str, Any] = {"evaluation": dict(circumstances)}
    if info.left_out:
        facts["left_out_of_the_data"] = dict(info.left_out)
    if info.notes:
        facts["notes_on_the_data"] = list(info.notes)
    return facts


def corruption_file(corruption: str) -> dict[str, str]:
    """Return the protocol entry of a user's corruption file; empty for a built-in corruption."""
    return {CORRUPTION_FILE: with_content_hash(corruption)} if is_user_file(corruption) else {}


def stale_cells(
    store: Store, run: str, dataset: Dataset, circumstances: Mapping[str, Any]
) -> dict[Cell, list[str]]:
    """Return the stored cells of a run name that belong to another model, data or protocol.

    Args:
        store: The results store.
        run: Name of the run.
        dataset: The whole dataset, of which stored cells may have used fewer images.
        circumstances: The circumstances of the new evaluation.

    Returns:
        Cell -> the keys of its protocol that differ; ``images`` if it has more images.
    """
    differing_keys: dict[str, list[str]] = {}
    found = {}
    for one in store.measurements(run):
        key = content_key({"images": one.images, **one.circumstances})
        if key not in differing_keys:
            differing_keys[key] = _differing_keys(one, dataset, circumstances)
        if differing_keys[key]:
            found[Cell(run, one.corruption, one.severity)] = differing_keys[key]
    return found


def _differing_keys(
    one: Measurement, dataset: Dataset, circumstances: Mapping[str, Any]
) -> list[str]:
    stored = one.circumstances
    same_images = _subset(dataset, one.images, "images_chosen" in stored)
    expected = {**circumstances, "data": same_images.info.fingerprint}
    differing = [
        key
        for key in sorted((stored.keys() | expected.keys()) - REPLACEABLE)
        if stored.get(key) != expected.get(key)
    ]
    return differing + (["images"] if one.images > circumstances["images"] else [])


def require_same_circumstances(
    store: Store, run: str, dataset: Dataset, circumstances: Mapping[str, Any]
) -> None:
    """Check that the stored cells of a run name belong to the same model and data.

    Args:
        store: The results store.
        run: Name of the run.
        dataset: The whole dataset, of which stored cells may have used fewer images.
        circumstances: The circumstances of the new evaluation.

    Raises:
        UserError: If stored cells have another protocol, or more images.
    """
    for differing in stale_cells(store, run, dataset, circumstances).values():
        named = ["weights or options of the model" if k == "weights" else k for k in differing]
        raise UserError(
            f"Expected the model, data and protocol of the stored cells of {run} in"
            f" {store.root}, but {', '.join(named)} differ; give the new run another name with"
            " --name, or remove the stored cells with --replace"
        )
