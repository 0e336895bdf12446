"""No connection is opened unless a command named ``fetch`` asks: every kind of predictor and of
backbone spec, with sockets that refuse and count.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from typer.testing import CliRunner

from stillrobust import extras
from stillrobust.backbones import hubs, missing_weights, resolve_backbone
from stillrobust.backbones.hubs import fetch_hub_model
from stillrobust.cli.application import app
from stillrobust.errors import UserError
from stillrobust.predictors import PREDICTORS, open_predictor
from stillrobust.storage.files import file_sha256
from tests.predictors.test_predictors import MINE, export, info_of
from tests.predictors.test_transformers import transformers_folder

SECONDS = 2.0
IMAGE = np.zeros((40, 40, 3), np.uint8)


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """Sockets that refuse; the list of what was looked up or connected to. Empty caches."""
    attempts = []

    def refuse(first, *others, **options):
        attempts.append(others or first)
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setenv("STILLROBUST_CACHE", str(tmp_path / "cache"))
    return attempts


def local_models(folder):
    """A spec of each kind of predictor whose files are on this machine, and its task."""
    (folder / "mine.py").write_text(MINE)
    (folder / "weights.bin").write_bytes(b"weights")
    transformers_folder(folder / "vit", "classification")
    export(
        torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
        folder / "c.onnx",
        ["logits"],
    )
    return {
        "file": (f"{folder / 'mine.py'}", info_of("classification", ("wide", "tall"))),
        "torchvision": (
            "torchvision:squeezenet1_1(weights='random', classes=2)",
            info_of("classification"),
        ),
        "timm": ("timm:resnet10t(weights='random', classes=2)", info_of("classification")),
        "transformers": (f"transformers:{folder / 'vit'}", info_of("classification")),
        "ultralytics": (
            "ultralytics:yolo11n.yaml(size=64)",
            info_of("detection", [f"{number}" for number in range(80)]),
        ),
        "onnx": (f"onnx:{folder / 'c.onnx'}(mean=0, std=1)", info_of("classification", "abc")),
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return local_models(tmp_path_factory.mktemp("models"))


def test_every_kind_of_predictor_has_a_model_here(models):
    assert models.keys() == PREDICTORS.keys()


@pytest.mark.parametrize("kind", PREDICTORS)
def test_a_local_model_opens_no_connection(kind, models, refused):
    spec, info = models[kind]
    with torch.inference_mode():
        open_predictor(spec, info).predict([IMAGE])
    assert refused == []


HUB_MODELS = {
    "torchvision:resnet18": "fetch \"torchvision:resnet18(weights='IMAGENET1K_V1')\"",
    "torchvision:resnet18(weights='IMAGENET1K_V1')": "fetch",
    "timm:resnet10t": 'checkpoints fetch "timm:resnet10t"',
    "timm:gcvit_base.in1k": 'checkpoints fetch "timm:gcvit_base.in1k"',
    "transformers:microsoft/resnet-18": 'checkpoints fetch "transformers:microsoft/resnet-18"',
    "ultralytics:yolo11n.pt": "Expected a .pt file that is there",
}


@pytest.mark.parametrize("spec", HUB_MODELS)
def test_a_model_of_a_hub_is_not_downloaded(spec, refused):
    info = info_of("detection" if "yolo" in spec else "classification")
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        open_predictor(spec, info)
    assert time.monotonic() - began < SECONDS
    assert HUB_MODELS[spec] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert refused == []


BACKBONES = [
    "resnet10t",
    "timm/resnet50",
    "convnext_tiny",
    "resnet18",
    "swin_t",
    "resnet50(weights='ant')",
]


@pytest.mark.parametrize("spec", BACKBONES)
def test_a_backbone_is_not_downloaded(spec, refused):
    began = time.monotonic()
    with pytest.raises(UserError, match="run: stillrobust checkpoints fetch"):
        resolve_backbone(spec)
    assert time.monotonic() - began < SECONDS
    assert "stillrobust checkpoints fetch" in missing_weights(spec)
    assert refused == []


def cache_timm(folder, name):
    """A file in Hugging Face's cache, as a download leaves it."""
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    place = folder / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "snapshots" / "1").mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("1")
    state = timm.create_model(name).state_dict()
    save_file(state, place / "snapshots" / "1" / "model.safetensors")
    return state


def test_what_is_in_a_cache_is_read(refused, tmp_path, monkeypatch):
    state = cache_timm(tmp_path, "resnet10t")
    backbone, said = resolve_backbone("resnet10t").build()
    assert all(torch.equal(backbone.model.state_dict()[key], state[key]) for key in state)
    assert "model.safetensors" in said
    assert backbone.model.pretrained_cfg["state_dict"] is None, "the tensors are not kept twice"
    monkeypatch.setattr(
        "stillrobust.predictors.timm_classifiers.class_columns", lambda *_: np.arange(2)
    )
    found = open_predictor("timm:resnet10t", info_of("classification"))
    with torch.inference_mode():
        assert len(found.predict([IMAGE])[0].probabilities) == 2

    name = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT.url.rpartition("/")[2]
    file = tmp_path / "torch" / "checkpoints" / name
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), file)
    with pytest.raises(UserError, match="another SHA-256 than its name says"):
        open_predictor("torchvision:squeezenet1_1", info_of("classification"))
    published = file.with_name(f"s-{file_sha256(file)[:8]}.pth")
    file.rename(published)
    monkeypatch.setattr(
        "stillrobust.predictors.torchvision_models.torchvision_file", lambda *_: published
    )
    monkeypatch.setattr(
        "stillrobust.predictors.torchvision_models.class_columns", lambda *_: np.arange(2)
    )
    open_predictor("torchvision:squeezenet1_1", info_of("classification"))
    assert refused == []


@pytest.mark.parametrize("kind", hubs._FETCHERS)
def test_fetch_without_a_network_is_one_sentence(kind, refused):
    spec = {"timm": "resnet10t", "torchvision": "resnet18", "transformers": "microsoft/resnet-18"}
    began = time.monotonic()
    with pytest.raises(UserError, match="unreachable"):
        fetch_hub_model(f"{kind}:{spec[kind]}")
    assert time.monotonic() - began < SECONDS
    assert len(refused) == 1


def test_the_command(refused):
    for arguments, message in (
        (["timm:resnet10t"], "Cannot reach https://huggingface.co"),
        (["timm:resnet10"], "Did you mean"),
        (["timm:resnet10t", "--to", "x"], "own library's cache"),
        (["onnx:resnet10t"], "timm"),
    ):
        assert message in str(
            CliRunner().invoke(app, ["checkpoints", "fetch", *arguments]).exception
        )


def test_telemetry_is_off_before_anything_is_imported():
    """The user's own values stay."""
    program = (
        "import os, stillrobust; from stillrobust.extras import NOT_UNASKED;"
        "print({name: os.environ[name] for name in NOT_UNASKED})"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in extras.NOT_UNASKED
    }
    environment["YOLO_AUTOINSTALL"] = "true"
    shown = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"PYTHONPATH": str(Path(extras.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.strip() == str({**extras.NOT_UNASKED, "YOLO_AUTOINSTALL": "true"})
