"""Recipes as data, and their rates against values computed by hand, mmcv's formulas and torch's
schedulers.
"""

import datetime
import math

import pytest
import torch
from torch import nn

from stillrobust.backbones.strict_loading import load_strictly
from stillrobust.errors import UserError
from stillrobust.tasks import make_task
from stillrobust.tasks.recipes import FIGURE_5_RATES, RECIPES, Recipe, recipe_of
from stillrobust.training.optimizer import learning_rate, scheduled_momentum


def rates(recipe, steps, base=None):
    base = recipe.lr if base is None else base
    return [learning_rate(recipe, base, step, steps) for step in range(steps)]


def test_cosine_by_hand():
    recipe = Recipe(lr=1.0, warmup=0.1, warmup_start=0.5, min_lr=0.0)
    assert learning_rate(recipe, 1.0, 0, 100) == pytest.approx(0.5)
    # (1 + cos 9 deg) / 2
    assert learning_rate(recipe, 1.0, 5, 100) == pytest.approx(0.75 * 0.993844, abs=1e-6)
    assert learning_rate(recipe, 1.0, 50, 100) == pytest.approx(0.5)


def test_coco_2x_by_hand():
    """117,266 images, 32 a step: 87,950 steps; warm-up of 500 from 0.00004; tenths at epochs 16 and
    22 of 24.
    """
    recipe = recipe_of("coco_r50_2x")
    steps = recipe.total_steps(117_266)
    assert steps == 87_950
    rate = {
        step: learning_rate(recipe, 0.04, step, steps)
        for step in (0, 250, 500, 58_632, 58_633, 80_620, 80_621, steps - 1)
    }
    assert rate[0] == pytest.approx(0.04 * 0.001)
    assert rate[250] == pytest.approx(0.04 * (0.001 + 0.999 / 2))
    assert rate[500] == rate[58_632] == pytest.approx(0.04)
    assert rate[58_633] == rate[80_620] == pytest.approx(0.004)
    assert rate[80_621] == rate[steps - 1] == pytest.approx(0.0004)


@pytest.mark.parametrize(
    ("name", "epochs", "drops"),
    [
        ("coco_r50_1x", 12, (8, 11)),
        ("coco_swin_t_1x", 12, (8, 11)),
        ("coco_r50_2x", 24, (16, 22)),
        ("coco_swin_t_2x", 24, (16, 22)),
        ("coco_swin_3x", 36, (27, 33)),
        ("coco_convnext_t_3x", 36, (27, 33)),
        ("cifar10", 150, (50, 100)),
        ("cifar10_step30", 150, (30, 60, 90, 120)),
        ("imagenet_augmix", 90, (30, 60)),
        ("imagenet_ant", 120, (60,)),
        ("imagenet_l2", 90, (30, 60)),
    ],
)
def test_step_is_torchs_multistep(name, epochs, drops):
    """With one step an epoch and no warm-up, the rates are those of torch's MultiStepLR."""
    recipe = recipe_of(name, warmup=0)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=recipe.lr)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(drops))
    expected = []
    for _ in range(epochs):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert recipe.total_steps(recipe.batch_size) == epochs == recipe.epochs
    assert rates(recipe, epochs) == pytest.approx(expected)


def test_vitdet_by_hand():
    """118,000 images, 64 a step: 184,375 steps in 100 epochs, tenths at 163,889 and 177,546, the
    same fractions of 75 epochs; warm-up of 250 from 0.0000001.
    """
    recipe = recipe_of("coco_vit_b_100ep")
    steps = recipe.total_steps(118_000)
    assert steps == 184_375
    rate = [learning_rate(recipe, 1e-4, step, steps) for step in (0, 250, 163_888, 163_889)]
    assert rate == pytest.approx([1e-7, 1e-4, 1e-4, 1e-5])
    assert learning_rate(recipe, 1e-4, 177_546, steps) == pytest.approx(1e-6)
    assert recipe_of("coco_vit_h_75ep").total_steps(118_000) == 138_282
    decays = {n: (recipe_of(n).layer_decay, recipe_of(n).drop_path) for n in RECIPES if "vit" in n}
    assert decays == {
        "coco_vit_b_100ep": (0.7, 0.1),
        "coco_vit_l_100ep": (0.8, 0.4),
        "coco_vit_h_75ep": (0.9, 0.5),
        "ade20k_vit_b_160k": (0.65, 0.1),
    }


