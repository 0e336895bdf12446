"""Files in every published container and key layout give the model they were written from; anything
else is named.
"""

import argparse
import json
from pathlib import Path

import dill
import pytest
import timm.models.swin_transformer
import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet50
from typer.testing import CliRunner

from stillrobust.backbones import (
    CHECKPOINTS,
    Checkpoint,
    build_backbone,
    resolve_backbone,
    write_folder,
)
from stillrobust.backbones.checkpoint_facts import WRAPPERS
from stillrobust.backbones.reader import read_weights
from stillrobust.backbones.swin import SHAPES
from stillrobust.backbones.weights import fetch_checkpoint, find_checkpoint, verify_checkpoint
from stillrobust.cli import app
from stillrobust.errors import UserError
from tests import official_swin

MINI = SHAPES["swin_mini"]
SWIN = (MINI.depths, MINI.heads, MINI.window)
IMAGES = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def random(name):
    """A backbone whose BatchNorm statistics are no longer the first ones, and its state under the
    model's own names.
    """
    backbone = build_backbone(f"{name}(weights='random')")[0].train()
    backbone.classify(IMAGES)
    return backbone.eval(), {
        key: value.clone() for key, value in backbone.model.state_dict().items()
    }


def loaded(name, path):
    return build_backbone(f"{name}(weights='{path}')")[0].eval()


def same(one, other):
    with torch.inference_mode():
        assert all(torch.equal(x, y) for x, y in zip(one(IMAGES), other(IMAGES), strict=True))
        assert torch.equal(one.classify(IMAGES), other.classify(IMAGES))


# ---- containers


def publish(state, row, path, **how):
    """A file as the row says the publisher wrote it, with what else such files hold."""
    state = {f"{row.prefix}{key}": value for key, value in state.items()}
    if row.prefix == "module.model.":  # MadryLab: the attacker holds the model once more
        state |= {f"module.attacker.model.{key}": value for key, value in state.items()}
        state |= {
            "module.normalizer.new_mean": torch.zeros(3, 1, 1),
            "module.normalizer.new_std": torch.ones(3, 1, 1),
        }
    content = state
    if row.container:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.1, momentum=0.9)
        content = {
            row.container: state,
            "epoch": 90,
            "arch": "resnet50",
            "best_acc1": torch.tensor(76.0),
        }
        content |= {
            "optimizer": optimizer.state_dict(),
            "args": argparse.Namespace(lr=0.1),
            "schedule": lambda epoch: 0.1**epoch,
        }
        how.setdefault("pickle_module", dill)
    torch.save(content, path, **how)


PLACES = {
    (row.container, row.prefix): row
    for row in CHECKPOINTS.values()
    if row.architecture == "resnet50"
}


@pytest.mark.parametrize("row", PLACES.values(), ids=lambda row: row.weights)
@pytest.mark.parametrize("zipped", [True, False])
def test_published_containers(tmp_path, row, zipped):
    """Plain, in an entry, behind prefixes, beside an attacker; zip and stream; dill with a
    function, a namespace, an optimizer.
    """
    backbone, state = random("resnet_mini")
    publish(state, row, tmp_path / "file.ckpt", _use_new_zipfile_serialization=zipped)
    if row.container:
        with pytest.raises(Exception, match=r"weights_only|Unsupported|dill"):
            # which is why there is a reader of our own
            torch.load(tmp_path / "file.ckpt", weights_only=True)
    same(loaded("resnet_mini", tmp_path / "file.ckpt"), backbone)


def test_reading_agrees_with_torch(tmp_path):
    """Views, shared storages, scalars, empty tensors, Parameters and every dtype, from both
    containers.
    """
    base = torch.randn(6, 4)
    state = {
        "view": base[1::2, 1:3],
        "transposed": base.t(),
        "base": base,
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
    }
    state["parameter"] = nn.Parameter(torch.randn(3))
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
    state |= {str(kind): base.to(kind) for kind in kinds}
    for zipped in (True, False):
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        ours, torchs = (
            read_weights(tmp_path / "a.pth").tensors,
            torch.load(tmp_path / "a.pth", weights_only=True),
        )
        assert ours.keys() == torchs.keys()
        assert all(
            torch.equal(ours[key], torchs[key]) and ours[key].dtype == torchs[key].dtype
            for key in ours
        )


