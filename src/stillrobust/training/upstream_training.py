"""Upstream training: train a backbone with a technique, and write it as a checkpoint."""

from pathlib import Path

from stillrobust.backbones import Checkpoint, write_folder
from stillrobust.backbones.weights import read_folder
from stillrobust.errors import UserError
from stillrobust.robustify import build_technique
from stillrobust.samples import Dataset
from stillrobust.storage.files import clear_leftovers
from stillrobust.storage.leases import lease
from stillrobust.tasks.heads import backbone_of
from stillrobust.tasks.recipes import Recipe
from stillrobust.training.launch import Progress, is_main_process
from stillrobust.training.loop import load_model, train
from stillrobust.training.plan import Plan
from stillrobust.training.run_files import read_description
from stillrobust.user_files import display_name

REGULAR = "regular"
"""Training without a technique, for comparison."""


def robustify_plan(backbone: str, technique: str, recipe: Recipe) -> Plan:
    """Plan the training that makes a backbone robust.

    Args:
        backbone: Spec of the backbone and the weights to start from.
        technique: Spec of a technique, or ``regular`` for none.
        recipe: How it is trained.

    Raises:
        UserError: If the technique is unknown.
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
    """Train a plan of ``robustify_plan``; the folder is then a checkpoint.

    Other trainings use it as ``BACKBONE(weights='FOLDER')``. The folder also holds the run, so that
    ``evaluate`` measures the backbone with its own classifier. Finished work is left alone, and an
    unfinished training is resumed.

    Args:
        plan: Made by ``robustify_plan``.
        dataset: Training images with classes.
        folder: Folder of the run and of the checkpoint. Created if missing.
        progress: ``progress(done, total, text)`` is called after every step.
        log: Log file (default: ``folder/run.log``).

    Returns:
        The folder.

    Raises:
        UserError: See ``stillrobust.training.train``.
    """
    folder = train(plan, dataset, folder, progress, log)
    if is_main_process():
        with lease(folder, wait=True):
            clear_leftovers(folder)
            _write_checkpoint(plan, dataset, folder)
    return folder


def _write_checkpoint(plan: Plan, dataset: Dataset, folder: Path) -> None:
    description = read_description(folder)
    assert description is not None
    source = (
        f"stillrobust robustify, run {description['key']}: from {plan.backbone} on"
        f" {dataset.info.name}"
    )
    if _checkpoint_source(folder) == source:
        return
    _, model, _ = load_model(folder)
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
    write_folder(folder, backbone, row)


def _checkpoint_source(folder: Path) -> str:
    """The source of the checkpoint in ``folder``; empty without a complete one."""
    try:
        return read_folder(folder).source
    except UserError:
        return ""
