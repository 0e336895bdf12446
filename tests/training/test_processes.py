"""Two processes train what one trains; half precision; mistakes in a child are one sentence."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from stillrobust.errors import UserError
from stillrobust.tasks.distributed import (
    SyncBatchNorm2d,
    mean_over_processes,
    synchronize_batch_norm,
)
from stillrobust.training import Plan, Recipe, train
from stillrobust.training.upstream_training import robustify_plan
from tests.toys import SETTINGS, Toys

# What is drawn at random differs by process: with no dropout, and every anchor and box sampled,
# nothing is.
DRAWN = {
    "classification": {},
    "detection": {"rois_per_image": 4000, "anchors_per_image": 8000},
    "segmentation": {"dropout": 0.0},
}
# Five images on two processes are three and two: parts of different sizes.
RECIPE = Recipe(
    steps=3,
    batch_size=5,
    optimizer="sgd",
    lr=0.02,
    warmup=0,
    accelerator="cpu",
    checkpoint_seconds=0,
)


def plan(task, **differences):
    settings = {**SETTINGS[task], **DRAWN[task]}
    return Plan(
        task,
        "resnet_mini(weights='random')",
        "full_network",
        dataclasses.replace(RECIPE, **differences),
        settings,
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(DRAWN))
def test_two_processes_are_one(task, tmp_path):
    """Losses over the whole batch, BatchNorm statistics over both, checkpoints by the first alone;
    progress arrives.
    """
    norm_eval = task == "detection"
    data = Toys(task)
    one, two = [], []
    train(
        plan(task, norm_eval=norm_eval), data, tmp_path / "one", lambda *news: one.append(news[:2])
    )
    train(
        plan(task, norm_eval=norm_eval, devices=2),
        data,
        tmp_path / "two",
        lambda *news: two.append(news[:2]),
    )
    assert one == two == [(1, 3), (2, 3), (3, 3)]
    alone, together = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    start = train(plan(task, norm_eval=norm_eval, lr=0.0), data, tmp_path / "start")
    still = load_file(start / "model.safetensors")
    for name, value in alone.items():
        if value.is_floating_point():
            moved = (value - still[name]).abs().max()
            assert (value - together[name]).abs().max() <= 1e-5 + 2e-3 * moved, name
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["", "augmix", "l2(epsilon=0.5,jitter=False)"])
def test_two_processes_make_robust_as_one_does(technique, tmp_path):
    """Parts of three and two images: every image counts alike, whatever the loss.

    (Of processes alike, the classifier's bias is off by more than itself.)
    """
    settings = {"resize": 64, "crop": 64, "crop_scale": (0.9, 1.0)}
    recipe = dataclasses.replace(RECIPE, norm_eval=False, settings=settings)
    found = {}
    for name, differences in (("one", {}), ("two", {"devices": 2}), ("start", {"lr": 0.0})):
        made = robustify_plan(
            "resnet_mini(weights='random')",
            technique or "regular",
            dataclasses.replace(recipe, **differences),
        )
        found[name] = load_file(
            train(made, Toys("classification"), tmp_path / name) / "model.safetensors"
        )
    for name, value in found["one"].items():
        if value.is_floating_point():
            moved = (value - found["start"][name]).abs().max()
            assert (value - found["two"][name]).abs().max() <= 1e-4 + 1e-2 * moved, name


@pytest.mark.slow
def test_stopped_in_two_processes_goes_on_in_one(tmp_path):
    """The identity leaves out the number of processes, and a checkpoint of two is one that one
    process reads.
    """
    whole = train(plan("classification", steps=4), Toys("classification"), tmp_path / "whole")

    def stop(done, total, text):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan("classification", steps=4), Toys("classification"), tmp_path / "stopped", stop)
    seen = []
    train(
        plan("classification", steps=4, devices=2),
        Toys("classification"),
        tmp_path / "stopped",
        lambda d, t, x: seen.append(d),
    )
    assert seen == [2, 3, 4]
    first, second = (
        load_file(path / "model.safetensors") for path in (whole, tmp_path / "stopped")
    )
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


@pytest.mark.slow
def test_a_mistake_in_a_child_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="lower the learning rate"):
        train(
            plan("classification", devices=2, lr=1e30, steps=30), Toys("classification"), tmp_path
        )
    assert not (tmp_path / "model.json").exists()


def test_more_processes_than_images_or_no_launcher(tmp_path):
    with pytest.raises(UserError, match="batch_size is 5"):
        train(plan("classification", devices=6), Toys("classification"), tmp_path)
    with pytest.raises(UserError, match="torchrun or srun"):
        train(plan("classification", nodes=2), Toys("classification"), tmp_path)


@pytest.mark.parametrize("task", sorted(DRAWN))
def test_half_precision_trains_near_full(task, tmp_path):
    """bf16 has 8 bits: the update is the full one within a few percent, and boxes reach the loss
    unrounded.
    """
    data = Toys(task)
    weights = {}
    for precision in ("32-true", "bf16-mixed"):
        folder = train(plan(task, steps=1, precision=precision), data, tmp_path / precision)
        weights[precision] = load_file(folder / "model.safetensors")
    start = load_file(
        train(plan(task, steps=1, lr=0.0), data, tmp_path / "start") / "model.safetensors"
    )
    full, half = (
        torch.cat(
            [
                (found[name] - start[name]).flatten()
                for name in start
                if start[name].is_floating_point()
            ]
        )
        for found in weights.values()
    )
    assert all(value.dtype != torch.bfloat16 for value in weights["bf16-mixed"].values())
    assert torch.dot(full, half) / (full.norm() * half.norm()) > 0.97


@pytest.mark.parametrize(
    "technique",
    ["ant(iterations=2)", "l2(steps=2,jitter=False)", "augmix", "prime(geometry=False)"],
)
def test_techniques_train_in_half_precision(technique, tmp_path):
    """One step with the same draws: the direction of the full one, within what 8 bits make of it
    (plain training: 0.995).

    BatchNorm as it is: with statistics of eight images 8 bits move even a plain step to 0.85.
    """
    settings = {"resize": 64, "crop": 64, "crop_scale": (0.9, 1.0)}
    recipe = dataclasses.replace(RECIPE, steps=1, batch_size=8, norm_eval=True, settings=settings)
    found = {}
    for name, differences in (
        ("full", {}),
        ("half", {"precision": "bf16-mixed"}),
        ("start", {"lr": 0.0}),
    ):
        made = robustify_plan(
            "resnet_mini(weights='random')", technique, dataclasses.replace(recipe, **differences)
        )
        state = load_file(
            train(made, Toys("classification", 8), tmp_path / name) / "model.safetensors"
        )
        found[name] = torch.cat(
            [value.flatten() for value in state.values() if value.is_floating_point()]
        )
    full, half = (found[name] - found["start"] for name in ("full", "half"))
    assert not torch.equal(full, half)
    assert torch.dot(full, half) / (full.norm() * half.norm()) > 0.95


def test_alone_nothing_is_shared():
    assert mean_over_processes(5, torch.device("cpu")) == 5
    assert mean_over_processes(0, torch.device("cpu")) == 1
    model = synchronize_batch_norm(torch.nn.Sequential(torch.nn.BatchNorm2d(3)))
    assert isinstance(model[0], SyncBatchNorm2d)
    plain, x = torch.nn.BatchNorm2d(3), torch.rand(4, 3, 5, 5)
    assert torch.equal(plain(x), model[0](x))
    assert torch.equal(plain.running_var, model[0].running_var)
