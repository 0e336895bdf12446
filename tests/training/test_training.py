import dataclasses
import gc
import json
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from stillrobust import untrusted
from stillrobust.backbones import (
    CHECKPOINTS,
    Backbone,
    Checkpoint,
    build_backbone,
    resolve_backbone,
    write_folder,
)
from stillrobust.errors import UserError
from stillrobust.tasks.heads import backbone_of
from stillrobust.training import Plan, Recipe, load_model, train
from stillrobust.training import loop as training
from stillrobust.training.batches import batch_indices
from tests.toys import SETTINGS, Toys

SHORT = Recipe(steps=4, batch_size=4)


def plan(
    task="classification",
    transfer="fixed_feature",
    recipe=SHORT,
    backbone="resnet18(weights='random')",
    kind="transfer",
):
    return Plan(task, backbone, transfer, recipe, SETTINGS[task], kind=kind)


def identity(plan, info):
    return training.identity(plan, resolve_backbone(plan.backbone), info)


@pytest.mark.parametrize("task", sorted(SETTINGS))
@pytest.mark.parametrize("transfer", ["fixed_feature", "full_network"])
def test_frozen_means_frozen_and_full_means_full(task, transfer, tmp_path):
    """A frozen backbone's whole state, statistics included, is bit-equal after training."""
    train(plan(task, transfer), Toys(task), tmp_path)
    _, model, description = load_model(tmp_path)
    torch.manual_seed(0)
    start = build_backbone("resnet18(weights='random')")[0].model.state_dict()
    after = training.backbone_of(model).model.state_dict()
    used = [key for key in start if not key.startswith("fc.")]
    changed = [key for key in used if not torch.equal(start[key], after[key])]
    assert changed == [] if transfer == "fixed_feature" else len(changed) > 20
    assert description["plan"]["transfer"] == transfer


@pytest.mark.parametrize("source", ["random", "file", "folder", "hub"])
@pytest.mark.parametrize("kind", ["transfer", "robustify"])
def test_weights_are_hashed_read_and_built_once(source, kind, tmp_path, monkeypatch):
    """A training resolves its weights once, and holds one model from its start to its end."""
    made = build_backbone("resnet_mini(weights='random')")[0]
    row = Checkpoint("resnet_mini", "mine", "prime", "ours", "", "a test", file="")
    folder = write_folder(tmp_path / "made", made, row)
    weights = folder / "weights.safetensors"
    spec = {
        "random": "resnet_mini(weights='random')",
        "file": f"resnet_mini(weights='{weights}')",
        "folder": f"resnet_mini(weights='{folder}')",
        "hub": "timm/resnet10t",
    }[source]
    counts, alive = Counter(), weakref.WeakSet()

    def count(owner, name, key):
        original = getattr(owner, name)

        def counted(first, *arguments, **options):
            counts[key(first)] += 1
            return original(first, *arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    def built(backbone):
        alive.add(backbone)
        return "built"

    count(Backbone, "__init__", built)
    for owner, name in ((Path, "open"), (untrusted.files, "_open_without_blocking")):
        count(owner, name, lambda path: "opened" if path == weights else path.name)
    if source == "hub":
        weights = tmp_path / "hub.safetensors"
        save_file(timm.create_model("resnet10t").state_dict(), weights)
        monkeypatch.setattr("stillrobust.backbones.specs.timm_file", lambda name: weights)

    def check(done, total, text):
        gc.collect()
        assert len(alive) == 1

    transfer = "fixed_feature" if kind == "transfer" else None
    chosen = plan(backbone=spec, transfer=transfer, kind=kind)
    train(chosen, Toys("classification"), tmp_path / "run", check)
    assert counts["built"] == 1
    assert counts["opened"] == (0 if source == "random" else 2)  # hashed, then read
    assert counts["checkpoint.json"] == (1 if source == "folder" else 0)


def test_stopped_and_resumed_equals_undisturbed(tmp_path):
    recipe = dataclasses.replace(SHORT, steps=6, checkpoint_seconds=0.0)
    data = Toys("segmentation")
    train(plan("segmentation", "full_network", recipe), data, tmp_path / "whole")

    def stop(done, total, text):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan("segmentation", "full_network", recipe), data, tmp_path / "stopped", stop)
    assert json.loads((tmp_path / "stopped" / "resume.json").read_text())["step"] == 3
    seen = []
    train(
        plan("segmentation", "full_network", recipe),
        data,
        tmp_path / "stopped",
        lambda d, t, x: seen.append(d),
    )
    assert seen == [4, 5, 6]
    whole, stopped = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped")
    )
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)
    assert not (tmp_path / "stopped" / "resume.json").exists()