def test_poly_by_hand():
    """mmcv: (base - min) (1 - t)^p + min.

    A quarter through with p = 1, and the released leak: 0 rises to min_lr.
    """
    swin = recipe_of("ade20k_swin_160k")
    assert learning_rate(swin, 6e-5, 40_000, 160_000) == pytest.approx(4.5e-5)
    assert learning_rate(swin, 6e-5, 750, 160_000) == pytest.approx(
        6e-5 * (1 - 750 / 160_000) * (1e-6 + 0.5 * (1 - 1e-6))
    )
    r50 = recipe_of("ade20k_r50_80k")
    assert learning_rate(r50, 0.01, 0, 80_000) == 0.01
    assert learning_rate(r50, 0.01, 40_000, 80_000) == pytest.approx(0.0099 * 0.5**0.9 + 1e-4)
    leak = rates(r50, 2000, base=0.0)
    assert leak[0] == 0
    assert leak == sorted(leak)
    # the mean that protocol.md measures
    assert sum(leak) / len(leak) == pytest.approx(4.7e-5, rel=0.01)
    assert sum(rates(r50, 2000)) / 2000 == pytest.approx(5.3e-3, rel=0.01)


def test_one_cycle_is_torchs():
    """PRIME on ImageNet: 0.0008 -> 0.02 -> 8e-8, momentum .95 -> .85 -> .95, step by step as
    torch's OneCycleLR.
    """
    recipe, steps = recipe_of("imagenet_prime"), 250
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.lr, total_steps=steps, pct_start=0.1
    )
    for step in range(steps):
        group = optimizer.param_groups[0]
        assert learning_rate(recipe, recipe.lr, step, steps) == pytest.approx(group["lr"], rel=1e-9)
        assert scheduled_momentum(recipe, step, steps) == pytest.approx(group["momentum"], rel=1e-9)
        optimizer.step()
        scheduler.step() if step < steps - 1 else None
    ends = [learning_rate(recipe, recipe.lr, step, steps) for step in (0, 24, steps - 1)]
    assert ends == pytest.approx([8e-4, 0.02, 8e-8])
    assert scheduled_momentum(recipe_of("cifar10"), 3, 10) is None


# The official codes and threads, as the cards of the techniques name them: lr, momentum, weight
# decay, batch, Nesterov, epochs, schedule, lowest rate, epochs at which the rate is divided by ten.
UPSTREAM = {
    "imagenet_augmix": (0.1, 0.9, 1e-4, 256, False, 90, "step", 0.0, (30, 60)),
    "imagenet_augmix_180": (0.1, 0.9, 1e-4, 256, True, 180, "cosine", 0.0, ()),
    "imagenet_deepaugment": (0.1, 0.9, 1e-4, 1024, True, 30, "cosine", 1e-6, ()),
    "imagenet_deepaugment_augmix": (0.1, 0.9, 1e-4, 256, True, 30, "cosine", 0.0, ()),
    "imagenet_ant": (1e-3, 0.9, 0.0, 70, False, 120, "step", 0.0, (60,)),
    "imagenet_prime": (0.02, 0.9, 1e-4, 512, True, 100, "one_cycle", 0.0, ()),
    "imagenet_l2": (0.1, 0.9, 1e-4, 512, False, 90, "step", 0.0, (30, 60)),
}


@pytest.mark.parametrize("name", UPSTREAM)
def test_upstream_recipes_are_the_official_ones(name):
    lr, momentum, decay, batch, nesterov, epochs, schedule, lowest, drops = UPSTREAM[name]
    recipe = recipe_of(name)
    assert (recipe.lr, recipe.momentum, recipe.weight_decay) == (lr, momentum, decay)
    assert (recipe.batch_size, recipe.reference_batch) == (batch, batch)
    assert (recipe.optimizer, recipe.nesterov, recipe.schedule, recipe.min_lr) == (
        "sgd",
        nesterov,
        schedule,
        lowest,
    )
    assert recipe.epochs == epochs
    # Everything trains at one rate, BatchNorm's statistics too; no warm-up, no clipping.
    assert (
        recipe.backbone_lr_factor,
        recipe.warmup,
        recipe.clip,
        recipe.norm_eval,
        recipe.frozen,
    ) == (1, 0, None, False, ())
    if schedule == "step":
        assert [round(fraction * epochs) for fraction in recipe.milestones] == list(drops)