def test_resnet50_by_name_needs_all_265_trunk_tensors(tmp_path, monkeypatch):
    monkeypatch.setenv("STILLROBUST_CACHE", str(tmp_path))
    row = CHECKPOINTS["resnet50/l2_eps3"]
    model = resnet50().eval()
    state = model.state_dict()
    trunk = [
        key
        for key in state
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    ]
    assert len(trunk) == 265
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / row.file
    publish(state, row, path)
    backbone, said = build_backbone(row.spec)
    assert f"{len(state)} tensors" in said
    assert backbone.clamp
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (row.mean, row.std))
    with torch.inference_mode():
        images = IMAGES[:1] * 1.5 - 0.25
        assert torch.equal(
            backbone.eval().classify(images), model((images.clamp(0, 1) - mean) / std)
        )
    assert (
        resolve_backbone(row.spec).digest
        == fetch_checkpoint(row, [str(path)], tmp_path / "copy", lambda *_: None)
        .with_suffix(".ckpt.sha256")
        .read_text()
        .split()[0]
    )
    without = {
        key: value
        for key, value in state.items()
        if key not in ("layer3.2.bn2.running_var", "bn1.weight")
    }
    publish(without | {"layer3.9.conv1.weight": torch.zeros(1)}, row, path)
    message = (
        r"2 missing \(model\.bn1\.weight, model\.layer3\.2\.bn2\.running_var\); 1 left over"
        r" \(model\.layer3\.9\.conv1\.weight\)"
    )
    with pytest.raises(UserError, match=message):
        build_backbone(row.spec)


# ---- key layouts


def test_openmmlab_resnet(tmp_path):
    """mmdet: backbone.* beside a neck and heads; mmcls: the classifier is head.fc."""
    backbone, state = random("resnet_mini")
    detector = {
        f"backbone.{key}": value for key, value in state.items() if not key.startswith("fc.")
    }
    torch.save(
        {
            "meta": {},
            "state_dict": detector | {"neck.a": torch.zeros(1), "roi_head.b": torch.zeros(1)},
        },
        tmp_path / "det.pth",
    )
    other = loaded("resnet_mini", tmp_path / "det.pth")
    assert all(torch.equal(x, y) for x, y in zip(other(IMAGES), backbone(IMAGES), strict=True))
    with pytest.raises(UserError, match="weight file lacks fc"):
        other.classify(IMAGES)
    torch.save(
        {
            "state_dict": (
                detector | {f"head.{key}": state[key] for key in state if key.startswith("fc.")}
            )
        },
        tmp_path / "cls.pth",
    )
    same(loaded("resnet_mini", tmp_path / "cls.pth"), backbone)
    torch.save({"state_dict": detector | {"surprise.a": torch.zeros(1)}}, tmp_path / "det.pth")
    with pytest.raises(UserError, match="surprise"):
        loaded("resnet_mini", tmp_path / "det.pth")


def test_hugging_face_resnet(tmp_path):
    config = transformers.ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=10,
    )
    model = transformers.ResNetForImageClassification(config).train()
    model(IMAGES)
    model.eval().save_pretrained(tmp_path)
    backbone = loaded("resnet18", tmp_path / "model.safetensors")
    with torch.inference_mode():
        expected = model(backbone.normalize(IMAGES), output_hidden_states=True)
        assert torch.allclose(backbone.classify(IMAGES), expected.logits, rtol=1e-5, atol=1e-5)
        assert all(
            torch.allclose(x, y, rtol=1e-5, atol=1e-5)
            for x, y in zip(backbone(IMAGES), expected.hidden_states[1:], strict=True)
        )


