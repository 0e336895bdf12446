"""Budget estimates of a run in a store, as ``evaluate --budget`` prints them."""

from collections.abc import Sequence

from stillrobust.analysis.budget import BudgetEstimate, cell_order, estimate_mpc
from stillrobust.analysis.intervals import INDEPENDENT
from stillrobust.analysis.resampling import resample_cells
from stillrobust.grid import CLEAN, SEVERITIES
from stillrobust.storage.store import Store


def estimate_run(
    store: Store, run: str, severities: Sequence[int] = SEVERITIES
) -> list[BudgetEstimate]:
    """Estimate mPC of a run in each of its metrics, with the uncertainty from the images.

    Cells with another protocol than the clean cell, such as fewer images, are left out.

    Args:
        store: The results store.
        run: Name of the run.
        severities: Severities that mPC covers.

    Raises:
        UserError: If the cells are too few, or complete.
    """
    values: dict[str, dict[tuple[str, int], float]] = {}
    measurements = store.measurements(run)
    clean = {
        one.metric: one.protocol for one in measurements if (one.corruption, one.severity) == CLEAN
    }
    for one in measurements:
        if one.protocol == clean.get(one.metric):
            values.setdefault(one.metric, {})[one.corruption, one.severity] = one.value
    found = []
    for metric, measured in values.items():
        places = [place for place in cell_order(metric, severities) if place in measured]
        replicates = resample_cells(store, run, places)
        by_place = (
            dict(zip(places, replicates.values[metric][:, 1:], strict=True))
            if replicates and metric in replicates.values
            else None
        )
        freedom = replicates.freedom if replicates else INDEPENDENT
        found.append(estimate_mpc(measured[CLEAN], measured, metric, severities, by_place, freedom))
    return found
