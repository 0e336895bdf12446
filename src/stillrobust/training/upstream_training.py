"""Make a backbone robust: train it upstream with a technique, and keep it as a checkpoint like any
other.
"""

from pathlib import Path

from stillrobust.backbones import Checkpoint, write_folder
from stillrobust.backbones.weights import read_folder
from stillrobust.errors import UserError
from stillrobust.robustify import build_technique
from stillrobust.samples import Dataset
from stillrobust.storage.files import clear_leftovers
from stillrobust.storage.leases import lease
from stillrobust.tasks.heads import backbone_of
from stillrobust.training.launch import Progress, leads
from stillrobust.training.loop import Plan, Recipe, load_model, train
from stillrobust.user_files import display_name

REGULAR = "regular"
"""Training without a technique, for comparison."""


def robustify_plan(backbone: str, technique: str, recipe: Recipe) -> Plan:
    """The training that makes ``backbone`` robust; ``technique`` is a spec, or ``regular`` for
    none.
    """
    spec = "" if technique == REGULAR else build_technique(technique).spec
    return Plan("classification", backbone, None, recipe, technique=spec, kind="robustify")


def robustify(
    plan: Plan,
    dataset: Dataset,
    folder: Path | str,
    progress: Progress = lambda done, total, text: None,
    log: Path | None = None,
) -> Path:
    """Train a :func:`robustify_plan` on classes; ``folder`` is then a checkpoint,
    ``BACKBONE(weights='FOLDER')``.

    It also holds the run, so that ``evaluate`` measures the backbone with its own classifier. What
    is finished is left as it is, what is not goes on where it was.
    """
    folder = train(plan, dataset, folder, progress, log)
    if not leads():
        return folder
    with lease(folder, wait=True):
        clear_leftovers(folder)
        return _as_checkpoint(plan, dataset, folder)


def _as_checkpoint(plan: Plan, dataset: Dataset, folder: Path) -> Path:
    _, model, description = load_model(folder)
    source = (
        f"stillrobust robustify, run {description['key']}: from {plan.backbone} on"
        f" {dataset.info.name}"
    )
    if _made(folder) == source:
        return folder
    cards = build_technique(plan.technique).cards if plan.technique else ()
    backbone = backbone_of(model)
    row = Checkpoint(
        architecture=backbone.name,
        weights=str(folder),
        technique=display_name(plan.technique) or REGULAR,
        licence="yours",
        paper="; ".join(card.paper for card in cards),
        source=source,
        file="",
        classes=len(dataset.info.classes),
        image_size=plan.make_task().crop,  # type: ignore[attr-defined]
    )
    return write_folder(folder, backbone, row)


def _made(folder: Path) -> str:
    """The source of the checkpoint in ``folder``; empty where there is none that is whole."""
    try:
        return read_folder(folder).source
    except UserError:
        return ""