def test_official_swin(tmp_path):
    state = official_swin.random_state(MINI.embed, *SWIN, classes=7)
    torch.save({"model": state}, tmp_path / "swin.pth")
    backbone = loaded("swin_mini", tmp_path / "swin.pth")
    x = backbone.normalize(IMAGES)
    with torch.inference_mode():
        assert torch.allclose(
            backbone.classify(IMAGES), official_swin.classify(state, x, *SWIN), rtol=1e-4, atol=1e-4
        )
        assert all(
            torch.equal(a, b)
            for a, b in zip(backbone(IMAGES), official_swin.dense(state, x, *SWIN), strict=True)
        )


def test_official_detection_swin_brings_its_output_norms(tmp_path):
    state = official_swin.random_state(MINI.embed, *SWIN, dense=True)
    torch.save(
        {"state_dict": {f"backbone.{k}": v for k, v in state.items()} | {"neck.a": torch.zeros(1)}},
        tmp_path / "det.pth",
    )
    backbone = loaded("swin_mini", tmp_path / "det.pth")
    with torch.inference_mode():
        expected = official_swin.dense(state, backbone.normalize(IMAGES), *SWIN)
        assert all(torch.equal(a, b) for a, b in zip(backbone(IMAGES), expected, strict=True))
        for compute in (backbone.classify, backbone.embed):
            with pytest.raises(UserError, match="weight file lacks norm"):
                compute(IMAGES)


def unfold_order(value, width):
    """(.., column, row, c) of the official merging -> (.., c, row, column) of nn.Unfold."""
    return value.view(*value.shape[:-1], 2, 2, width).transpose(-1, -3).reshape(value.shape)


def to_openmmlab(state):
    renamed = {}
    for key, value in state.items():
        if "downsample" in key:
            value = unfold_order(value, value.shape[-1] // 4)
        key = key.replace("layers.", "stages.").replace(
            "patch_embed.proj.", "patch_embed.projection."
        )
        key = (
            key.replace(".attn.", ".attn.w_msa.")
            .replace("mlp.fc1", "ffn.layers.0.0")
            .replace("mlp.fc2", "ffn.layers.1")
        )
        renamed[f"backbone.{key}"] = value
    return renamed


def test_the_unfold_order_is_unfolds():
    """The writer above, held against nn.Unfold itself: OpenMMLab's merging computes the same as the
    official one.
    """
    state = official_swin.random_state(MINI.embed, *SWIN)
    theirs = to_openmmlab(state)
    x = torch.randn(2, 6, 8, MINI.embed)
    tokens = nn.Unfold(2, stride=2)(x.permute(0, 3, 1, 2)).transpose(1, 2)
    merged = official_swin.linear(
        theirs,
        "backbone.stages.0.downsample.reduction",
        official_swin.norm(theirs, "backbone.stages.0.downsample.norm", tokens),
    )
    expected = official_swin.merge(state, "layers.0.downsample", x)
    assert torch.allclose(merged.view(expected.shape), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dense", [True, False])
def test_openmmlab_swin(tmp_path, dense):
    """mmdet has norm0 to norm3; mmcls has norm3 alone, which its classifier reads."""
    state = official_swin.random_state(MINI.embed, *SWIN, classes=5, dense=dense)
    theirs = to_openmmlab({key: value for key, value in state.items() if "attn_mask" not in key})
    for part in ("weight", "bias"):
        if not dense:
            theirs[f"backbone.norm3.{part}"] = theirs.pop(f"backbone.norm.{part}")
            theirs[f"head.fc.{part}"] = theirs.pop(f"backbone.head.{part}")
    torch.save({"meta": {"epoch": 300}, "state_dict": theirs}, tmp_path / "mm.pth")
    backbone = loaded("swin_mini", tmp_path / "mm.pth")
    x = backbone.normalize(IMAGES)
    with torch.inference_mode():
        assert all(
            torch.equal(a, b)
            for a, b in zip(backbone(IMAGES), official_swin.dense(state, x, *SWIN), strict=True)
        )
        if not dense:
            assert torch.allclose(
                backbone.classify(IMAGES),
                official_swin.classify(state, x, *SWIN),
                rtol=1e-4,
                atol=1e-4,
            )


def test_timm_swin(tmp_path):
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=128,
        embed_dim=MINI.embed,
        depths=MINI.depths,
        num_heads=MINI.heads,
        window_size=4,
        num_classes=9,
    ).eval()
    save_file(model.state_dict(), tmp_path / "timm.safetensors")
    backbone = loaded("swin_mini", tmp_path / "timm.safetensors")
    with torch.inference_mode():
        assert torch.allclose(
            backbone.classify(IMAGES), model(backbone.normalize(IMAGES)), rtol=1e-4, atol=1e-5
        )


def test_hugging_face_swin(tmp_path):
    config = transformers.SwinConfig(
        image_size=128,
        embed_dim=MINI.embed,
        depths=list(MINI.depths),
        num_heads=list(MINI.heads),
        window_size=4,
        num_labels=6,
    )
    model = transformers.SwinForImageClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path)
    backbone = loaded("swin_mini", tmp_path / "model.safetensors")
    with torch.inference_mode():
        assert torch.allclose(
            backbone.classify(IMAGES),
            model(backbone.normalize(IMAGES)).logits,
            rtol=1e-4,
            atol=1e-4,
        )