def test_finished_runs_are_left_alone_and_damaged_ones_are_not_believed(tmp_path):
    train(plan(), Toys("classification"), tmp_path)
    train(plan(), Toys("classification"), tmp_path, lambda *_: pytest.fail("trained again"))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    with pytest.raises(UserError, match="checksum"):
        load_model(tmp_path)
    seen = []
    train(plan(), Toys("classification"), tmp_path, lambda d, t, x: seen.append(d))
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["transfer", "upstream", "robustify"])
def test_a_loaded_model_normalizes_as_its_weights_want_it(kind, tmp_path):
    """A made folder has values, and classes, that its architecture does not know; they belong to
    the run's identity.
    """
    made = build_backbone("resnet_mini(weights='random')")[0].eval()
    made.reset_classifier(2)
    made.set_preprocessing((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), clamp=True)
    write_folder(
        tmp_path / "made",
        made,
        Checkpoint("resnet_mini", "mine", "prime", "ours", "", "a test", file="", classes=2),
    )
    transfer = "fixed_feature" if kind == "transfer" else None
    backbone = f"resnet_mini(weights='{tmp_path / 'made'}')"
    chosen = plan(transfer=transfer, backbone=backbone, kind=kind)
    folder = train(chosen, Toys("classification"), tmp_path / "run")
    model = load_model(folder)[1]
    assert backbone_of(model).preprocessing() == made.preprocessing()
    images = torch.rand(2, 3, 64, 64) * 1.5 - 0.25
    with torch.inference_mode():
        assert torch.equal(backbone_of(model).normalize(images), made.normalize(images))
        if kind == "upstream":
            # as a loaded model is; another layout rounds otherwise
            laid_out = made.to(memory_format=torch.channels_last)
            assert torch.equal(model(images), laid_out.classify(images))
    about = json.loads((tmp_path / "made" / "checkpoint.json").read_text())
    (tmp_path / "made" / "checkpoint.json").write_text(json.dumps(about | {"clamp": False}))
    assert (
        identity(chosen, Toys("classification").info)
        != training.read_description(folder)["identity"]
    )


