"""Upstream training with every technique, its interruption, and the checkpoint that comes of it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from stillrobust.backbones import build_backbone
from stillrobust.backbones.reader import digest
from stillrobust.data import open_dataset, write_scenes
from stillrobust.data.generated.scene_files import SceneCounts
from stillrobust.errors import UserError
from stillrobust.robustify import TECHNIQUES
from stillrobust.training import Plan, Recipe, load_model, train
from stillrobust.training.run_files import read_description
from stillrobust.training.upstream_training import robustify, robustify_plan
from tests.toys import SETTINGS, Toys, head_names

RANDOM = "resnet_mini(weights='random')"
# Arguments that make a technique quick; DeepAugment needs folders of images, and has its own tests
# below.
QUICK = {"ant": "ant(iterations=2)", "l2": "l2(steps=1)"}
SPECS = [QUICK.get(name, name) for name in TECHNIQUES if name != "deepaugment"]


def recipe(**changes):
    settings = {"resize": 64, "crop": 64, "crop_scale": (0.9, 1.0)}
    return Recipe(
        **{"steps": 4, "batch_size": 4, "norm_eval": False, "settings": settings, **changes}
    )


def weights(folder):
    return digest(load_model(folder)[1].state_dict())


def test_the_folder_is_a_checkpoint_with_its_own_classes(tmp_path):
    folder = robustify(
        robustify_plan(RANDOM, "regular", recipe()), Toys("classification", 8), tmp_path / "made"
    )
    backbone, said = build_backbone(f"resnet_mini(weights='{folder}')")
    assert "tensors" in said
    _, model, description = load_model(folder)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        # as a loaded model is; another layout rounds otherwise
        laid_out = backbone.eval().to(memory_format=torch.channels_last)
        assert torch.equal(laid_out.classify(images), model(images))
        assert backbone.classify(images).shape == (2, 2)
    assert description["plan"]["kind"] == "robustify"
    written = (folder / "checkpoint.json").stat().st_mtime_ns
    robustify(robustify_plan(RANDOM, "regular", recipe()), Toys("classification", 8), folder)
    assert (folder / "checkpoint.json").stat().st_mtime_ns == written, (
        "finished work was done again"
    )


@pytest.mark.parametrize("spec", [*SPECS, "gaussian(std=0.1)+augmix"])
def test_every_technique_trains_the_model(spec, tmp_path):
    """It changes the weights, differently from plain training, and twice in the same way."""
    data = Toys("classification", 8)
    folders = [
        robustify(robustify_plan(RANDOM, spec, recipe()), data, tmp_path / name) for name in "ab"
    ]
    regular = robustify(robustify_plan(RANDOM, "regular", recipe()), data, tmp_path / "regular")
    assert weights(folders[0]) == weights(folders[1])
    assert weights(folders[0]) != weights(regular)


@pytest.mark.parametrize("spec", ["ant(iterations=2)", "prime", "augmix"])
def test_stopped_and_resumed_equals_undisturbed(spec, tmp_path):
    """Stopped in the middle of an epoch, with a companion's optimizer and pool in the files; the
    epoch is of two steps.
    """
    data, plan = (
        Toys("classification", 8),
        robustify_plan(RANDOM, spec, recipe(steps=7, checkpoint_seconds=0.0)),
    )

    def stop(done, total, text):
        if done == 5:
            raise KeyboardInterrupt

    whole = robustify(plan, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        robustify(plan, data, tmp_path / "stopped", stop)
    assert not (tmp_path / "stopped" / "checkpoint.json").exists()
    assert weights(robustify(plan, data, tmp_path / "stopped")) == weights(whole)


def test_a_made_backbone_starts_a_transfer_and_another_robustification(tmp_path):
    data = Toys("classification", 8)
    made = robustify(robustify_plan(RANDOM, "augmix", recipe()), data, tmp_path / "made")
    spec = f"resnet_mini(weights='{made}')"
    frozen = train(
        Plan(
            "detection", spec, "fixed_feature", Recipe(steps=1, batch_size=2), SETTINGS["detection"]
        ),
        Toys("detection"),
        tmp_path / "d",
    )
    ours = build_backbone(spec)[0].model.state_dict()
    inside = load_model(frozen)[1].state_dict()
    kept = [key for key in ours if any(name.endswith(key) for name in inside)]
    assert len(kept) > 20
    for key in kept:
        assert torch.equal(
            ours[key],
            next(value for name, value in inside.items() if name.endswith(f".model.{key}")),
        ), key
    again = robustify(robustify_plan(spec, "gaussian", recipe()), data, tmp_path / "again")
    assert weights(again) != weights(made)


def test_what_is_published_with_a_thousand_classes_gets_the_data_s(tmp_path):
    data = Toys("classification", 4)
    settings = {"resize": 32, "crop": 32}
    folder = robustify(
        robustify_plan("efficientnet_lite0", "regular", recipe(steps=1, settings=settings)),
        data,
        tmp_path,
    )
    assert build_backbone(f"efficientnet_lite0(weights='{folder}')")[0].classify(
        torch.rand(1, 3, 64, 64)
    ).shape == (1, 2)


@pytest.mark.slow
def test_from_the_command_line(tmp_path):
    root = write_scenes(
        tmp_path / "data",
        counts=SceneCounts(train=1, val=1, train_crops=10, val_crops=10),
        scene_size=64,
        crop_size=48,
    )
    command = [
        sys.executable,
        "-m",
        "stillrobust",
        "robustify",
        "--data",
        f"folders:{root / 'classification'}",
        "--steps",
        "2",
    ]
    command += ["--backbone", RANDOM, "--batch-size", "4", "--out", str(tmp_path / "made")]
    done = subprocess.run([*command, "--technique", "gaussian"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"resnet_mini(weights='{tmp_path / 'made'}')" in done.stdout
    for technique, message in (
        ("augmx", "Did you mean: augmix"),
        ("l2(epsilon=-1)", "epsilon"),
        ("deepaugment", "deepaugment"),
    ):
        refused = subprocess.run(
            [*command, "--technique", technique], capture_output=True, text=True
        )
        assert refused.returncode == 2
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr


def test_only_what_augments_acts_in_a_transfer(tmp_path):
    plan = Plan("classification", RANDOM, "full_network", recipe(), technique="ant")
    with pytest.raises(UserError, match="stillrobust robustify"):
        train(plan, Toys("classification", 4), tmp_path)
    with pytest.raises(UserError, match="moves pixels"):
        train(
            Plan("detection", RANDOM, "full_network", Recipe(), SETTINGS["detection"], "prime"),
            Toys("detection", 4),
            tmp_path,
        )
    with pytest.raises(UserError, match="use classification"):
        train(
            Plan("detection", RANDOM, None, Recipe(), SETTINGS["detection"], kind="robustify"),
            Toys("detection", 4),
            tmp_path,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", sorted(SETTINGS))
@pytest.mark.parametrize("transfer", ["fixed_feature", "full_network"])
def test_an_augmenting_technique_acts_in_every_task_also_with_a_frozen_backbone(
    task, transfer, tmp_path
):
    """Two runs that differ in the technique alone end in different heads."""
    made = [
        train(
            Plan(task, RANDOM, transfer, Recipe(steps=2, batch_size=2), SETTINGS[task], spec),
            Toys(task, 4),
            tmp_path / name,
        )
        for name, spec in (("plain", ""), ("prime", "prime(geometry=False)"))
    ]
    model = load_model(made[0])[1]
    first, second = model.state_dict(), load_model(made[1])[1].state_dict()
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed & head_names(model)
    assert bool(changed - head_names(model)) == (transfer == "full_network")
    assert np.all([torch.isfinite(value).all() for value in second.values()])


# ---- a technique with images of its own


@pytest.fixture
def folders(tmp_path):
    """A set of folders, and another of its images with dark and light exchanged."""
    toys = Toys("classification", 8)
    for index in range(8):
        name = f"{toys.info.classes[index % 2]}/{index}.png"
        for root, image in (("set/train", toys[index].image), ("other", 255 - toys[index].image)):
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / root / name)
    return open_dataset(f"folders:{tmp_path / 'set'}", "train"), tmp_path / "other"


def deepaugmented(root, combine="concat", **changes):
    return robustify_plan(
        RANDOM,
        f"deepaugment(roots=({str(root)!r},), combine={combine!r})+augmix",
        recipe(**changes),
    )


def test_deepaugment_trains_on_its_folders_stops_and_goes_on(folders, tmp_path):
    """An epoch of 16 images is four steps; stopped within the second one."""
    clean, root = folders
    plan = deepaugmented(root, steps=7, checkpoint_seconds=0.0)

    def stop(done, total, text):
        if done == 6:
            raise KeyboardInterrupt

    whole = robustify(plan, clean, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        robustify(plan, clean, tmp_path / "stopped", stop)
    seen = []
    assert weights(
        robustify(plan, clean, tmp_path / "stopped", lambda d, t, x: seen.append(d))
    ) == weights(whole)
    assert seen == [6, 7]
    alone = robustify(robustify_plan(RANDOM, "augmix", recipe(steps=7)), clean, tmp_path / "alone")
    assert weights(alone) != weights(whole)
    assert read_description(whole)["info"]["size"] == 16


def test_another_image_in_deepaugment_s_folder_is_another_training(folders, tmp_path):
    clean, root = folders
    first = weights(robustify(deepaugmented(root), clean, tmp_path / "made"))
    robustify(
        deepaugmented(root),
        clean,
        tmp_path / "made",
        lambda *_: pytest.fail("finished work was done again"),
    )
    for path in root.rglob("*.png"):
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(path)
    seen = []
    assert (
        weights(
            robustify(deepaugmented(root), clean, tmp_path / "made", lambda d, t, x: seen.append(d))
        )
        != first
    )
    assert seen == [1, 2, 3, 4]


def test_what_is_missing_in_deepaugment_s_folder_is_said_before_anything_starts(folders, tmp_path):
    clean, root = folders
    next(root.rglob("*.png")).unlink()
    with pytest.raises(UserError, match="1 are missing"):
        robustify(deepaugmented(root), clean, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_deepaugment_s_choice_follows_the_recipe_s_seed(folders, tmp_path):
    clean, root = folders
    made = [
        robustify(deepaugmented(root, "choice", steps=1, seed=seed), clean, tmp_path / str(seed))
        for seed in (0, 1)
    ]
    data = [read_description(folder)["identity"]["training_data"] for folder in made]
    assert data[0] != data[1]
    assert read_description(made[0])["info"]["size"] == 8
