"""The doctor sees simulated problems, says what to do, and ends with the right status."""

import shutil
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from stillrobust import corruptions
from stillrobust.cli import application as cli
from stillrobust.runtime import capacity
from stillrobust.tools import doctor


def test_the_golden_self_test_passes_here_and_sees_another_pixel(monkeypatch):
    assert doctor.pixel_self_test() == doctor.Finding(
        "ok", "self-test: expected pixels of 19 corruptions"
    )
    plain = corruptions.corrupt

    def off_by_one(*arguments, **keywords):
        image = plain(*arguments, **keywords)
        image[0, 0, 0] ^= arguments[1] == "fog"
        return image

    monkeypatch.setattr(corruptions, "corrupt", off_by_one)
    found = doctor.pixel_self_test()
    assert found.state == "problem"
    assert "of fog" in found.text


def test_the_self_test_leaves_out_frost_with_textures_of_ones_own(monkeypatch):
    monkeypatch.setattr(
        corruptions, "corruption_protocol", lambda: {"frost_textures": "reference:0123456789ab"}
    )
    assert "18 corruptions (frost" in doctor.pixel_self_test().text


def test_every_extra_of_another_library_is_looked_for():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert set(doctor.EXTRAS) == set(project["project"]["optional-dependencies"]) - {
        "demo",
        "docs",
        "dev",
    }


def test_python_that_is_too_old(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    assert doctor.python().state == "problem"
    assert "3.11" in doctor.python().remedy


@pytest.mark.parametrize(
    ("torch", "vision", "state"),
    [("2.14.1+cpu", "0.29.1", "ok"), ("2.4.0", "0.19.0", "ok"), ("2.14.1", "0.28.0", "problem")],
)
def test_torch_and_torchvision_are_a_pair(monkeypatch, torch, vision, state):
    monkeypatch.setattr(doctor, "version", {"torch": torch, "torchvision": vision}.get)
    found = doctor.torch_pair()
    assert found.state == state
    assert state == "ok" or "torchvision==0.29.*" in found.remedy


def test_limits_of_a_container(monkeypatch):
    monkeypatch.setattr(capacity, "memory", lambda: 2**30)
    monkeypatch.setattr(capacity, "cores", lambda: 1)
    assert doctor.memory().state == "problem"
    assert doctor.processor().text.startswith("1 usable cores")


def test_no_frost_textures_and_missing_extras(monkeypatch):
    monkeypatch.setattr(
        corruptions, "corruption_protocol", lambda: {"frost_textures": "generated:1"}
    )
    assert "imagecorruptions-imaug" in doctor.frost().remedy
    monkeypatch.setattr(doctor, "EXTRAS", {"onnx": ("no_such_module_of_onnx",)})
    assert "stillrobust[onnx]" in doctor.extras().remedy


def test_a_driver_that_torch_does_not_use(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "version").touch()
    monkeypatch.setattr(doctor, "Path", lambda name: tmp_path / "version")
    assert doctor.gpus().state == "problem"


def test_folders_without_room_or_rights(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLROBUST_CACHE", str(tmp_path / "not" / "there"))
    assert doctor.weights_cache().state == "ok"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    assert "free at least" in doctor.working_folder().remedy
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert "STILLROBUST_CACHE" in doctor.weights_cache().remedy


def test_status_and_a_check_that_raises(monkeypatch):
    def broken():
        raise RuntimeError("no such library")

    monkeypatch.setattr(doctor, "CHECKS", {"python": doctor.python})
    assert CliRunner().invoke(cli.app, ["doctor"]).exit_code == 0
    monkeypatch.setattr(doctor, "CHECKS", {"torch": broken, "python": doctor.python})
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code == 1
    assert "no such library" in result.stdout
    assert "Python 3" in result.stdout
