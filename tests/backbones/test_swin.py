"""Our Swin is the official one, bit by bit: in the dense-task variant at every size, and as a
classifier.
"""

from dataclasses import replace

import pytest
import torch
from torchvision.models import swin_t

from stillrobust.backbones import build_backbone
from stillrobust.backbones.swin import SHAPES, build_swin
from tests import official_swin

SIZES = [(224, 224), (448, 672), (480, 640), (333, 500), (512, 683), (63, 250)]


def to_torchvision(state):
    """Written for this test alone, key by key, and not with the code under test."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "patch_embed":
            parts = ["features", "0", {"proj": "0", "norm": "2"}[parts[1]], *parts[2:]]
        elif parts[0] == "layers":
            place = str(2 * int(parts[1]) + (1 if parts[2] == "blocks" else 2))
            rest = (
                parts[3:]
                if parts[2] == "downsample"
                else [{"fc1": "0", "fc2": "3"}.get(part, part) for part in parts[3:]]
            )
            parts = ["features", place, *rest]
        if "attn_mask" not in parts:
            renamed[".".join(parts)] = (
                value.flatten() if parts[-1] == "relative_position_index" else value
            )
    return renamed


def pair(name):
    shape = SHAPES[name]
    arguments = (shape.depths, shape.heads, shape.window)
    state = official_swin.random_state(shape.embed, *arguments)
    backbone = build_swin(name).eval()
    backbone.model.load_state_dict(to_torchvision(state))
    return backbone, state, arguments


def same_maps(backbone, state, arguments, size, batch=1):
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours, official = backbone.maps_of(images), official_swin.dense(state, images, *arguments)
    assert [tuple(x.shape[1:]) for x in ours] == [
        (channels, -(-size[0] // stride), -(-size[1] // stride))
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert all(torch.equal(x, y) for x, y in zip(ours, official, strict=True)), size


def test_dense_maps_equal_the_official_ones_bit_by_bit():
    """At 224 too, where the classifier leaves the last stage unshifted, and on maps narrower than a
    window.
    """
    made = pair("swin_t")
    for size in SIZES:
        same_maps(*made, size)
    same_maps(*made, (224, 224), batch=2)


def test_other_windows_and_widths(monkeypatch):
    monkeypatch.setitem(SHAPES, "window_12", replace(SHAPES["swin_mini"], window=12))
    for name, sizes in (
        ("swin_mini", [(64, 64), (34, 75)]),
        ("window_12", [(224, 224), (384, 384), (512, 640)]),
    ):
        made = pair(name)
        for size in sizes:
            same_maps(*made, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_s", "swin_b", "swin_b_384"])
def test_the_large_ones_too(name):
    same_maps(*pair(name), (480, 638))


def test_classifier_is_torchvisions_and_the_official_one():
    backbone, state, arguments = pair("swin_t")
    reference = swin_t().eval()
    reference.load_state_dict(backbone.model.state_dict())
    backbone.set_preprocessing((0.5,), (0.25,))
    images = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        logits = backbone.classify(images)
        assert torch.equal(logits, reference((images - 0.5) / 0.25))
        assert torch.allclose(
            logits,
            official_swin.classify(state, (images - 0.5) / 0.25, *arguments),
            rtol=1e-5,
            atol=1e-4,
        )
        assert torch.equal(backbone.model.head(backbone.embed(images)), logits)


@pytest.mark.parametrize(
    ("name", "trunk"),
    [
        ("swin_t", 27_517_818),
        ("swin_s", 48_835_722),
        ("swin_b", 86_741_176),
        ("resnet50", 23_508_032),
    ],
)
def test_published_parameter_counts(name, trunk):
    """Trunks of protocol 2.5; a dense task adds a Swin's four output norms, and no classifier."""
    with torch.device("meta"):  # shapes are all that is counted
        backbone = build_backbone(f"{name}(weights='random')")[0]
        backbone.keep_only("maps")
    norms = 2 * sum(backbone.channels) if name.startswith("swin") else 0
    assert sum(parameter.numel() for parameter in backbone.parameters()) == trunk + norms


def test_drop_path_rises_linearly():
    """Official: linspace(0, rate, 12) over Swin-T's 12 blocks."""
    backbone = build_swin("swin_t")
    backbone.set_drop_path(0.22)
    rates = [
        module.p for name, module in backbone.named_modules() if name.endswith("stochastic_depth")
    ]
    assert rates == pytest.approx([0.02 * place for place in range(12)])


def test_frozen_output_norms_stay_at_identity():
    backbone = build_swin("swin_mini")
    backbone.freeze()
    backbone.train()
    assert all(
        (norm.weight == 1).all() and (norm.bias == 0).all() for norm in backbone.output_norms
    )
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    images = torch.rand(2, 3, 40, 64)
    # no drop path either
    assert all(torch.equal(x, y) for x, y in zip(backbone(images), backbone(images), strict=True))
