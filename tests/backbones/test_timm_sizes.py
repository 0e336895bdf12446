"""Images of any size in timm's architectures: contracts over the families, positions, refusals."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from stillrobust.backbones import build_backbone
from stillrobust.errors import UserError
from stillrobust.tasks import make_task
from tests.backbones.timm_families import FAMILIES, HEADS, built, check_maps, check_step, row
from tests.toys import SETTINGS, Toys

# Members that are small, one of each way to take images, and the heads to try on each.
MEMBERS = {
    "test_vit": tuple(HEADS),  # positions, class token
    "vit_tiny_patch16_dinov3_qkvb": ("UPerNet",),  # rotary positions, registers
    "test_convnext": ("Mask R-CNN",),  # padded to whole strides
    "mobilenetv3_small_050": ("UPerNet",),
    "pvt_v2_b0": ("Mask R-CNN",),
    "test_maxvit": ("classification", "linear head"),  # padded to whole windows
    "xcit_nano_12_p16_224": ("linear head",),
    "shvit_s1": ("Mask R-CNN",),  # no maps of stride 4 and 8
    "vit_small_patch14_reg4_dinov2": ("Mask R-CNN",),  # patches of 14, registers
    "hiera_tiny_224": ("Mask R-CNN",),
}
ROWS = Path(__file__).parents[2] / "docs" / "reference" / "timm_families.md"


def test_the_list_has_every_family_of_timm():
    assert sorted(FAMILIES) == sorted(timm.models.list_modules())
    for family, name in FAMILIES.items():
        assert name in timm.list_models(module=family)


def test_the_table_of_the_documentation_has_every_family():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", ROWS.read_text(), re.MULTILINE)
    assert dict(rows) == FAMILIES


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_works_in_every_task_or_is_refused(family):
    """As the documentation says, frozen and in full."""
    assert row(family) in ROWS.read_text()


@pytest.mark.parametrize("name", MEMBERS)
def test_small_members_work_in_every_task(name):
    backbone = built(name)
    check_maps(backbone)
    for head in MEMBERS[name]:
        for frozen in (True, False):
            check_step(copy.deepcopy(backbone), head, frozen)


@pytest.mark.parametrize("name", ["test_vit", "test_maxvit", "test_convnext"])
def test_maps_at_the_size_of_the_pretraining_are_timms_own(name):
    """And the logits. The maps of a ViT of 6 blocks come from blocks 1, 2, 3 and 5."""
    backbone = built(name).eval()
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    images = torch.rand(2, 3, *model.pretrained_cfg["input_size"][1:])
    x = backbone.normalize(images)
    indices = [1, 2, 3, 5] if name == "test_vit" else 4
    with torch.no_grad():
        maps = model.forward_intermediates(x, indices=indices, intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(backbone(images), maps, strict=True))
        assert torch.equal(backbone.classify(images), model(x))


@pytest.mark.parametrize(
    ("depth", "blocks"), [(12, [3, 5, 7, 11]), (24, [7, 11, 15, 23]), (32, [10, 15, 20, 31])]
)
def test_the_blocks_of_a_plain_vit_are_mmsegmentations(depth, blocks):
    from stillrobust.backbones.timm_models import _map_indices

    assert _map_indices([16] * depth) == blocks
    assert _map_indices([2, 4, 8, 16, 32, 64]) == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_reg4_dinov2", "hiera_tiny_224"])
def test_positions_are_those_of_a_second_implementation(name):
    """Pillow's bicubic filter on float images: antialiased, half-pixel centres. Tokens keep theirs.

    DINOv2 with registers interpolates so too (interpolate_antialias, offset 0).
    """
    model = built(name).model.eval()
    with torch.no_grad():
        model.pos_embed.normal_(generator=torch.Generator().manual_seed(0))
    prefix = 1 if name == "test_vit" else 0  # DINOv2's registers have no positions in timm
    table = model.pos_embed[0, prefix:]
    side = round(len(table) ** 0.5)
    grid = table.detach().reshape(side, side, -1).numpy()
    for height, width in ((7, 11), (side + 5, 2 * side)):
        if name.startswith("hiera"):
            height, width = 8 * height, 8 * width
            model.set_image_size((4 * height, 4 * width))
            added = model._pos_embed(torch.zeros(1, height * width, grid.shape[-1]))[0]
        else:
            patches = torch.zeros(1, height, width, grid.shape[-1])
            added = model._pos_embed(patches)[0, model.num_prefix_tokens :]
        for channel in (0, 5):
            picture = Image.fromarray(np.ascontiguousarray(grid[..., channel]))
            expected = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
            values = added[:, channel].detach().reshape(height, width).numpy()
            np.testing.assert_allclose(values, expected, atol=2e-5)


def test_padding_is_zero_after_the_normalization_and_cut_from_the_maps():
    """A ViT sees what timm's dynamic_img_pad makes of the normalized image."""
    backbone = built("test_vit").eval()
    torch.manual_seed(0)
    padding = timm.create_model("test_vit", dynamic_img_size=True, dynamic_img_pad=True).eval()
    images = torch.rand(1, 3, 75, 101)
    with torch.no_grad():
        maps = padding.forward_intermediates(
            backbone.normalize(images), indices=[1, 2, 3, 5], intermediates_only=True
        )
        for ours, theirs in zip(backbone(images), maps, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gmlp_ti16_224", r"computes images of 224 × 224 only, but images of any size are needed"),
        ("crossvit_tiny_240", r"240 × 240 only, .*take vit_small_patch16_224"),  # timm resizes
        ("inception_v3", r"leave out its border .*; take resnet50"),
    ],
)
def test_what_cannot_take_any_size_is_refused_when_it_is_named(name, message, task):
    with pytest.raises(UserError, match=message) as caught:
        make_task(task, SETTINGS[task]).build_model(built(name), Toys(task).info)
    assert "\n" not in str(caught.value)


def test_a_model_of_one_size_classifies_at_that_size():
    task, info = (
        make_task("classification", SETTINGS["classification"]),
        Toys("classification").info,
    )
    with pytest.raises(UserError, match=r"but 64 × 64 are needed; .*resize=224, crop=224"):
        task.build_model(built("gmlp_ti16_224"), info)
    with pytest.raises(UserError, match=r"224 × 224 only, but 64 × 96 are needed"):
        built("gmlp_ti16_224").embed(torch.rand(1, 3, 64, 96))
    with pytest.raises(UserError, match=r"cannot compute images of 64 × 64; take larger ones"):
        task.build_model(built("inception_v3"), info)
    check_step(built("gmlp_ti16_224"), "classification", frozen=True)


def test_drop_path_rises_over_the_blocks():
    for name, places in (("test_vit", 6), ("test_convnext", 9), ("resnet18", 8)):
        backbone = built(name)
        backbone.set_drop_path(0.4)
        rates = [
            module.drop_prob for module in backbone.modules() if type(module).__name__ == "DropPath"
        ]
        assert sorted(set(rates)) == pytest.approx(
            [0.4 * place / (places - 1) for place in range(1, places)]
        )
    with pytest.raises(UserError, match="no drop path"):
        build_backbone("resnet_mini(weights='random')")[0].set_drop_path(0.1)
