"""mmdetection's robustness results, ``..._results.pkl`` of test_robustness.py, or the same as JSON.

Layouts, from that script and from robustness_eval.py of the releases named:

- 1.x, 2.x: ``{corruption: {severity: {"bbox" or "segm": {"AP": ..., "AP50": ...}}}}``, severity 0
  repeated under each corruption;
- 3.x: ``{corruption: {severity: {"coco/bbox_mAP": ..., "coco/segm_mAP": ...}}}``;
- JSON by task: ``{"AP": {"bbox": {corruption: [clean, 1, 2, 3, 4, 5]}}}``.

The script corrupts after loading (mmcv reads BGR) and before resizing, with the global generator of
imagecorruptions. It never warps the ground truth. Its AP is that of pycocotools, which equals
``box_ap`` and ``mask_ap``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillrobust.corruptions import CORRUPTIONS
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, Place
from stillrobust.importers.pickled_numbers import plain_value, read_numbers
from stillrobust.importers.tables import (
    UNKNOWN,
    ImportedTable,
    empty_severity_notes,
    require_same_clean,
    score,
    without_empty_severities,
)
from stillrobust.metrics import METRICS
from stillrobust.names import lookup
from stillrobust.untrusted import JsonError, parse_json, read_user_file

KINDS = {"bbox": "box_ap", "segm": "mask_ap"}
NOT_TAKEN = ("proposal", "proposal_fast", "keypoints")  # other values of --eval
STATS = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}
SUFFIXES = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l", "mAP_copypaste")
PROTOCOL = {
    "task": "detection",
    "data": UNKNOWN,
    "images": UNKNOWN,
    "stage": "before resize",
    "ground_truth": "not warped",
    "metric_version": METRICS["detection"].version,
    "seed": UNKNOWN,
    "regime": "imagenet",
    "channel_order": "bgr",
    "draws": "imagecorruptions, another for every run",
    "frost_textures": "imagecorruptions",
    "corruptions_version": UNKNOWN,
}

Scores = dict[str, float]


def read(path: Path, model: str, dataset: str) -> list[ImportedTable]:
    """Read the run of a file.

    Args:
        path: A pickle or JSON file.
        model: Name of the model (default: name of the file).
        dataset: Name of the dataset (default: unknown).

    Raises:
        UserError: If the file is invalid.
    """
    if path.suffix in (".pkl", ".pickle"):
        found = read_numbers(path)
    elif path.suffix == ".json":
        found = _json(path)
    else:
        raise UserError(
            "Expected mmdetection's results in a file that ends in .pkl, .pickle or .json, but got"
            f" {path}; give the file of test_robustness.py"
        )
    if isinstance(found, Mapping) and isinstance(found.get("AP"), Mapping):
        cells, skipped = _by_task(found["AP"], path), set[str]()
    else:
        cells, skipped = _by_corruption(found, path)
    kept, empty = without_empty_severities(cells)
    notes = empty_severity_notes(empty) + tuple(
        f"{name} was evaluated as well and is skipped" for name in sorted(skipped)
    )
    name = model or path.stem.removesuffix("_results")
    return [
        ImportedTable(
            name, "detection", dataset or UNKNOWN, name, "external", 0, kept, PROTOCOL, notes
        )
    ]


def _json(path: Path) -> Any:
    try:
        return parse_json(read_user_file(path, "JSON"))
    except JsonError as error:
        raise UserError(f"Expected JSON in {path}, but {error}; get the file again") from None


def _by_corruption(found: Any, path: Path) -> tuple[dict[Place, Scores], set[str]]:
    cells: dict[Place, Scores] = {}
    skipped: set[str] = set()
    for corruption, by_severity in _items(found, f"corruptions in {path}"):
        for severity, values in _items(by_severity, f"severities of {corruption} in {path}"):
            level = _level(severity, corruption, path)
            name = str(corruption) if level else "clean"
            if level:
                lookup("corruption", name, CORRUPTIONS)
            where = f"{name} {level} in {path}"
            scores = _scores(plain_value(values), where, skipped)
            if level == 0:
                for metric, value in scores.items():
                    require_same_clean(cells.get(CLEAN, {}), metric, value, str(path))
            cells.setdefault((name, level), {}).update(scores)
    return cells, skipped


def _by_task(found: Mapping[str, Any], path: Path) -> dict[Place, Scores]:
    cells: dict[Place, Scores] = {}
    for kind, by_corruption in _items(found, f"tasks in {path}"):
        metric = lookup("task of mmdetection", str(kind), KINDS)
        for corruption, values in _items(by_corruption, f"corruptions of {kind} in {path}"):
            lookup("corruption", str(corruption), CORRUPTIONS)
            if not isinstance(values, list) or len(values) != 6:
                raise UserError(
                    f"Expected six scores (clean, severities 1 to 5) of {corruption} in {path};"
                    " check the file"
                )
            numbers = [
                score(value, f"{corruption} {level} in {path}")
                for level, value in enumerate(values)
            ]
            require_same_clean(cells.get(CLEAN, {}), metric, numbers[0], str(path))
            for level, number in enumerate(numbers):
                cells.setdefault((str(corruption), level) if level else CLEAN, {})[metric] = number
    return cells


def _scores(found: Any, where: str, skipped: set[str]) -> Scores:
    if isinstance(found, list):
        raise UserError(
            f"Expected COCO's AP for {where}, but got a list of classes as for Pascal VOC, whose"
            " AP50 is another metric; evaluate on a dataset in COCO format"
        )
    scores: Scores = {}
    for key, value in _items(found, f"scores of {where}"):
        name = str(key)
        if name in NOT_TAKEN:
            skipped.add(name)
        elif name in KINDS:
            stats = dict(_items(plain_value(value), f"scores of {name} of {where}"))
            unknown = {str(one) for one in stats} - STATS
            if unknown or "AP" not in stats:
                raise UserError(
                    f"Expected AP, AP50 and so on for {name} of {where}, but got"
                    f" {', '.join(map(str, stats))}; get the file again"
                )
            scores[KINDS[name]] = score(plain_value(stats["AP"]), f"{name} of {where}")
        else:
            scores |= _flat(name, value, where)
    if not scores:
        raise UserError(
            f"Expected bbox or segm scores for {where}, but there are none; run test_robustness.py"
            " with --eval bbox"
        )
    return scores


def _flat(name: str, value: Any, where: str) -> Scores:
    """Read a score of the 3.x layout, ``coco/bbox_mAP``."""
    kind, _, suffix = name.removeprefix("coco/").partition("_")
    if kind not in KINDS or suffix not in SUFFIXES:
        raise UserError(
            f"Expected bbox and segm scores for {where}, but got {name!r:.60}; this layout is not"
            " known, so get the file as its makers publish it"
        )
    return {KINDS[kind]: score(plain_value(value), f"{name} of {where}")} if suffix == "mAP" else {}


def _items(found: Any, what: str) -> list[tuple[Any, Any]]:
    if not isinstance(found, Mapping) or not found:
        raise UserError(
            f"Expected a mapping of {what}, but got {type(found).__name__}; this is not a file of"
            " test_robustness.py, so give one"
        )
    return list(found.items())


def _level(severity: Any, corruption: Any, path: Path) -> int:
    if str(severity) not in ("0", "1", "2", "3", "4", "5"):
        raise UserError(
            f"Expected severities 0 to 5 of {corruption} in {path}, but got {severity!r:.40}; get"
            " the file again"
        )
    return int(severity)
