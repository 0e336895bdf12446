"""Cards of runs: their results in one small JSON file, which others can import and cite."""

from pathlib import Path
from typing import Any

import stillrobust
from stillrobust.analysis.intervals import (
    DROP_RANGE,
    LEVEL,
    RATIO_RANGE,
    SCORE_RANGE,
    Range,
    interval,
)
from stillrobust.errors import MissingCellsError, UserError
from stillrobust.importers.run_cards import CardMetric, Estimate, RunCard, parse_card
from stillrobust.names import format_count, lookup
from stillrobust.report.labels import metric_name, severities_name
from stillrobust.report.rows import Row
from stillrobust.report.summary import summarize
from stillrobust.storage.store import CORRUPTION_FILE, Measurement, Store


def make_card(store: Store, run: str) -> RunCard:
    """Make the card of a run.

    Args:
        store: The results store.
        run: Name of a run that is complete in at least one score.

    Returns:
        The card, with intervals where the store has statistics of every image.

    Raises:
        UserError: If there is no such run.
        MissingCellsError: If no score has all cells of the 15 corruptions.
    """
    lookup("run", run, {one.name: one for one in store.runs()})
    summary = summarize(store, only=[run])
    if not summary.rows:
        reasons = [one.reason for one in summary.incomplete] or ["it has fewer corruptions"]
        raise MissingCellsError(
            f"Expected all cells of the 15 corruptions for a card of {run}, but {reasons[0]};"
            " evaluate what is missing"
        )
    first = summary.rows[0]
    own = [one for one in summary.measurements if CORRUPTION_FILE not in one.protocol]
    protocol = next(one.circumstances for one in own if one.metric == first.robustness.metric)
    if "imported" in protocol:
        raise UserError(
            f"Expected a run that was evaluated here, but {run} was imported; share the file that"
            " it comes from"
        )
    grouping = first.grouping
    return RunCard(
        card=1,
        stillrobust=stillrobust.__version__,
        cite=citation(first, protocol),
        run=run,
        task=first.run.task,  # type: ignore[arg-type]
        model=first.run.backbone,
        setting=first.run.setting,
        dataset=first.run.dataset,
        classes=list(first.run.classes),
        images=first.images,
        weights=str(protocol.get("weights", "unknown")),
        data=str(protocol.get("data", "unknown")),
        resampled="images" if grouping is None else f"groups: {grouping.protocol}",
        protocol={
            "task": first.run.task,
            "weights": "unknown",
            "data": "unknown",
            "images": first.images,
            **protocol,
        },
        metrics={row.robustness.metric: _metric(row, own) for row in summary.rows},
    )


def card_json(card: RunCard) -> str:
    """Render a card as JSON. The result is a valid card, or this raises ``UserError``."""
    text = card.model_dump_json(indent=1) + "\n"
    parse_card(text, Path(f"{card.run}.json"))
    return text


def citation(row: Row, protocol: dict[str, Any]) -> str:
    """Write the protocol of a row in one sentence, for a paper.

    Args:
        row: A row with all 15 corruptions.
        protocol: The circumstances of its cells.
    """
    numbers = row.robustness
    facts = [
        f"{key.replace('_', ' ')} {protocol[key]}"
        for key in ("stage", "regime", "draws", "channel_order", "frost_textures", "seed")
        if key in protocol
    ]
    hashes = [f"{key} {str(protocol[key])[:12]}" for key in ("data", "weights") if key in protocol]
    unit = "images" if row.grouping is None else f"groups of images ({row.grouping.protocol})"
    return (
        f"mPC is the mean {metric_name(numbers.metric)} over the 15 common corruptions at"
        f" {severities_name(numbers.severities)} on {format_count(row.images, 'image')} of"
        f" {row.run.dataset} ({'; '.join([*facts, *hashes])}), the drop is 1 - mPC / P, and"
        f" intervals are {LEVEL:.0%} half-sample bootstrap intervals over {unit}, computed with"
        f" stillrobust {stillrobust.__version__}."
    )


def _metric(row: Row, own: list[Measurement]) -> CardMetric:
    numbers, drawn = row.robustness, row.resampled

    def estimate(value: float, quantity: str, within: Range, complement: bool = False) -> Estimate:
        values = drawn.get(quantity)
        if values is None:
            return Estimate(value=value)
        values = 1 - values if complement else values
        return Estimate(
            value=value, interval=list(interval(values, value, within, freedom=row.freedom))
        )

    scores: dict[str, dict[str, float]] = {}
    for one in own:
        if one.metric == numbers.metric:
            scores.setdefault(one.corruption, {})[str(one.severity)] = one.value
    return CardMetric(
        severities=list(numbers.severities),
        p=estimate(numbers.clean, "clean", SCORE_RANGE),
        mpc=estimate(numbers.mpc, "corrupted", SCORE_RANGE),
        rpc=estimate(numbers.rpc, "drop", RATIO_RANGE, complement=True),
        drop=estimate(numbers.drop, "drop", DROP_RANGE),
        groups={
            name: estimate(part.drop, f"drop.{name}", DROP_RANGE)  # type: ignore[misc]
            for name, part in numbers.by_group.items()
        },
        scores=scores,
    )
