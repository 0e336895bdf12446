"""Means over runs that differ only in the seed of their training."""

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from statistics import fmean
from typing import Any, TypeVar

from stillrobust.analysis.intervals import DROP_RANGE, SCORE_RANGE, mean_over_seeds
from stillrobust.analysis.robustness import Robustness, SubsetScore
from stillrobust.report.rows import Row

Key = TypeVar("Key")


def with_seed_means(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, with a row of means after the last of those that differ only in their seed.

    Its intervals are over seeds and images (``mean_over_seeds``). It has no letters.
    """
    seeds: dict[str, list[Row]] = {}
    for row in rows:
        seeds.setdefault(_key_without_seed(row), []).append(row)
    found = []
    for row in rows:
        found.append(row)
        alike = seeds[_key_without_seed(row)]
        if len(alike) > 1 and row is alike[-1]:
            found.append(_mean(alike))
    return found


def merge_seeds(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, with those that differ only in their seed replaced by their mean."""
    seeds: dict[str, list[Row]] = {}
    for row in rows:
        seeds.setdefault(_key_without_seed(row), []).append(row)
    return [alike[0] if len(alike) == 1 else _mean(alike) for alike in seeds.values()]


def _key_without_seed(row: Row) -> str:
    """Everything that determines a row, except seeds and the weights that result from them.

    A run without a recorded seed is identified by its name. The recipe of a backbone that was
    trained here replaces its weights.
    """
    run = row.run
    name = (
        run.name if run.protocol.get("training", {}).get("recipe", {}).get("seed") is None else ""
    )
    parts = (run.backbone, run.setting, *row.comparison_key, row.image_ids)
    return json.dumps([name, without_seeds(run.protocol), *parts], sort_keys=True, default=str)


def without_seeds(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's protocol without seeds of its and its backbone's training, and without the
    weights that result from them.
    """
    about = deepcopy(dict(protocol))
    _drop_seeds(about.get("training", {}), about.get("made_by"))
    about.get("evaluation", {}).pop("weights", None)
    about.pop("loaded", None)  # folder of the weights
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

    means_row = Robustness(
        run=name,
        metric=all_numbers[0].metric,
        severities=all_numbers[0].severities,
        clean=mean("clean"),
        mpc=mean("mpc"),
        rpc=mean("rpc"),
        drop=mean("drop"),
        by_group=_mean_parts(numbers.by_group for numbers in all_numbers),
        by_severity=_mean_parts(numbers.by_severity for numbers in all_numbers),
        by_corruption=_mean_parts(numbers.by_corruption for numbers in all_numbers),
        corruptions=all_numbers[0].corruptions,
    )
    intervals = {
        quantity: _interval(rows, quantity)
        for quantity in rows[0].resampled
        if all(quantity in row.resampled for row in rows)
    }
    return replace(
        rows[0],
        run=replace(rows[0].run, name=name),
        robustness=means_row,
        interval=intervals.get("drop"),
        seed_intervals=intervals,
        resampled={},
        image_ids=(),
        alike="",
        alike_mpc="",
    )


def _interval(rows: Sequence[Row], quantity: str) -> tuple[float, float]:
    """The interval of a quantity's mean over seeds and images, within its possible values."""
    values = [row.value(quantity) for row in rows]
    draws = [row.resampled[quantity] for row in rows]
    spread = mean_over_seeds(values, draws, freedom=rows[0].freedom)
    low, high = DROP_RANGE if quantity.startswith("drop") else SCORE_RANGE
    return max(spread.low, low), min(spread.high, high)


def _mean_parts(all_parts: Iterable[Mapping[Key, SubsetScore]]) -> dict[Key, SubsetScore]:
    listed = list(all_parts)
    return {
        key: SubsetScore(
            fmean(parts[key].mpc for parts in listed), fmean(parts[key].drop for parts in listed)
        )
        for key in listed[0]
    }
