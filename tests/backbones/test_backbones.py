from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import save_file

from stillrobust.backbones import build_backbone, missing_weights, resolve_backbone
from stillrobust.errors import UserError

NAMES = [
    "efficientnet_lite0",
    "timm/resnet18",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "mobilenetv3_small_100",
]
NAMES += ["resnet18", "resnet_mini", "swin_mini"]


@pytest.mark.parametrize("name", NAMES)
def test_promise(name):
    """Channels and strides as announced, on a size that is no multiple of 224; frozen means no
    gradient and eval.
    """
    backbone, said = build_backbone(f"{name}(weights='random')")
    assert "random" in said
    maps = backbone.eval()(torch.rand(2, 3, 128, 192))
    sizes = [tuple(x.shape) for x in maps]
    assert sizes == [
        (2, c, 128 // s, 192 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert backbone.embed(torch.rand(2, 3, 128, 192)).shape == (2, backbone.embed_dim)
    backbone.freeze()
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    assert not backbone(torch.rand(1, 3, 64, 64))[0].requires_grad


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_real_weights_classify(name):
    """The cat of scikit-image is a cat: ImageNet classes 281 to 285."""
    folder = Path(next(iter(find_spec("skimage").submodule_search_locations)))
    image = cv2.imread(str(folder / "data" / "chelsea.png"))[:, 75:375, ::-1]
    image = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
    backbone, said = build_backbone(name)
    assert f"{len(backbone.model.state_dict())} tensors" in said
    with torch.inference_mode():
        logits = backbone.eval().classify(
            torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
        )
    assert 281 <= int(logits.argmax()) <= 285


def test_strict_loading(tmp_path):
    state = build_backbone("resnet18(weights='random')")[0].model.state_dict()
    trunk = {
        f"module.{key}": value.clone() for key, value in state.items() if not key.startswith("fc.")
    }
    save_file(trunk, tmp_path / "trunk.safetensors")
    loaded, said = build_backbone(f"resnet18(weights='{tmp_path}/trunk.safetensors')")
    assert torch.equal(
        loaded.model.state_dict()["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"]
    )
    assert f"{len(trunk)} tensors" in said
    trunk.pop("module.layer2.0.conv1.weight")
    save_file(trunk, tmp_path / "trunk.safetensors")
    with pytest.raises(UserError, match=r"1 missing \(model\.layer2\.0\.conv1\.weight\)"):
        build_backbone(f"resnet18(weights='{tmp_path}/trunk.safetensors')")


def test_wrong_names():
    with pytest.raises(UserError, match=r"Unknown backbone 'resnet5O'\. Did you mean: .*resnet50"):
        build_backbone("resnet5O")
    with pytest.raises(UserError, match="there is nothing"):
        build_backbone("resnet18(weights='nowhere.pth')")
    with pytest.raises(UserError, match="only"):
        build_backbone("resnet18(depth=3)")
    with pytest.raises(UserError, match=r"Unknown weights of resnet50 'ants'\. Did you mean: ant"):
        build_backbone("resnet50(weights='ants')")
    with pytest.raises(
        UserError, match=r"No weights of swin_mini are published; use swin_mini\(weights='random'\)"
    ):
        build_backbone("swin_mini")


def test_weights_that_are_not_there_name_the_command(monkeypatch, tmp_path):
    """From whatever needs them, before anything is built."""
    monkeypatch.setenv("STILLROBUST_CACHE", str(tmp_path))
    for ask in (build_backbone, resolve_backbone):
        with pytest.raises(
            UserError, match=r"not here yet .*; run: stillrobust checkpoints fetch resnet50/ant$"
        ):
            ask("resnet50(weights='ant')")
    assert missing_weights("resnet50") == missing_weights("resnet50(weights='regular')")
    assert missing_weights("swin_b_384(weights='imagenet22k')").endswith(
        "run: stillrobust checkpoints fetch swin_b_384/imagenet22k"
    )
    assert (
        missing_weights("efficientnet_lite0") == missing_weights("swin_t(weights='random')") == ""
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_a_task_does_not_use_can_be_dropped(name):
    """Afterwards the outputs are the same and every parameter gets a gradient."""
    images = torch.rand(2, 3, 64, 64)
    for use, compute in (("maps", lambda b: b(images)), ("embedding", lambda b: [b.embed(images)])):
        backbone = build_backbone(f"{name}(weights='random')")[0].eval()
        before = compute(backbone)
        backbone.keep_only(use)
        after = compute(backbone)
        assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
        sum(x.square().sum() for x in after).backward()
        assert [
            key for key, parameter in backbone.named_parameters() if parameter.grad is None
        ] == []
