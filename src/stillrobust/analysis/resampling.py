"""From a store's kept statistics to replicates: the cells of a run in the same resamples of the
same images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stillrobust.analysis.intervals import REPLICATES, bootstrap_weights
from stillrobust.grid import Cell, Place
from stillrobust.metrics.recompute import replicates
from stillrobust.samples import Array
from stillrobust.storage.store import Store

# (statistics, weights (R, N)) -> (R,) by name
Compute = Callable[[Mapping[str, Array], Array], dict[str, Array]]


@dataclass(frozen=True)
class CellReplicates:
    """Numbers of one run's cells, by name of the metric."""

    image_ids: tuple[str, ...]
    """What was resampled; numbers of two runs are paired where these are equal."""
    values: dict[str, Array]
    """(cells, 1 + R): first the set itself, then its replicates."""


def resample_cells(
    store: Store,
    run: str,
    places: Sequence[Place],
    count: int = REPLICATES,
    seed: int = 0,
    compute: Compute = replicates,
) -> CellReplicates | None:
    """Numbers of the cells at ``places`` in ``count`` resamples, or ``None`` where cells keep no
    statistics or of other images.

    Raises ``MissingCellsError`` for a cell that is not there.
    """
    ids: tuple[str, ...] = ()
    weights = np.zeros((0, 0))
    found: dict[str, list[Array]] = {}
    for place in places:
        statistics = store.statistics(Cell(run, *place))
        here = tuple(str(image) for image in statistics.get("image_ids", ()))
        if not here or (ids and here != ids):
            # weights of other images, or of these in another order, would not be the same resample
            return None
        if not ids:
            ids = here
            weights = np.concatenate([np.ones((1, len(ids))), bootstrap_weights(ids, count, seed)])
        for name, values in compute(statistics, weights).items():
            found.setdefault(name, []).append(values)
    return CellReplicates(
        ids, {name: np.stack(rows) for name, rows in found.items() if len(rows) == len(places)}
    )
