"""Interpolate the weights of two finished runs: a path of models between them (WiSE-FT)."""

from collections.abc import Sequence
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.finetuning import interpolate_weights
from stillrobust.samples import DatasetInfo
from stillrobust.storage.files import output_folder
from stillrobust.storage.leases import lease
from stillrobust.training.loop import load_model
from stillrobust.training.plan import TRAINING_VERSION
from stillrobust.training.run_files import is_finished, remove_leftovers, write_finished_model


def interpolate_runs(
    first: Path, second: Path, alphas: Sequence[float], out: Path
) -> dict[float, Path]:
    """Write the models (1 - alpha) * first + alpha * second as finished runs.

    BatchNorm's running mean and variance are interpolated as the weights are. Runs that exist
    already are left alone.

    Args:
        first: Folder of a finished run, such as one whose backbone was frozen.
        second: Folder of a finished run of the same backbone, task and classes, such as one
            that was fine-tuned from there.
        alphas: Shares of the second run, 0..1.
        out: Folder for the runs, one folder for each share.

    Returns:
        The folder of each share.

    Raises:
        UserError: If a run is not finished, the two do not fit each other, or a share is out of
            range.
    """
    wrong = [alpha for alpha in alphas if not 0 <= alpha <= 1]
    if wrong or not alphas:
        raise UserError(
            f"Expected shares from 0 to 1, but got {wrong[0] if wrong else 'none'}; give some such"
            " as --alphas 0,0.25,0.5,0.75,1"
        )
    _, model, description = load_model(first)
    _, other, other_description = load_model(second)
    info, plan = description["info"], other_description["plan"]
    for what, one, two in (
        ("tasks", description["plan"]["task"], plan["task"]),
        ("classes", info["classes"], other_description["info"]["classes"]),
    ):
        if one != two:
            raise UserError(
                f"Expected two runs with the same {what}, but {first} and {second} differ in them;"
                " interpolate runs that were trained on the same data"
            )
    ends = {key: value.clone() for key, value in model.state_dict().items()}, other.state_dict()
    folders = {}
    for alpha in dict.fromkeys(alphas):
        folder = out / f"alpha-{alpha:g}"
        identity = {
            "interpolation": alpha,
            "runs": [description["key"], other_description["key"]],
            "weights": [description["sha256"], other_description["sha256"]],
            "training_version": TRAINING_VERSION,
        }
        folders[alpha] = folder
        mixed = interpolate_weights(*ends, alpha)
        with output_folder(folder), lease(folder):
            if is_finished(folder, identity):
                continue
            remove_leftovers(folder, finished=False)
            model.load_state_dict(mixed)
            named = {**plan, "display_name": f"{plan['display_name']}, interpolated {alpha:g}"}
            loaded = f"{1 - alpha:g} of {first} and {alpha:g} of {second}"
            own_info = DatasetInfo(**{**info, "classes": tuple(info["classes"])})
            write_finished_model(folder, identity, named, loaded, model, own_info)
    return folders
