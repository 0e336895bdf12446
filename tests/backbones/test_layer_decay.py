"""Layer decay by hand, and against the rates in the tests of OpenMMLab and detectron2's formula."""

import pytest
import torch

from stillrobust.backbones import build_backbone, layer_rates
from stillrobust.backbones.layer_decay import layers_of
from stillrobust.errors import UserError
from stillrobust.tasks import make_task
from stillrobust.tasks.recipes import recipe_of
from stillrobust.training.optimizer import make_optimizer, parameter_groups, set_learning_rates
from tests.toys import SETTINGS, Toys


def built(name):
    with torch.device("meta"):
        return build_backbone(f"{name}(weights='random')")[0]


def test_a_vit_has_detectrons_rates():
    """ViTDet-B: 0.7^(13 - id), id 0 for patches and positions, k + 1 for block k, 13 for others."""
    rates = layer_rates(built("vit_base_patch16_224"), 0.7)
    assert rates["model.patch_embed.proj.weight"] == rates["model.pos_embed"] == 0.7**13
    assert rates["model.cls_token"] == 0.7**13
    assert rates["model.blocks.0.attn.qkv.weight"] == 0.7**12
    assert rates["model.blocks.11.mlp.fc2.bias"] == 0.7
    assert rates["model.norm.weight"] == rates["model.head.weight"] == 1


def test_registers_are_in_the_stem():
    rates = layer_rates(built("vit_small_patch14_reg4_dinov2"), 0.9)
    assert rates["model.reg_token"] == rates["model.cls_token"] == 0.9**13


# By name for ConvNeXt-T: (by blocks, by stages), exponents of the decay. The stage-wise ones are
# those of mmsegmentation's test, whose lr_scale is 2^exponent.
CONVNEXT = {
    "stem.0.weight": (7, 7),
    "stages.0.blocks.2.conv_dw.weight": (6, 6),
    "stages.1.downsample.1.weight": (5, 7),
    "stages.1.blocks.0.conv_dw.weight": (5, 5),
    "stages.2.downsample.1.weight": (4, 7),
    "stages.2.blocks.2.conv_dw.weight": (4, 4),
    "stages.2.blocks.3.conv_dw.weight": (3, 4),
    "stages.2.blocks.8.mlp.fc1.weight": (2, 4),
    "stages.3.downsample.1.weight": (1, 7),
    "stages.3.blocks.2.gamma": (1, 3),
    "head.fc.weight": (0, 0),
}


@pytest.mark.parametrize(("place", "unit"), [(0, "block"), (1, "stage")])
def test_a_convnext_has_its_authors_rates(place, unit):
    rates = layer_rates(built("convnext_tiny"), 0.5, unit)
    assert {n: rates[f"model.{n}"] for n in CONVNEXT} == {
        n: 0.5 ** exponents[place] for n, exponents in CONVNEXT.items()
    }


def test_the_long_stage_of_a_larger_convnext_has_nine_groups():
    assert layers_of(built("convnext_base"))[1] == 13
    rates = layer_rates(built("convnext_base"), 0.5)
    assert rates["model.stages.2.blocks.26.conv_dw.weight"] == 0.5**2
    assert rates["model.stem.0.weight"] == 0.5**13


def test_a_swin_has_simmims_rates():
    """Blocks 2, 2, 6, 2: a merging belongs to the last block before it."""
    layers, count = layers_of(built("swin_t"))
    assert count == 13
    assert layers["features.0.0.weight"] == 0
    assert layers["features.1.0.attn.qkv.weight"] == 1
    assert layers["features.2.reduction.weight"] == layers["features.1.1.norm1.weight"] == 2
    assert layers["features.7.1.mlp.3.bias"] == 12
    assert "norm.weight" not in layers
    rates = layer_rates(built("swin_t"), 0.5, "stage")
    assert rates["model.features.1.0.attn.qkv.weight"] == 0.5**4
    assert rates["output_norms.3.weight"] == 1


def test_a_resnet_and_a_pvt():
    rates = layer_rates(built("resnet50"), 0.5, "stage")
    assert rates["model.conv1.weight"] == rates["model.bn1.bias"] == 0.5**5
    assert rates["model.layer1.0.conv1.weight"] == 0.5**4
    assert rates["model.layer4.2.bn3.weight"] == 0.5
    assert layers_of(built("resnet50"))[1] == 17
    layers, count = layers_of(built("pvt_v2_b0"))
    assert layers["patch_embed.proj.weight"] == 0
    assert (
        layers["stages.0.blocks.0.attn.q.weight"]
        < layers["stages.3.blocks.1.attn.q.weight"]
        < count
    )


def test_what_has_no_layers_is_refused():
    with pytest.raises(UserError, match=r"vit_tiny_patch16_224 has no stages .*layer_decay: 1\.0"):
        layer_rates(built("vit_tiny_patch16_224"), 0.9, "stage")


def model_of(name, task="segmentation"):
    torch.manual_seed(0)
    backbone = build_backbone(f"{name}(weights='random')")[0]
    return make_task(task, SETTINGS[task]).build_model(backbone, Toys(task).info)


@pytest.mark.parametrize(
    "name", ["test_vit", "swin_mini", "resnet_mini", "test_convnext", "hiera_tiny_224"]
)
def test_every_trainable_parameter_is_in_one_group(name):
    model = model_of(name)
    recipe = recipe_of("small", layer_decay=0.7, no_decay=["norm"], backbone_lr_factor=0.5)
    groups = parameter_groups(recipe, "full_network", model)
    names = [n for group in groups for n in group["names"]]
    assert sorted(names) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for p in model.parameters()
    }
    rates = {n: group["base_lr"] for group in groups for n in group["names"]}
    backbone_rates = {f"backbone.{n}": r for n, r in layer_rates(model.backbone, 0.7).items()}
    for n, rate in rates.items():
        expected = 0.5 * backbone_rates[n] if n in backbone_rates else 1.0
        assert rate == pytest.approx(recipe.lr * expected), n
    assert len(set(rates.values())) > 4


def step(recipe):
    """The weights of a small ViT after one step."""
    model = model_of("test_vit")
    optimizer = make_optimizer(recipe, "full_network", model)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model.train()(images)[0].square().mean().backward()
    set_learning_rates(optimizer, recipe, 500, 1000)
    optimizer.step()
    return model.state_dict()


def test_no_decay_of_layers_is_plain_training_bit_for_bit():
    plain, same, other = (
        step(recipe_of("small", **change))
        for change in ({}, {"layer_decay": 1.0, "layer_unit": "stage"}, {"layer_decay": 0.9})
    )
    assert all(torch.equal(plain[key], same[key]) for key in plain)
    assert not all(torch.equal(plain[key], other[key]) for key in plain)


def test_vectors_do_not_decay_where_a_recipe_says_so():
    """OpenMMLab's constructor: one dimension, positions and tokens have no weight decay."""
    groups = parameter_groups(recipe_of("ade20k_vit_b_160k"), "full_network", model_of("test_vit"))
    for group in groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            free = parameter.ndim == 1 or "pos_embed" in name or "token" in name
            assert group["weight_decay"] == (0 if free else 0.05), name
