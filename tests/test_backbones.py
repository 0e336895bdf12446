import pickle
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import save_file

from stillrobust.backbones import CHECKPOINTS, build_backbone
from stillrobust.backbones.reader import read_state
from stillrobust.errors import UserError

NAMES = ["efficientnet_lite0", "timm/resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "mobilenetv3_small_100"]
NAMES += ["resnet18", "resnet_mini", "swin_mini"]


@pytest.mark.parametrize("name", NAMES)
def test_promise(name):
    """Channels and strides as announced, on a size that is no multiple of 224; frozen means no gradient and eval."""
    backbone, said = build_backbone(f"{name}(weights='random')")
    assert "random" in said
    maps = backbone.eval()(torch.rand(2, 3, 128, 192))
    sizes = [tuple(x.shape) for x in maps]
    assert sizes == [(2, c, 128 // s, 192 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)]
    assert backbone.embed(torch.rand(2, 3, 128, 192)).shape == (2, backbone.embed_dim)
    backbone.freeze()
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    assert not backbone(torch.rand(1, 3, 64, 64))[0].requires_grad


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_real_weights_classify(name):
    """The cat of scikit-image is a cat: ImageNet classes 281 to 285."""
    folder = Path(next(iter(find_spec("skimage").submodule_search_locations)))
    image = cv2.imread(str(folder / "data" / "chelsea.png"))[:, 75:375, ::-1]
    image = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
    backbone, said = build_backbone(name)
    assert f"{len(backbone.model.state_dict())} tensors" in said
    with torch.inference_mode():
        logits = backbone.eval().classify(torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255)
    assert 281 <= int(logits.argmax()) <= 285


def test_strict_loading(tmp_path):
    state = build_backbone("resnet18(weights='random')")[0].model.state_dict()
    trunk = {f"module.{key}": value.clone() for key, value in state.items() if not key.startswith("fc.")}
    save_file(trunk, tmp_path / "trunk.safetensors")
    loaded, said = build_backbone(f"resnet18(weights='{tmp_path}/trunk.safetensors')")
    assert torch.equal(loaded.model.state_dict()["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    assert f"{len(trunk)} tensors" in said
    trunk.pop("module.layer2.0.conv1.weight")
    save_file(trunk, tmp_path / "trunk.safetensors")
    with pytest.raises(UserError, match=r"1 missing \(layer2\.0\.conv1\.weight\)"):
        build_backbone(f"resnet18(weights='{tmp_path}/trunk.safetensors')")


class Hostile:
    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_a_file_never_runs_code(tmp_path):
    bomb = Hostile()
    bomb.path = str(tmp_path / "ran")
    for name, writer in (("a.pth", lambda f: torch.save({"x": bomb}, f)), ("b.pkl", lambda f: pickle.dump(bomb, f))):
        with (tmp_path / name).open("wb") as file:
            writer(file)
        with pytest.raises(UserError, match="cannot be read safely"):
            read_state(tmp_path / name)
    (tmp_path / "c.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match="cannot be read safely"):
        read_state(tmp_path / "c.safetensors")
    assert not (tmp_path / "ran").exists()


def test_wrong_names():
    with pytest.raises(UserError, match=r"Unknown backbone 'resnet5O'\. Did you mean: .*resnet50"):
        build_backbone("resnet5O")
    with pytest.raises(UserError, match="there is none"):
        build_backbone("resnet18(weights='nowhere.pth')")
    with pytest.raises(UserError, match="only"):
        build_backbone("resnet18(depth=3)")


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
        assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []
