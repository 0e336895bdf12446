"""mPC of a run of which only part is measured, from a store: what ``evaluate --budget`` says."""

from collections.abc import Sequence

from stillrobust.analysis.budget import Estimate, cell_order, estimate_mpc
from stillrobust.analysis.resampling import resample_cells
from stillrobust.grid import CLEAN, SEVERITIES
from stillrobust.storage.store import Store

# whose order a task's budget follows
HEADLINE_METRIC = {"classification": "top1", "detection": "box_ap", "segmentation": "miou"}


def estimate_run(store: Store, run: str, severities: Sequence[int] = SEVERITIES) -> list[Estimate]:
    """An estimate for each metric of the run, with what its images leave open.

    Raises ``UserError`` as ``estimate_mpc`` does.

    Cells of another protocol than the clean one's, such as fewer images, stay out.
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
        drawn = resample_cells(store, run, places)
        by_place = (
            dict(zip(places, drawn.values[metric][:, 1:], strict=True))
            if drawn and metric in drawn.values
            else None
        )
        found.append(estimate_mpc(measured[CLEAN], measured, metric, severities, by_place))
    return found