@pytest.mark.parametrize(
    "name", [name for name, recipe in UPSTREAM.items() if recipe[6] == "cosine"]
)
def test_cosine_is_torchs(name):
    """Step by step as CosineAnnealingLR over the whole training, which the official scripts write
    as a LambdaLR.
    """
    recipe, steps = recipe_of(name), 200
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=recipe.min_lr)
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates(recipe, steps) == pytest.approx(expected, rel=1e-6)


def test_every_recipe_has_a_source_and_ends_lower_than_it_starts():
    for name, recipe in RECIPES.items():
        assert recipe.source, name
        values = rates(recipe, 1000)
        assert all(value >= 0 for value in values), name
        assert values[-1] < max(values), name
    assert all(rates_[0] == RECIPES[name].lr for name, rates_ in FIGURE_5_RATES.items())


def test_scaling_is_said_never_silent():
    with pytest.raises(
        UserError, match=r"scale_lr: true to train at 0\.01, or scale_lr: false to keep 0\.04"
    ):
        recipe_of("coco_r50_2x", batch_size=8)
    assert recipe_of("coco_r50_2x", batch_size=8, scale_lr=True).rate_factor() == 0.25
    assert recipe_of("coco_r50_2x", batch_size=8, scale_lr=False).rate_factor() == 1
    assert recipe_of("coco_r50_2x").rate_factor() == 1
    assert recipe_of(batch_size=8).rate_factor() == 1  # a recipe without a published batch


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({"stepz": 3}, "Did you mean: steps"),
        ({"lr": "1e-4"}, "Expected float for lr"),
        ({"steps": 2.5}, "Expected int for steps"),
        ({"steps": True}, "Expected int for steps"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"lr": float("nan")}, "lr of a recipe as float, finite"),
        ({"schedule": "cosin"}, "Did you mean: cosine"),
        ({"schedule": "one_cycle"}, "warms up by itself"),
        ({"precision": "fp16"}, "Available: 16-mixed, 32-true, bf16-mixed"),
        ({"settings": 3}, "Expected Mapping"),
    ],
)
def test_wrong_recipes(differences, message):
    with pytest.raises(UserError, match=message):
        recipe_of("small", **differences)
    with pytest.raises(UserError, match="Did you mean: coco_r50_2x"):
        recipe_of("coco_r50_2")


def test_steps_that_are_given_are_meant():
    assert recipe_of("coco_r50_1x", steps=20).total_steps(1000) == 20
    # 150 epochs of 50,000 images, 64 a step
    assert recipe_of("cifar10").total_steps(50_000) == 117_188


@pytest.mark.parametrize(
    "change",
    [
        {"clip": math.inf},
        {"betas": [0.9]},
        {"betas": [0.9, 1.0]},
        {"momentum": 0.0, "nesterov": True},
        {"momentum": -1.0},
        {"accelerator": "tpuu"},
        {"epochs": math.inf},
        {"milestones": ["a"]},
        {"lr": datetime.date(2024, 2, 3)},
        {"min_lr": math.nan},
        {"drop_path": 2.0},
        {"layer_decay": 0.0},
        {"layer_decay": 1.5},
        {"layer_unit": "blocks"},
        {"no_decay": [1]},
    ],
)
def test_values_that_cannot_be_are_refused_before_anything_is_trained(change):
    with pytest.raises(UserError, match=next(iter(change))) as caught:
        recipe_of("small", **change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"crop_scale": ["a", "b"]}, {"mean": ["a", "b", "c"]}, {"crop_scale": [0.5]}, {"crop": 1.5}],
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(UserError, match=f"setting {next(iter(settings))} .* expects"):
        make_task("classification", settings)


def test_weights_that_are_no_numbers_are_refused():
    model = nn.Linear(2, 2)
    with pytest.raises(UserError, match="finite weights in x, but NaN or infinity is in weight"):
        load_strictly(model, {"weight": torch.full((2, 2), math.nan), "bias": torch.zeros(2)}, "x")