def test_a_run_on_an_l2_row_keeps_its_clamp(tmp_path, monkeypatch):
    """Adversarially trained models clamp before they normalize; their files do not say so, the rows
    of facts do.
    """
    row = CHECKPOINTS["resnet50/l2_eps3"]
    monkeypatch.setenv("STILLROBUST_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    state = build_backbone("resnet50(weights='random')")[0].model.state_dict()
    torch.save(
        {"model": {f"module.model.{key}": value for key, value in state.items()}},
        tmp_path / "weights" / row.file,
    )
    folder = train(
        plan(backbone=row.spec, recipe=dataclasses.replace(SHORT, steps=1)),
        Toys("classification"),
        tmp_path / "run",
    )
    kept = backbone_of(load_model(folder)[1])
    assert kept.clamp
    assert torch.equal(
        kept.normalize(torch.full((1, 3, 1, 1), 2.0)), kept.normalize(torch.ones(1, 3, 1, 1))
    )


def test_a_run_of_another_version_is_told(tmp_path, monkeypatch):
    folder = train(plan(), Toys("classification"), tmp_path)
    monkeypatch.setattr(training, "TRAINING_VERSION", 99)
    with pytest.raises(UserError, match=r"training version 99 .* train the run again"):
        load_model(folder)


def test_identity_leaves_out_how_it_is_run():
    info = Toys("classification").info
    first = identity(plan(), info)
    assert first == identity(
        plan(recipe=dataclasses.replace(SHORT, workers=3, checkpoint_seconds=1)), info
    )
    assert first != identity(plan(recipe=dataclasses.replace(SHORT, seed=1)), info)
    assert first != identity(plan(transfer="full_network"), info)


def test_the_order_is_every_example_once_an_epoch_and_resumes():
    batches = list(batch_indices(seed=3, size=10, batch_size=4, steps=5))
    flat = [key for batch in batches for key in batch]
    for epoch in (0, 1):
        assert sorted(index for e, index in flat if e == epoch) == list(range(10))
    assert list(batch_indices(3, 10, 4, 5, first=3)) == batches[3:]
    assert list(batch_indices(4, 10, 4, 5)) != batches


def test_nan_is_one_sentence_and_nothing_half_written(tmp_path):
    recipe = Recipe(steps=40, batch_size=4, lr=1e30, warmup=0)
    with pytest.raises(UserError, match=r"became .* at step .* lower the learning rate"):
        train(plan(transfer="full_network", recipe=recipe), Toys("classification"), tmp_path)
    assert not (tmp_path / "model.json").exists()


def test_unwritable_output(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="Cannot write"):
        train(plan(), Toys("classification"), tmp_path / "file")


def test_learns(tmp_path):
    """Wide against tall rectangles is learnt by a full network from real weights, on images it has
    not seen.
    """
    recipe = Recipe(steps=40, batch_size=8, lr=3e-3)
    real = plan(transfer="full_network", recipe=recipe, backbone="efficientnet_lite0")
    folder = train(real, Toys("classification", 24), tmp_path)
    task, model, _ = load_model(folder)
    unseen = Toys("classification", 16, seed=9)
    with torch.inference_mode():
        found = task.predict(model, [unseen[i].image for i in range(16)])
    assert np.mean([p.probabilities.argmax() == i % 2 for i, p in enumerate(found)]) > 0.9


def test_workers_see_what_one_process_sees(tmp_path):
    """Draws are keyed by (seed, epoch, image), so that two loader processes change nothing, bit by
    bit.
    """
    for task in sorted(SETTINGS):
        data, weights = Toys(task), []
        for workers in (0, 2):
            recipe = dataclasses.replace(SHORT, workers=workers)
            folder = train(plan(task, "full_network", recipe), data, tmp_path / f"{task}{workers}")
            weights.append(load_file(folder / "model.safetensors"))
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0]), task


@pytest.mark.parametrize("task", sorted(SETTINGS))
def test_a_technique_acts_in_transfer_and_resumes(task, tmp_path):
    """It changes what is learned, belongs to the identity, and a stopped run ends in the bits of an
    undisturbed one.
    """
    recipe = dataclasses.replace(SHORT, checkpoint_seconds=0.0)
    noisy = dataclasses.replace(plan(task, "full_network", recipe), technique="gaussian")
    data = Toys(task)
    plain = train(plan(task, "full_network", recipe), data, tmp_path / "plain")
    whole = train(noisy, data, tmp_path / "whole")

    def stop(done, total, text):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(noisy, data, tmp_path / "stopped", stop)
    train(noisy, data, tmp_path / "stopped")
    first, second, third = (
        load_file(folder / "model.safetensors") for folder in (plain, whole, tmp_path / "stopped")
    )
    assert all(torch.equal(second[key], third[key]) for key in second)
    assert not all(torch.equal(first[key], second[key]) for key in first)
    assert training.read_description(whole)["identity"]["technique"].startswith("gaussian")


def test_what_does_not_fit_is_said_before_training(tmp_path):
    def refuses(message, **differences):
        with pytest.raises(UserError, match=message):
            train(
                dataclasses.replace(plan("detection"), **differences),
                Toys("detection"),
                tmp_path / "x",
            )
        assert not (tmp_path / "x").exists()

    refuses("Did you mean: gaussian", technique="gausian")
    refuses(
        "moves pixels|does not act in fine-tuning|changes more than",
        technique="augmix(severity=3)+speckle+trivialaugment",
    )
    refuses("has no layer9", recipe=dataclasses.replace(SHORT, frozen=("layer9",)))
    refuses("drop path", recipe=dataclasses.replace(SHORT, drop_path=0.2))
    refuses("Unknown transfer", transfer="fixed")
    refuses("Did you mean: channels", settings={"chanels": 3})
    with pytest.raises(UserError, match="at least one image"):
        train(plan(), Toys("classification", 0), tmp_path / "x")
    alone = dataclasses.replace(
        plan("segmentation"), recipe=dataclasses.replace(SHORT, batch_size=1)
    )
    with pytest.raises(UserError, match="at least two images a step"):
        train(alone, Toys("segmentation"), tmp_path / "x")
    assert not (tmp_path / "x").exists()
