"""The time of a training, from two images."""

import dataclasses

import pytest

from stillrobust.training import Plan, Recipe, estimate
from tests.toys import SETTINGS, Toys


@pytest.mark.parametrize("task", SETTINGS)
def test_two_images_are_scaled_to_the_whole_training(task, monkeypatch):
    recipe = Recipe(steps=30, batch_size=8)
    plan = Plan(task, "resnet_mini(weights='random')", "full_network", recipe, SETTINGS[task])
    clock = iter([100.0, 103.0, 100.0, 103.0])
    monkeypatch.setattr(estimate.time, "monotonic", lambda: next(clock))
    # 3 s for 2 images, 30 steps of 8
    assert estimate.estimate_training_seconds(plan, Toys(task)) == 3.0 / 2 * 240
    longer = dataclasses.replace(plan, recipe=dataclasses.replace(recipe, steps=60))
    assert estimate.estimate_training_seconds(longer, Toys(task)) == 3.0 / 2 * 480