# ---- what does not fit


def test_another_architecture_is_named(tmp_path):
    torch.save(random("resnet_mini")[1], tmp_path / "resnet.pth")
    with pytest.raises(
        UserError, match=r"Expected weights of swin_mini .* but it seems to be a ResNet's"
    ):
        loaded("swin_mini", tmp_path / "resnet.pth")
    with pytest.raises(
        UserError,
        match=r"missing \(model.* of another shape \(.*name the one that the file belongs to",
    ):
        loaded("resnet18", tmp_path / "resnet.pth")
    torch.save({"a.b": torch.zeros(1)}, tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"its keys are such as a\.b"):
        loaded("resnet18", tmp_path / "none.pth")


def test_a_folder_of_robustify_is_a_checkpoint_like_any_other(tmp_path):
    backbone, _ = random("swin_mini")
    backbone.reset_classifier(4)
    backbone.set_preprocessing((0.4, 0.5, 0.6), (0.2, 0.2, 0.3), clamp=True)
    row = Checkpoint("swin_mini", "mine", "prime", "ours", "", "a test", file="", classes=4)
    folder = write_folder(tmp_path / "run", backbone, row)
    same(loaded("swin_mini", folder), backbone)
    assert len(resolve_backbone(f"swin_mini(weights='{folder}')").digest) == 64
    with pytest.raises(UserError, match="holds those of swin_mini"):
        loaded("resnet_mini", folder)
    about = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps(about | {"file": "../weights.safetensors"}))
    with pytest.raises(UserError, match="checksum differs"):
        loaded("swin_mini", folder)
    (folder / "checkpoint.json").write_text(json.dumps({**about, "surprise": 1}))
    with pytest.raises(UserError, match="missing or damaged"):
        loaded("swin_mini", folder)


def test_rows_are_complete():
    assert len(CHECKPOINTS) == len({(row.file, row.architecture) for row in CHECKPOINTS.values()})
    for row in CHECKPOINTS.values():
        assert row.licence, row.name
        assert row.source, row.name
        assert row.url.startswith("https://") or row.by_hand or row.package, row.name
        assert row.top1 is None or 0.5 < row.top1 < 0.9, row.name
        assert row.sha256 == "" or (
            row.sha256[:8] in row.file + row.url and set(row.sha256) <= set("0123456789abcdef")
        ), row.name
    wanted = (
        "regular ant ant3x3 ant_sin speckle gauss_mult augmix deepaugment deepaugment_augmix prime"
        " prime_jsd l2_eps0 l2_eps5"
    )
    assert all(
        find_checkpoint(f"resnet50/{weights}").may_differ == (WRAPPERS if "l2" in weights else ())
        for weights in wanted.split()
    )
    assert (
        find_checkpoint("ant")
        == find_checkpoint("resnet50(weights='ant')")
        == CHECKPOINTS["resnet50/ant"]
    )
    assert find_checkpoint("swin_b").weights == "imagenet"
    assert find_checkpoint("resnet18").file == "resnet18-f37072fd.pth"


