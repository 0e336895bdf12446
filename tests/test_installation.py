"""The wheel's core works without torch, and a command that needs an extra names it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillrobust.extras import EXTRAS, MissingExtraError, extra_of, missing_extra, require_extra
from tests.paper_store import fill

ROOT = Path(__file__).parent.parent
MEGABYTES = 700  # of the core with everything that it brings
WITH_TORCH = (
    "train --data folders:data --backbone resnet50 --out run",
    "evaluate run --data folders:data --out results",
    "evaluate --model torchvision:resnet50 --data folders:data --out results",
    "robustify --technique prime --backbone resnet50 --data folders:data --out made",
    "techniques deepaugment photos out --network edsr",
    "study plan",
    "demo --out demo",
    "techniques list",
    "techniques show prime",
)
PYTHON_WITH_TORCH = (
    "from stillrobust.training import train",
    "from stillrobust.evaluation import evaluate",
    "from stillrobust.predictors import load_run_predictor",
    "from stillrobust.backbones import build_backbone",
    "from stillrobust.robustify import build_technique",
    "from stillrobust.tasks import TASKS",
)


def test_a_missing_extra_names_its_command(monkeypatch):
    monkeypatch.setattr("stillrobust.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'stillrobust[torch]'")):
        require_extra("torch")
    assert extra_of("torchvision.ops") == "torch"
    assert extra_of("numpy") is None
    assert isinstance(missing_extra("ray", "ray"), ImportError)


def test_every_extra_exists():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = ", text, re.MULTILINE) for extra in EXTRAS)


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """A fresh environment with the wheel and what its core requires, from the package index."""
    folder = tmp_path_factory.mktemp("core")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(wheel, check=True, cwd=folder)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    started = time.perf_counter()
    install = [folder / "venv/bin/python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, *folder.glob("*.whl")], check=True, cwd=folder)
    seconds = time.perf_counter() - started
    size = sum(path.lstat().st_size for path in (folder / "venv").rglob("*") if path.is_file())
    print(f"installed in {seconds:.0f} s, {size / 2**20:.0f} MB")
    assert size < MEGABYTES * 2**20
    return folder / "venv/bin"


@pytest.fixture
def call(core, tmp_path):
    """Call a program of the environment in the test's folder, without the checkout's sources."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(program, *words):
        return subprocess.run(
            [core / program, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return run


@pytest.mark.slow
def test_the_core_works_without_torch(call, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos/photo.png")
    fill(tmp_path / "results", "one", 0.9, 0.5)
    fill(tmp_path / "results", "two", 0.9, 0.7)
    for command in (
        "doctor",
        "corruptions list",
        "data list",
        "study list",
        "corrupt photos corrupted --corruption fog --severity 3",
        "corrupt photos/photo.png sheet.png --contact-sheet",
        "report results --out out",
        "compare one two --results results",
    ):
        done = call("stillrobust", *command.split())
        assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "sheet.png").is_file()
    assert list((tmp_path / "corrupted").rglob("*.png"))
    assert (tmp_path / "out/report.html").is_file()
    typed = "import stillrobust, pathlib; p = pathlib.Path(stillrobust.__file__)"
    assert (
        call("python", "-c", f"{typed}; assert (p.parent / 'py.typed').is_file()").returncode == 0
    )
    assert call("python", "-c", "import torch").returncode


@pytest.mark.slow
@pytest.mark.parametrize("command", WITH_TORCH)
def test_a_command_that_needs_torch_is_one_sentence(call, command):
    done = call("stillrobust", *command.split())
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert "pip install 'stillrobust[torch]'" in sentence


@pytest.mark.slow
@pytest.mark.parametrize("line", PYTHON_WITH_TORCH)
def test_an_import_that_needs_torch_is_one_sentence(call, line):
    done = call("python", "-c", line)
    assert "MissingExtraError: " in done.stderr.splitlines()[-1]
    assert "pip install 'stillrobust[torch]'" in done.stderr.splitlines()[-1]
