"""Bootstrap replicates of a run's cells from the per-image statistics in a store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stillrobust.analysis.groups import Grouping, grouping_of
from stillrobust.analysis.intervals import INDEPENDENT, REPLICATES, bootstrap_weights
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.grid import Cell, Place
from stillrobust.metrics.recompute import (
    check_statistics,
    has_known_metric,
    images_per_class,
    recompute_metrics,
)
from stillrobust.samples import Array
from stillrobust.storage.store import Store

# (statistics, weights (R, N)) -> (R,) by name
Compute = Callable[[Mapping[str, Array], Array], dict[str, Array]]


@dataclass(frozen=True)
class CellReplicates:
    """Scores of one run's cells in the same resamples of the same images."""

    image_ids: tuple[str, ...]
    """The resampled images. Two runs are paired if these are equal."""
    values: dict[str, Array]
    """(cells, 1 + R) by metric: first the whole dataset, then its replicates."""
    images_per_class: tuple[int, ...] = ()
    """Images that each class counts in, in the cell with the fewest. Empty if the metric is no mean
    over classes.
    """
    grouping: Grouping | None = None
    """The groups that were resampled; ``None`` if the images were."""

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the groups, for intervals; infinite without groups."""
        return INDEPENDENT if self.grouping is None else self.grouping.freedom


def resample_cells(
    store: Store,
    run: str,
    places: Sequence[Place],
    count: int = REPLICATES,
    seed: int = 0,
    compute: Compute = recompute_metrics,
) -> CellReplicates | None:
    """Recompute the scores of cells in bootstrap resamples of their images, or of their groups.

    Args:
        store: The results store.
        run: Name of the run.
        places: (corruption, severity) of the cells.
        count: Number R of resamples.
        seed: Seed of the resampling.
        compute: Computes scores from statistics and weights.

    Returns:
        The replicates, or ``None`` if cells have no statistics or different images.

    Raises:
        MissingCellsError: If a cell is missing.
        UserError: If the run has groups, but not of every image.
    """
    ids: tuple[str, ...] = ()
    weights = np.zeros((0, 0))
    grouping: Grouping | None = None
    found: dict[str, list[Array]] = {}
    per_class: list[Array] = []
    for place in places:
        statistics = store.statistics(Cell(run, *place))
        here = tuple(str(image) for image in statistics.get("image_ids", ()))
        if not here or not has_known_metric(statistics):
            return None
        try:
            check_statistics(statistics)
        except ValueError as error:
            store.discard(Cell(run, *place), f"its statistics are wrong: {error}")
            raise MissingCellsError(
                f"{run} has no cell for {place[0]} {place[1]}: evaluate it again"
            ) from None
        if ids and here != ids:
            # weights of other images, or in another order, would be another resample
            return None
        if not ids:
            ids, grouping = here, grouping_of(store, run, here)
            drawn = bootstrap_weights(ids, count, seed, grouping.labels if grouping else None)
            weights = np.concatenate([np.ones((1, len(ids))), drawn])
        counts = images_per_class(statistics)
        per_class += [] if counts is None else [counts]
        try:
            computed = compute(statistics, weights)
        except KeyError as error:
            raise MissingCellsError(
                f"The statistics of {run} on {place[0]} {place[1]} have no {error}: evaluate the"
                " cell again"
            ) from None
        for name, values in computed.items():
            found.setdefault(name, []).append(values)
    return CellReplicates(
        ids,
        {name: np.stack(rows) for name, rows in found.items() if len(rows) == len(places)},
        tuple(np.min(per_class, axis=0).tolist()) if per_class else (),
        grouping,
    )


def require_same_grouping(drawn: Mapping[str, CellReplicates]) -> None:
    """Require that two runs over the same images resample the same groups.

    Args:
        drawn: Run -> its replicates, of two runs.

    Raises:
        UserError: If only one of them has groups, or they have other groups.
    """
    (first, one), (second, other) = drawn.items()
    if one.grouping != other.grouping:
        stated = [
            "none" if found.grouping is None else found.grouping.protocol for found in (one, other)
        ]
        raise UserError(
            f"Expected the same groups of images in both runs, but {first} has {stated[0]} and"
            f" {second} has {stated[1]}; give --group-by here, or evaluate both with it"
        )
