"""RobustBench's corruption leaderboards: tables and cards in ``model_info``.

``unaggregated_results*.csv`` (written by robustbench/eval.py) has a line of corruptions, a line of
severities, then a line of accuracies 0..1 per model. The card of a model (JSON) has its
clean accuracy in percent, and ``corruptions_acc``, the mean of the 75 cells, which is compared with
the table. Models are evaluated on the published files of ImageNet-C (5,000 images) and CIFAR-10-C.
"""

from pathlib import Path
from statistics import fmean
from typing import Any

from stillrobust.data.official.imagenet import wordnet_ids
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, COMMON, SEVERITIES, Place
from stillrobust.importers.csv_tables import read_csv_rows
from stillrobust.importers.tables import UNKNOWN, ImportedTable, score
from stillrobust.metrics import METRICS
from stillrobust.names import lookup
from stillrobust.untrusted import JsonError, parse_json, read_user_file

# CIFAR-10: 10,000 by default, some of 1,000
DATASETS = {"imagenet": ("ImageNet-C", 5000), "cifar10": ("CIFAR-10-C", 0)}
NOT_READ = ("_3d",)  # ImageNet-3DCC: other corruptions
TABLES = ("unaggregated_results.csv", "unaggregated_results_2d.csv")
AGREE = 0.02  # points: the card's means are printed with two digits, the cells' with four
PROTOCOL = {
    "task": "classification",
    "data": UNKNOWN,
    "stage": "stored",
    "ground_truth": "not warped",
    "metric_version": METRICS["classification"].version,
}


def read(path: Path, model: str, dataset: str) -> list[ImportedTable]:
    """Read a run per line of a table, with the clean score of its card.

    Args:
        path: The table or its folder.
        model: Name of the only model to read (default: all).
        dataset: Name of the dataset (default: from the card).

    Raises:
        UserError: If the table or a card is invalid.
    """
    table = _table_of(path)
    headings, severities, *lines = read_csv_rows(table)
    places = _places(headings, severities, table)
    names = [line[0].strip() for line in lines]
    if not lines or len(set(names)) < len(names) or not all(names):
        raise UserError(
            f"Expected a line for each model in {table}, but models are missing, repeated or have"
            " no name; get the file again"
        )
    asked = [model] if model else names
    return [
        _one(
            lines[names.index(lookup("model", name, dict.fromkeys(names)) or name)],
            places,
            table,
            dataset,
        )
        for name in asked
    ]


def _table_of(path: Path) -> Path:
    if not path.is_dir():
        if any(path.stem.endswith(end) for end in NOT_READ):
            raise UserError(
                f"Expected RobustBench's table of common corruptions, but {path.name} is of 3D"
                " corruptions; give another"
            )
        return path
    found = [path / name for name in TABLES if (path / name).is_file()]
    if not found:
        raise UserError(
            f"Expected {' or '.join(TABLES)} in {path}, but found none: cards have means but no"
            " cells; get the table"
        )
    return found[-1]  # the newer name if both exist


def _places(headings: list[str], severities: list[str], table: Path) -> list[Place | None]:
    """Return the cell of each column; ``None`` for the model's name and the mean."""
    places: list[Place | None] = []
    for heading, severity in zip(headings, severities, strict=True):
        if not heading.strip() or heading == "average":
            places.append(None)
        elif heading in COMMON and severity in map(str, SEVERITIES):
            places.append((heading, int(severity)))
        else:
            raise UserError(
                f"Expected a corruption above a severity from 1 to 5 in {table}, but got"
                f" {heading!r:.40} above {severity!r:.40}; this layout is not known, so get the"
                " file as its makers publish it"
            )
    known = [place for place in places if place is not None]
    if not known or len(set(known)) < len(known) or places[0] is not None:
        raise UserError(
            f"Expected each corruption and severity once in {table}, after the models' names; this"
            " layout is not known, so get the file as its makers publish it"
        )
    return places


def _one(line: list[str], places: list[Place | None], table: Path, dataset: str) -> ImportedTable:
    name = line[0].strip()
    cells: dict[Place, dict[str, float]] = {
        place: {"top1": score(text, f"{name}, {place[0]} {place[1]} in {table}")}
        for text, place in zip(line, places, strict=True)
        if place is not None and text.strip()
    }
    card, notes = _card(table.with_name(f"{name}.json")), []
    kind = str(card.get("dataset", ""))
    if card and kind not in DATASETS:
        raise UserError(
            f"Expected the card of {name} to be of {' or '.join(DATASETS)}, but it has"
            f" {kind!r:.40}; give the folder of one of them"
        )
    title, images = DATASETS.get(kind, (UNKNOWN, 0))
    if not card:
        notes.append(
            f"there is no card {name}.json beside the table, so the clean score is missing"
        )
    else:
        cells[CLEAN] = {"top1": _percent(card.get("clean_acc"), f"clean_acc of {name}")}
        printed = card.get("corruptions_acc", card.get("corruptions_acc_2d"))
        mean = 100 * fmean(one["top1"] for place, one in cells.items() if place != CLEAN)
        if (
            printed is not None
            and abs(100 * _percent(printed, f"corruptions_acc of {name}") - mean) > AGREE
        ):
            notes.append(
                f"its card has a mean of {printed}, its cells of {mean:.2f}: they are from"
                " different evaluations"
            )
    protocol = {**PROTOCOL, "images": images or UNKNOWN}
    backbone = str(card.get("architecture") or name)
    return ImportedTable(
        name,
        "classification",
        dataset or title,
        f"{name} ({backbone})",
        "upstream",
        images,
        cells,
        protocol,
        tuple(notes),
        wordnet_ids() if kind == "imagenet" else (),
    )


def _card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        card = parse_json(read_user_file(path, "RobustBench's card"))
    except JsonError as error:
        raise UserError(
            f"Expected RobustBench's card in {path}, but {error}; get the file again"
        ) from None
    if not isinstance(card, dict):
        raise UserError(
            f"Expected RobustBench's card in {path}, but it holds no mapping; get the file again"
        )
    return card


def _percent(value: Any, where: str) -> float:
    """Convert percent to a fraction. Refuse 1 and below: one card has fractions."""
    number = score(value, where, 100)
    if number <= 0.01:
        raise UserError(
            f"Expected {where} in percent, but got {value}, which reads as a fraction; write it in"
            " percent or leave it out"
        )
    return number
