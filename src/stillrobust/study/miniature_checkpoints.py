"""Weights of miniature backbones: published ones, trained for a few steps on generated crops."""

import shutil
from pathlib import Path

from safetensors.torch import save

from stillrobust.backbones.reader import read_weights
from stillrobust.data import open_dataset
from stillrobust.execution import ProgressCallback
from stillrobust.storage.files import clear_leftovers, write_whole
from stillrobust.storage.leases import lease
from stillrobust.study.miniature import checkpoint_of_file, read_miniature
from stillrobust.tasks.recipes import recipe_of
from stillrobust.training import Plan, train

PREFIX = "backbone.model."  # of a backbone's parameters in a classifier


def make_miniature_checkpoint(target: Path, data: str, progress: ProgressCallback) -> None:
    """Train the weights of a miniature backbone. An existing file is kept.

    Args:
        target: The file, named as in ``miniature.miniature_spec``; written whole or not at all.
        data: ``FORMAT:PATH`` of the generated crops.
        progress: Called with ``(step, steps, text)``.

    Raises:
        Held: If another process is training the same weights.
    """
    with lease(target):
        clear_leftovers(target.parent, target.name)
        if not target.is_file():
            _train(target, data, progress)
        shutil.rmtree(target.with_suffix(".training"), ignore_errors=True)


def _train(target: Path, data: str, progress: ProgressCallback) -> None:
    small = read_miniature()
    checkpoint = checkpoint_of_file(target, small)
    recipe = recipe_of(**small.checkpoint_recipe, seed=checkpoint.seed)
    settings = small.tasks["classification"].settings
    plan = Plan(
        "classification",
        checkpoint.backbone,
        "full_network",
        recipe,
        settings,
        checkpoint.technique,
    )
    folder = train(
        plan, open_dataset(data, "train", training=True), target.with_suffix(".training"), progress
    )
    state = read_weights(folder / "model.safetensors").tensors
    write_whole(
        {
            target: save(
                {
                    key.removeprefix(PREFIX): value
                    for key, value in state.items()
                    if key.startswith(PREFIX)
                }
            )
        }
    )
