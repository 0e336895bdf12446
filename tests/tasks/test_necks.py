"""Necks against transformers' modules and formulas; windows of attention against a loop."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from stillrobust.backbones import build_backbone
from stillrobust.errors import UserError
from stillrobust.samples import DatasetInfo, Sample, Target
from stillrobust.tasks import make_task
from stillrobust.tasks.necks import RescaledMaps, SimplePyramid, pyramid_strides
from stillrobust.tasks.upernet import LinearSegmenter, crop_to_image
from tests.toys import SETTINGS, Toys

GENERATOR = torch.Generator().manual_seed(0)


class Backbone(nn.Module):
    """The channels and strides of a backbone."""

    def __init__(self, strides, width=8):
        super().__init__()
        self.name, self.strides, self.channels = "mine", strides, (width,) * len(strides)


def randomize(module):
    module.load_state_dict(
        {
            name: torch.rand(value.shape, generator=GENERATOR) + 0.1
            for name, value in module.state_dict().items()
        }
    )
    return module.eval()


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        ((16, 16, 16, 16), (4, 8, 16, 32)),
        ((14, 14, 14, 14), (3.5, 7, 14, 28)),
        ((8, 8, 8, 8), (4, 8, 16, 32)),
        ((32, 32, 32, 32), (4, 8, 16, 32)),
        ((7, 14, 14, 14), (3.5, 7, 14, 28)),
        ((16, 32), (4, 8, 16, 32)),
        ((2, 4, 8, 16), (2, 4, 8, 16)),
    ],
)
def test_strides_of_the_levels(strides, expected):
    backbone = Backbone(strides)
    assert pyramid_strides(backbone) == expected
    if strides != expected:
        maps = [
            torch.rand(1, 8, 448 // stride, 224 // stride, generator=GENERATOR)
            for stride in strides
        ]
        sizes = [(int(448 / stride), int(224 / stride)) for stride in expected]
        assert [tuple(x.shape[2:]) for x in RescaledMaps(backbone)(maps)] == sizes


def test_strides_that_do_not_double_are_refused():
    with pytest.raises(UserError, match=r"strides double, but those of mine are \(12, 17\)"):
        RescaledMaps(Backbone((12, 17)))


def test_rescaled_maps_are_transformers_with_copied_weights():
    from transformers import BeitConfig
    from transformers.models.beit.modeling_beit import BeitFPNNeck

    ours = randomize(RescaledMaps(Backbone((16,) * 4)))
    theirs = BeitFPNNeck(BeitConfig(hidden_size=8)).eval()
    names = {"0.0": "fpn1.conv_transpose1", "0.1": "fpn1.normalization"}
    names |= {"0.3": "fpn1.conv_transpose2", "1.0": "fpn2"}
    state = ours.state_dict()
    theirs.load_state_dict(
        {
            f"{names[name.split('.', 1)[1].rsplit('.', 1)[0]]}.{name.rsplit('.', 1)[1]}": value
            for name, value in state.items()
        }
    )
    maps = [torch.randn(2, 8, 6, 4, generator=GENERATOR) for _ in range(4)]
    for one, other in zip(ours(maps), theirs(maps), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def layer_norm(x, weight, bias):
    """detectron2's channel-first LayerNorm: over the channels of each pixel, eps 1e-6."""
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    return weight[:, None, None] * scaled + bias[:, None, None]


def test_the_simple_pyramid_is_vitdets():
    """Level by level as detectron2 writes it, with copied weights."""
    neck = randomize(SimplePyramid(Backbone((16,) * 4, 16), 12))
    state = neck.state_dict()
    x = torch.randn(2, 16, 6, 5, generator=GENERATOR)

    def double(x, layer):
        return functional.conv_transpose2d(
            x, state[f"{layer}.weight"], state[f"{layer}.bias"], stride=2
        )

    def normed(x, layer):
        return layer_norm(x, state[f"{layer}.weight"], state[f"{layer}.bias"])

    first = functional.gelu(normed(double(x, "levels.0.0.0"), "levels.0.0.1"))
    inputs = [
        double(first, "levels.0.0.3"),
        double(x, "levels.1.0.0"),
        x,
        functional.max_pool2d(x, 2, 2, ceil_mode=True),
    ]
    assert [one.shape[1] for one in inputs] == [4, 8, 16, 16]
    found = neck([None, None, None, x])
    assert list(found) == ["0", "1", "2", "3", "pool"]
    for level, one in enumerate(inputs):
        one = normed(functional.conv2d(one, state[f"levels.{level}.1.weight"]), f"levels.{level}.2")
        one = functional.conv2d(one, state[f"levels.{level}.3.weight"], padding=1)
        torch.testing.assert_close(
            found[str(level)], normed(one, f"levels.{level}.4"), rtol=1e-4, atol=1e-4
        )
    assert torch.equal(found["pool"], found["3"][..., ::2, ::2])


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_parameters():
    """ViT-B: detectron2's pyramid has 2 ConvTransposes of 768 -> 384, one 384 -> 192, four of each
    convolution; mmsegmentation's neck three ConvTransposes of 768 -> 768.
    """
    with torch.device("meta"):
        backbone = build_backbone("vit_base_patch16_224(weights='random')")[0]
        pyramid, rescaled = SimplePyramid(backbone, 256), RescaledMaps(backbone)
        backbone.keep_only("maps")
    assert parameters(backbone) == 85_798_656 - 2 * 768  # timm's without head and last norm
    doubling = 2 * (768 * 384 * 4 + 384) + 384 * 192 * 4 + 192 + 2 * 384
    convolutions = 256 * (192 + 384 + 768 + 768) + 4 * (256 * 256 * 9 + 2 * 2 * 256)
    assert parameters(pyramid) == doubling + convolutions
    assert parameters(rescaled) == 3 * (768 * 768 * 4 + 768) + 2 * 768