def table():
    """The reference in docs/reference/backbones.md."""

    def percent(value):
        return "" if value is None else f"{100 * value:.1f}"

    yield "| spec | trained by | top-1 | IN-C | mCE | licence | file |"
    yield "|---|---|---|---|---|---|---|"
    for row in CHECKPOINTS.values():
        scores = " | ".join(map(percent, (row.top1, row.imagenet_c, row.mce)))
        where = f"package `{row.package.replace('_', '-')}`" if row.package else f"`{row.file}`"
        yield f"| `{row.spec}` | {row.technique} | {scores} | {row.licence} | {where} |"


def test_the_docs_have_every_row_as_it_is():
    text = (Path(__file__).parents[2] / "docs/reference/backbones.md").read_text(encoding="utf-8")
    assert text.endswith("\n".join(table()) + "\n")


def test_from_the_command_line(tmp_path, monkeypatch):
    """list, show, fetch --from a file, then the same name is there."""
    monkeypatch.setenv("STILLROBUST_CACHE", str(tmp_path))
    run = CliRunner().invoke
    _, state = random("resnet_mini")
    torch.save({"model_state_dict": state}, tmp_path / "mine.pth")
    assert "resnet50(weights='ant')" in run(app, ["checkpoints", "list"]).stdout
    shown = run(app, ["checkpoints", "show", "ant"]).stdout
    assert "MIT" in shown
    assert "run: stillrobust checkpoints fetch resnet50/ant" in shown
    fetched = run(app, ["checkpoints", "fetch", "ant", "--from", str(tmp_path / "mine.pth")])
    assert "ANT_Model.pth (3 MB; MIT)" in fetched.stdout
    assert (tmp_path / "weights" / "ANT_Model.pth").read_bytes() == (
        tmp_path / "mine.pth"
    ).read_bytes()
    assert run(app, ["checkpoints", "show", "ant"]).stdout.strip().endswith("yes")
    (tmp_path / "weights" / "ANT_Model.pth").write_bytes(b"damaged")
    with pytest.raises(UserError, match="run: stillrobust checkpoints fetch resnet50/ant"):
        build_backbone("resnet50(weights='ant')")
    for arguments, message in (
        (["checkpoints", "fetch", "regular"], "Did you mean: resnet50/regular"),
        (
            ["checkpoints", "fetch", "resnet50/regular", "--from", str(tmp_path / "mine.pth")],
            "expected SHA-256 0676ba61",
        ),
        (["checkpoints", "fetch", "prime_jsd"], "by hand"),
        (["checkpoints", "show", "resnet50/nothing"], "Unknown checkpoint"),
        (["checkpoints", "show", "antt"], "Did you mean: ant"),
    ):
        failed = run(app, arguments).exception
        assert isinstance(failed, UserError)
        assert message in str(failed)
        assert "\n" not in str(failed)


def test_a_file_of_no_weights_is_never_kept_and_a_file_that_is_named_wins(tmp_path):
    row, place = CHECKPOINTS["resnet50/ant"], tmp_path / "cache" / "weights"
    (tmp_path / "junk.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="it is a web page instead of the file"):
        fetch_checkpoint(
            row, [str(tmp_path / "junk.pth")], tmp_path / "cache", lambda done, total: None
        )
    assert [path.name for path in place.iterdir() if not path.name.startswith(".")] == []
    for name in ("one", "two"):
        torch.save({"weight": torch.full((2,), len(name) + ord(name[0]))}, tmp_path / f"{name}.pth")
        path = fetch_checkpoint(
            row, [str(tmp_path / f"{name}.pth")], tmp_path / "cache", lambda done, total: None
        )
        assert path.read_bytes() == (tmp_path / f"{name}.pth").read_bytes()
        verify_checkpoint(row, path)
