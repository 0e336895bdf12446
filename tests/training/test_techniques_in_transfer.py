"""A technique in fine-tuning: it acts on images alone, those of one size together, where and when
training says.
"""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stillrobust.backbones import build_backbone, resolve_backbone
from stillrobust.robustify import build_technique
from stillrobust.tasks import make_task, transforms
from stillrobust.training import Plan, Recipe, identity, train
from stillrobust.training.technique_hooks import TransferHooks
from tests.own_toys import written
from tests.toys import SETTINGS, Toys

RANDOM = "resnet_mini(weights='random')"
PER_IMAGE = "trivialaugment(geometry=False)"


def test_an_augmentation_of_images_acts_on_what_was_read_and_leaves_the_rest():
    """In 8 bits, once, from the sample's own generator; the result stays float."""
    sample = Toys("detection")[0]
    (view,) = TransferHooks(make_task("detection"), "augmix(geometry=False, jsd=False)").make_views(
        sample, np.random.default_rng(4)
    )
    made = build_technique("augmix(geometry=False, jsd=False)").augment_image(
        sample.image, np.random.default_rng(4)
    )
    assert np.array_equal(view.image, made)
    assert view.image.dtype == np.float32
    assert not np.allclose(255 * made, np.round(255 * made), atol=1e-2)
    assert view.target is sample.target
    for spec in ("", "gaussian"):
        assert TransferHooks(make_task("detection"), spec).make_views(
            sample, np.random.default_rng(4)
        ) == [sample]


def test_an_augmentation_of_images_is_made_by_the_loader_s_workers(tmp_path):
    file = written(
        tmp_path,
        "worker.py",
        """
import torch
GEOMETRIC = False

def augment_image(image, rng):
    assert torch.utils.data.get_worker_info() is not None
    return image
""",
    )
    recipe = Recipe(steps=1, batch_size=2, workers=1)
    train(
        Plan("detection", RANDOM, "fixed_feature", recipe, SETTINGS["detection"], file),
        Toys("detection", 4),
        tmp_path / "run",
    )


@pytest.mark.parametrize("task", sorted(SETTINGS))
def test_neither_workers_nor_a_stop_change_what_is_drawn(task, tmp_path):
    """An epoch is three steps: the second one is stopped in its middle."""
    recipe, data = Recipe(steps=6, batch_size=4, checkpoint_seconds=0.0), Toys(task)
    plan = Plan(
        task, RANDOM, "full_network", recipe, SETTINGS[task], f"{PER_IMAGE}+gaussian(std=0.1)"
    )

    def stop(done, total, text):
        if done == 5:
            raise KeyboardInterrupt

    folders = [train(plan, data, tmp_path / "whole")]
    two = dataclasses.replace(plan, recipe=dataclasses.replace(recipe, workers=2))
    with pytest.raises(KeyboardInterrupt):
        train(two, data, tmp_path / "stopped", stop)
    folders.append(train(two, data, tmp_path / "stopped"))
    whole, stopped = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)


def test_boxes_masks_and_padding_stay_as_they_are():
    """Images of three sizes, of which two are padded: only what is inside of an image changes."""
    task, data = make_task("detection", SETTINGS["detection"]), Toys("detection")
    batch = [
        data[0],
        transforms.crop(data[1], (0, 0, 40, 64)),
        transforms.crop(data[2], (0, 0, 64, 50)),
    ]
    model = task.build_model(build_backbone(RANDOM)[0], data.info).train()
    seen = {}
    model.register_forward_pre_hook(lambda module, arguments: seen.update(targets=arguments[1]))
    backbone = model.backbone.backbone
    backbone.register_forward_pre_hook(
        lambda module, arguments: seen.update(images=arguments[0].clone())
    )
    found = []
    for spec in ("", f"{PER_IMAGE}+prime(geometry=False)"):
        work = TransferHooks(task, spec)
        views = [work.make_views(sample, np.random.default_rng(1)) for sample in batch]
        work.loss(model, views, torch.Generator().manual_seed(3))
        found.append(dict(seen))
    plain, changed = found
    for before, after, sample in zip(plain["targets"], changed["targets"], batch, strict=True):
        assert before.keys() == after.keys() == {"boxes", "labels", "masks"}
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert np.array_equal(after["boxes"].numpy(), sample.target.boxes)
    normalized = backbone.normalize(changed["images"])
    assert not normalized[1, :, 40:].any()
    assert not normalized[2, :, :, 50:].any()
    for before, after, (height, width) in zip(
        plain["images"], changed["images"], ((64, 64), (40, 64), (64, 50)), strict=True
    ):
        assert (before != after)[:, :height, :width].float().mean() > 0.5


def test_another_way_of_acting_is_another_training():
    info, backbone = Toys("detection").info, resolve_backbone(RANDOM)
    plan = Plan("detection", RANDOM, "full_network", settings=SETTINGS["detection"])
    noisy = dataclasses.replace(plan, technique="gaussian")
    assert "in_transfer_version" not in identity(plan, backbone, info)
    assert "in_transfer_version" in identity(noisy, backbone, info)