def test_logits_of_whole_patches_are_cut_at_the_image():
    """37 patches of 14 cover 518 pixels: pixel x is at (x + 0.5) / 14 - 0.5, also at 512."""
    ramp = torch.arange(37.0).expand(1, 1, 37, 37)
    cut = crop_to_image(ramp, 14, (1, 3, 512, 500))
    assert cut.shape == (1, 1, 512, 500)
    x = torch.arange(500)
    expected = ((x + 0.5) / 14 - 0.5).clamp(0, 36)
    torch.testing.assert_close(cut[0, 0, 7], expected, rtol=0, atol=1e-4)
    assert crop_to_image(ramp, 16, (1, 3, 592, 592)) is ramp


def test_the_linear_head_is_dinov2s():
    """BatchNorm and a 1 x 1 convolution on the normed tokens of the last block, no other head."""
    torch.manual_seed(0)
    backbone = build_backbone("test_vit(weights='random')")[0]
    info = DatasetInfo("x", "segmentation", ("a", "b", "c"), 1, "")
    model = make_task("segmentation", {"head": "linear"}).build_model(backbone, info)
    assert isinstance(model, LinearSegmenter)
    images = torch.rand(2, 3, 64, 96, generator=GENERATOR)
    tokens = backbone.model.forward_features(backbone.normalize(images))[:, 1:]
    maps = tokens.unflatten(1, (4, 6)).permute(0, 3, 1, 2)
    mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3), unbiased=False)
    normed = (maps - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    expected = torch.einsum("bchw,kc->bkhw", normed, model.conv_seg.weight[:, :, 0, 0])
    expected = expected + model.conv_seg.bias[:, None, None]
    logits, auxiliary = model.train()(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert auxiliary is None
    assert parameters(model) - parameters(backbone) == 2 * 64 + 3 * 64 + 3
    with pytest.raises(UserError, match=r"Unknown head 'liner'\. Did you mean: linear"):
        make_task("segmentation", {"head": "liner"})


def windowed(attention, x, prefix, grid, side):
    """ViTDet's windows of one image by a loop: (1, prefix + h w, C) -> the same."""
    tokens = x[:, prefix:].unflatten(1, grid)
    output = torch.zeros_like(tokens)
    prefixes = []
    for top in range(0, grid[0], side):
        for left in range(0, grid[1], side):
            part = tokens[:, top : top + side, left : left + side]
            full = torch.zeros(1, side, side, x.shape[-1])
            full[:, : part.shape[1], : part.shape[2]] = part
            found = attention(torch.cat([x[:, :prefix], full.flatten(1, 2)], dim=1))
            prefixes.append(found[:, :prefix])
            part = found[:, prefix:].unflatten(1, (side, side))[:, : part.shape[1], : part.shape[2]]
            output[:, top : top + side, left : left + side] = part
    return torch.cat([torch.stack(prefixes).mean(0), output.flatten(1, 2)], dim=1)


def test_windows_of_attention_are_vitdets():
    """Blocks 1, 2, 3 and 5 of 6 stay global; windows of 3 on a map of 4 x 5 are padded."""
    torch.manual_seed(0)
    plain, restricted = (build_backbone("test_vit(weights='random')")[0].eval() for _ in "ab")
    restricted.load_state_dict(plain.state_dict())
    restricted.set_windows(3)
    images = torch.rand(1, 3, 64, 80, generator=GENERATOR)
    model, x = plain.model, plain.normalize(images)
    with torch.no_grad():
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(x)))
        expected = []
        for place, block in enumerate(model.blocks):
            inner = block.norm1(tokens)
            if place in (1, 2, 3, 5):  # the last of each quarter
                inner = block.attn(inner)
            else:
                inner = windowed(block.attn, inner, 1, (4, 5), 3)
            tokens = tokens + block.ls1(inner)
            tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
            expected.append(tokens[:, 1:].unflatten(1, (4, 5)).permute(0, 3, 1, 2))
        maps = restricted(images)
        for one, place in zip(maps, (1, 2, 3, 5), strict=True):
            torch.testing.assert_close(one, expected[place], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(maps[3], plain(images)[3], atol=1e-3)


def test_windows_are_for_plain_vits():
    task = make_task("detection", {**SETTINGS["detection"], "window": 14})
    task.build_model(build_backbone("test_vit(weights='random')")[0], Toys("detection").info)
    for name in ("resnet18", "vit_tiny_patch16_dinov3_qkvb", "test_convnext"):
        with pytest.raises(UserError, match=r"has no attention that window=14 could restrict"):
            task.build_model(build_backbone(f"{name}(weights='random')")[0], Toys("detection").info)


def test_large_scale_jitter_is_detectron2s():
    """Scales of 0.1 to 2 of the test's size, keeping the ratio; crops of at most that size."""
    task = make_task("detection", {"image_size": (100, 100), "scale_jitter": (0.1, 2.0)})
    image = np.zeros((50, 80, 3), np.uint8)
    target = Target(
        "a", (50, 80), boxes=np.array([[0.0, 0, 80, 50]], np.float32), labels=np.array([0])
    )
    sizes = [
        task.augment(Sample(image, target), np.random.default_rng(seed)).target.size
        for seed in range(40)
    ]
    widths = [width for _, width in sizes]
    assert max(widths) == 100
    assert min(widths) < 20
    for height, width in sizes:
        if width < 100:  # not cropped
            assert abs(height - width * 50 / 80) <= 1
        assert height <= 100
