"""Names that readers see: tasks, metrics, transfers, models."""

import re
from collections.abc import Sequence

from stillrobust.analysis.robustness import Robustness
from stillrobust.grid import COMMON
from stillrobust.metrics import METRIC_NAMES
from stillrobust.report.rows import Row
from stillrobust.storage.store import Run

TASKS = {
    "classification": "Image classification",
    "detection": "Object detection",
    "segmentation": "Semantic segmentation",
}
TRANSFERS = {
    "fixed_feature": "fixed feature",
    "full_network": "full network",
    "released_freeze": "released freeze",
    "upstream": "upstream",
    "robustify": "upstream",
    "external": "finished model",
}
TECHNIQUES = {
    "ant": "ANT",
    "augmix": "AugMix",
    "deepaugment": "DeepAugment",
    "deepaugment_augmix": "DeepAugment + AugMix",
    "prime": "PRIME",
}
"""Names as their papers write them; other techniques keep the name of their spec."""


def task_name(run: Run) -> str:
    """The task of a run."""
    return TASKS.get(run.task, run.task)


def mean_name(numbers: Robustness) -> str:
    """The name of a mean: ``mPC``, or ``mean over 2 of 15 corruptions``."""
    if numbers.is_complete:
        return "mPC"
    return f"mean over {len(numbers.corruptions)} of {len(COMMON)} corruptions"


def corruption_name(corruption: str) -> str:
    """The name of a corruption in words."""
    return corruption.replace("_", " ")


def severities_name(severities: Sequence[int]) -> str:
    """``severity 3`` or ``severities 1, 2, 3``."""
    word = "severity" if len(severities) == 1 else "severities"
    return f"{word} {', '.join(map(str, severities))}"


def metric_name(metric: str) -> str:
    """The name of a metric."""
    return METRIC_NAMES.get(metric, metric)


def transfer_name(run: Run) -> str:
    """The transfer of a run; for other kinds of runs, the kind."""
    return TRANSFERS.get(run.setting, run.setting)


def technique_name(technique: str) -> str:
    """The name of a technique; parameters of its spec stay."""
    name, bracket, parameters = technique.partition("(")
    return TECHNIQUES.get(name, name) + bracket + parameters


def backbone_name(run: Run) -> str:
    """The backbone's spec, in which files of weights are named without their folder."""
    return re.sub(r"(['\"])[^'\"]*[/\\]([^'\"/\\]+)\1", r"\1\2\1", run.backbone)


def model_name(row: Row, rows: Sequence[Row]) -> str:
    """The backbone and the technique of its transfer.

    The run's name is added if another of the comparable rows has the same model and transfer.
    """
    name = _model(row.run)
    same = [
        other
        for other in rows
        if (_model(other.run), other.run.setting) == (name, row.run.setting)
        and other.comparison_key == row.comparison_key
    ]
    return name if len(same) < 2 else f"{name} ({row.run.name})"


def figure_label(row: Row, rows: Sequence[Row]) -> str:
    """The model, with the transfer if the rows have more than one."""
    name = model_name(row, rows)
    several = len({other.run.setting for other in rows}) > 1
    return f"{name}, {transfer_name(row.run)}" if several else name


def _model(run: Run) -> str:
    backbone = backbone_name(run)
    training = run.protocol.get("training")
    technique = training.get("technique") if isinstance(training, dict) else None
    return f"{backbone} + {technique}" if technique and not run.is_upstream else backbone
