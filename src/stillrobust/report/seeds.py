"""Runs that differ in nothing but the seed of their training, taken together: one row of means, and
how sure it is.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from statistics import fmean
from typing import Any, TypeVar

from stillrobust.analysis.intervals import mean_over_seeds
from stillrobust.analysis.robustness import Robustness, SubsetScore
from stillrobust.report.rows import Row

Key = TypeVar("Key")


def with_seed_means(rows: Sequence[Row]) -> list[Row]:
    """The rows, and after the last of those that differ in their seed alone one with the mean of
    every number.

    Its interval of the mean drop is over seeds and images (``mean_over_seeds``), its letters are empty.
    """
    seeds: dict[str, list[Row]] = {}
    for row in rows:
        seeds.setdefault(_but_for_its_seed(row), []).append(row)
    found = []
    for row in rows:
        found.append(row)
        alike = seeds[_but_for_its_seed(row)]
        if len(alike) > 1 and row is alike[-1]:
            found.append(_mean(alike))
    return found


def _but_for_its_seed(row: Row) -> str:
    """Everything that decides a row, without seeds and the weights that come of them; its own name
    where no seed is kept.

    Where the backbone was made here, what made it stands for its weights.
    """
    run = row.run
    name = (
        run.name if run.protocol.get("training", {}).get("recipe", {}).get("seed") is None else ""
    )
    parts = (run.backbone, run.setting, *row.table, row.drawn_from)
    return json.dumps([name, without_seeds(run.protocol), *parts], sort_keys=True, default=str)


def without_seeds(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's record says of it, without the seeds of its training and of what made its
    backbone, and the weights of these.
    """
    about = deepcopy(dict(protocol))
    _drop_seeds(about.get("training", {}), about.get("made_by"))
    about.get("evaluation", {}).pop("weights", None)
    about.pop("loaded", None)  # names the folder of the weights, and decides nothing
    return about


def _drop_seeds(training: dict[str, Any], maker: dict[str, Any] | None) -> None:
    training.get("recipe", {}).pop("seed", None)
    if maker:
        training.pop("upstream_weights", None)
        _drop_seeds(maker, maker.get("made_by"))


def _mean(rows: Sequence[Row]) -> Row:
    name = f"mean of {len(rows)} seeds"
    all_numbers = [row.robustness for row in rows]

    def mean(quantity: str) -> float:
        return fmean(getattr(numbers, quantity) for numbers in all_numbers)

    def parts(kind: str) -> dict[object, SubsetScore]:
        return _mean_parts(getattr(numbers, kind) for numbers in all_numbers)

    means = {quantity: mean(quantity) for quantity in ("clean", "mpc", "rpc", "drop")}
    broken_down = {kind: parts(kind) for kind in ("by_group", "by_severity", "by_corruption")}
    together = Robustness(
        run=name,
        metric=all_numbers[0].metric,
        severities=all_numbers[0].severities,
        **means,
        **broken_down,
    )  # type: ignore[arg-type]
    around = None
    if all(row.drops is not None for row in rows):
        spread = mean_over_seeds(
            [numbers.drop for numbers in all_numbers], [row.resampled["drop"] for row in rows]
        )
        around = spread.low, spread.high
    return replace(
        rows[0],
        run=replace(rows[0].run, name=name),
        robustness=together,
        interval=around,
        resampled={},
        drawn_from=(),
        alike="",
    )


def _mean_parts(all_parts: Iterable[Mapping[Key, SubsetScore]]) -> dict[Key, SubsetScore]:
    listed = list(all_parts)
    return {
        key: SubsetScore(
            fmean(parts[key].mpc for parts in listed), fmean(parts[key].drop for parts in listed)
        )
        for key in listed[0]
    }
