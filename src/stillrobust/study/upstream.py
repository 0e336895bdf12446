"""The weights of a miniature's backbones: a published model goes on for a few steps on generated
crops.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save

from stillrobust.data import open_dataset
from stillrobust.storage.files import clear_leftovers, write_whole
from stillrobust.storage.leases import lease
from stillrobust.study.miniature import read_miniature, standin_of
from stillrobust.tasks.recipes import recipe_of
from stillrobust.training import Plan, train

INSIDE = "backbone.model."  # where a classifier keeps its backbone


def standin_job(target: Path, data: str, progress: Callable[[int, int, str], None]) -> None:
    """Make the stand-in whose file is ``target``, from the crops of ``data``; it appears whole or
    not at all.
    """
    with lease(target):
        clear_leftovers(target.parent, target.name)
        if not target.is_file():
            _make(target, data, progress)
        shutil.rmtree(target.with_suffix(".training"), ignore_errors=True)


def _make(target: Path, data: str, progress: Callable[[int, int, str], None]) -> None:
    small = read_miniature()
    standin = standin_of(str(target), small)
    recipe = recipe_of(**small.standin_recipe, seed=standin.seed)
    settings = small.tasks["classification"].settings
    plan = Plan(
        "classification", standin.backbone, "full_network", recipe, settings, standin.technique
    )
    folder = train(
        plan, open_dataset(data, "train", training=True), target.with_suffix(".training"), progress
    )
    state = load_file(folder / "model.safetensors")
    write_whole(
        {
            target: save(
                {
                    key.removeprefix(INSIDE): value
                    for key, value in state.items()
                    if key.startswith(INSIDE)
                }
            )
        }
    )
