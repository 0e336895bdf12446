"""The released code's fixed-feature: exactly the tensors that its leaks change, and no others
(protocol.md 1.6).
"""

import dataclasses

import pytest
import torch

from stillrobust.backbones import build_backbone, resolve_backbone
from stillrobust.samples import DatasetInfo
from stillrobust.tasks.recipes import recipe_of
from stillrobust.training import Plan, identity, load_model, train
from stillrobust.training.loop import build_model
from stillrobust.training.optimizer import parameter_groups
from tests.toys import SETTINGS, Toys


def changed(task, backbone, recipe, folder, transfer="released_freeze"):
    """Names of the backbone's tensors that training changed, and of all."""
    recipe = recipe_of(recipe, steps=4, batch_size=4, scale_lr=False, precision="32-true", warmup=0)
    settings = {**recipe.settings, **SETTINGS[task]}
    if "train_sizes" in settings:
        settings |= {"train_sizes": (64,), "crop_sizes": ()}
    plan = Plan(task, f"{backbone}(weights='random')", transfer, recipe, settings)
    train(plan, Toys(task), folder)
    after = load_model(folder)[1]
    torch.manual_seed(0)
    start = build_backbone(f"{backbone}(weights='random')")[0].state_dict()
    own = next(module for module in after.modules() if hasattr(module, "keep_only")).state_dict()
    return {name for name in own if not torch.equal(own[name], start[name])}, set(own)


def test_coco_resnet_is_truly_fixed(tmp_path):
    """norm_eval holds the statistics, the step schedule leaves a rate of 0 at 0."""
    assert changed("detection", "resnet_mini", "coco_r50_2x", tmp_path)[0] == set()


def test_ade20k_resnet_drifts_and_trains(tmp_path):
    """poly lifts the backbone's rate from 0 towards min_lr, and BatchNorm sees ADE20K's crops:
    nothing stays.
    """
    found, every = changed("segmentation", "resnet_mini", "ade20k_r50_80k", tmp_path)
    assert found == every
    statistics = {name for name in every if "running" in name or "num_batches" in name}
    assert statistics < found


@pytest.mark.parametrize(
    ("task", "recipe"), [("detection", "coco_swin_t_2x"), ("segmentation", "ade20k_swin_t_80k")]
)
def test_swin_trains_its_bias_tables_alone(task, recipe, tmp_path):
    """mmcv lets the longest name decide: 'relative_position_bias_table' before 'backbone'.

    The five tables of swin_mini.
    """
    found, every = changed(task, "swin_mini", recipe, tmp_path)
    assert found == {name for name in every if name.endswith("relative_position_bias_table")}
    assert len(found) == 5


def test_true_freezing_beside_it(tmp_path):
    assert (
        changed("segmentation", "swin_mini", "ade20k_swin_t_80k", tmp_path, "fixed_feature")[0]
        == set()
    )


def test_the_leaks_size_and_droppath():
    """12 tables of 23,322 parameters in Swin-T at the head's rate, without decay; DropPath stays
    active.
    """
    info = DatasetInfo("ade20k", "segmentation", tuple(map(str, range(150))), 1, "")
    plan = Plan(
        "segmentation",
        "swin_t(weights='random')",
        "released_freeze",
        recipe_of("ade20k_swin_t_80k"),
    )
    model, _ = build_model(plan, resolve_backbone(plan.backbone), info)
    groups = parameter_groups(plan.recipe, plan.transfer, model)
    body = [
        (group, name, parameter)
        for group in groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        if name.startswith("backbone.")
    ]
    leaks = [(group, parameter) for group, name, parameter in body if group["base_lr"] > 0]
    assert sum(parameter.numel() for _, parameter in leaks) == 23_322
    assert len(leaks) == 12
    assert {group["base_lr"] for group, _ in leaks} == {6e-5}
    assert {group["weight_decay"] for group, _, _ in body} == {0.0}
    model.train()
    rates = [module.p for module in model.modules() if type(module).__name__ == "StochasticDepth"]
    assert rates[-1] == pytest.approx(0.3)
    assert rates[0] == 0
    assert all(
        module.training for module in model.modules() if type(module).__name__ == "StochasticDepth"
    )


def test_no_decay_in_full_network():
    """Bias tables and every LayerNorm (the patch embedding's too, which torchvision does not call
    norm) do not decay.
    """
    info = DatasetInfo("ade20k", "segmentation", tuple(map(str, range(150))), 1, "")
    plan = Plan(
        "segmentation", "swin_t(weights='random')", "full_network", recipe_of("ade20k_swin_160k")
    )
    model, _ = build_model(plan, resolve_backbone(plan.backbone), info)
    decays = {
        name: group["weight_decay"]
        for group in parameter_groups(plan.recipe, plan.transfer, model)
        for name in group["names"]
    }
    assert {group["base_lr"] for group in parameter_groups(plan.recipe, plan.transfer, model)} == {
        6e-5
    }
    spared = {name for name, decay in decays.items() if decay == 0}
    norms = {
        f"{name}.{kind}"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
        for kind in ("weight", "bias")
    }
    tables = {name for name in decays if name.endswith("relative_position_bias_table")}
    assert spared == norms | tables
    assert len(tables) == 12
    assert decays["decode_head.fpn_bottleneck.bn.weight"] == 0.01  # 'bn' is not 'norm'


def test_identity_says_which_freeze():
    info = Toys("segmentation").info
    plan = Plan("segmentation", "resnet_mini(weights='random')", "released_freeze", recipe_of())
    frozen = dataclasses.replace(plan, transfer="fixed_feature")
    backbone = resolve_backbone(plan.backbone)
    assert identity(plan, backbone, info)["transfer"] == "released_freeze"
    assert identity(plan, backbone, info) != identity(frozen, backbone, info)
