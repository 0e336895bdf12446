"""The README's own-data example, on a COCO folder, as commands and from Python; and what a user
gets for mistakes.
"""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import stillrobust
from stillrobust.cli import main
from stillrobust.data.generated.scene_files import SceneCounts, write_scenes
from stillrobust.storage.store import Store

ROOT = Path(__file__).parents[2]
SMALL = [
    "channels=16",
    "box_channels=32",
    "mask_layers=1",
    "image_size=[64, 64]",
    "rois_per_image=16",
    "detections=5",
]
SMALL += ["proposals_before=[50, 50]", "proposals=[50, 20]"]


def run(*arguments, cwd=None):
    command = [sys.executable, "-m", "stillrobust", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


@pytest.fixture
def mistake(monkeypatch, capfd, tmp_path):
    """Run a command that must end with status 2 in this process; returns its one sentence."""

    def run_here(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["stillrobust", *map(str, arguments)])
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
        with pytest.raises(SystemExit) as ending:
            main()
        assert ending.value.code == 2
        said = capfd.readouterr().err
        assert "Traceback" not in said
        return said

    return run_here


@pytest.fixture(scope="module")
def mydata(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes") / "data"
    counts = SceneCounts(train=8, val=4, train_crops=10, val_crops=10)
    return write_scenes(root, counts=counts, scene_size=64, crop_size=48)


@pytest.mark.slow
def test_own_data_from_the_command_line(mydata, tmp_path):
    data = f"coco:{mydata / 'detection'}"
    settings = [part for setting in SMALL for part in ("--set", setting)]
    trained = run(
        "train",
        "--data",
        data,
        "--backbone",
        "efficientnet_lite0",
        "--out",
        tmp_path / "mine",
        "--steps",
        "3",
        "--batch-size",
        "2",
        *settings,
    )
    assert trained.returncode == 0, trained.stderr
    common = [
        "evaluate",
        tmp_path / "mine",
        "--data",
        data,
        "--out",
        tmp_path / "out",
        "--severities",
        "1",
        "--accept-chance",  # three steps teach nothing
    ]
    evaluated = run(*common)
    assert evaluated.returncode == 0, evaluated.stderr
    page = Path(re.search(r"Report: (.*)", evaluated.stdout)[1])
    assert "efficientnet_lite0" in page.read_text()
    assert {m.metric for m in Store(tmp_path / "out" / "results").measurements()} == {
        "box_ap",
        "mask_ap",
    }
    before = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "out" / "results" / "cells").rglob("*.json")
    }
    assert len(before) == 16
    assert run(*common).returncode == 0
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())


def test_readme_example_from_python(tmp_path, monkeypatch):
    """The README's program, except for the names of its folders and the number of steps."""
    counts = SceneCounts(train=1, val=1, train_crops=2, val_crops=1)
    mydata = write_scenes(tmp_path / "data", counts=counts, scene_size=64, crop_size=48)
    code = re.search(
        r"```python\n(from pathlib.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )[1]
    assert len(code.strip().splitlines()) <= 10
    code = code.replace("coco:mydata", f"folders:{mydata / 'classification'}").replace(
        '"detection"', '"classification"'
    )
    code = code.replace("steps=1000", "steps=2, batch_size=4")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "coco:nowhere", "--backbone", "resnet18", "--out", "x"], "nowhere"),
        (
            ["train", "--data", "cocoo:nowhere", "--backbone", "resnet18", "--out", "x"],
            "Did you mean: coco",
        ),
        (["evaluate", "nowhere", "--data", "coco:nowhere", "--out", "x"], "nowhere"),
        (["report", "nowhere", "--out", "x"], "nowhere"),
        (["compare", "a", "b", "--results", "nowhere"], "Expected a folder of results"),
        (["study", "run", "nowhere.yaml", "--out", "x"], "Expected a study at nowhere.yaml"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, message, tmp_path, mistake):
    said = mistake(*arguments)
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_wrong_backbone_setting_and_classes(mydata, tmp_path, mistake):
    data = f"folders:{mydata / 'classification'}"
    common = ["train", "--data", data, "--out", tmp_path / "x", "--steps", "1"]
    for extra, message in (
        (["--backbone", "resnet5O"], "Did you mean: resnet50"),
        (["--backbone", "resnet18(weights='no.pth')"], "no.pth"),
        (["--backbone", "efficientnet_lite0", "--set", "krop=3"], "Did you mean: crop"),
        (["--backbone", "efficientnet_lite0", "--transfer", "fixed"], "fixed_feature"),
    ):
        assert message in mistake(*common, *extra)


def test_study_files_are_strict(tmp_path):
    (tmp_path / "a.yaml").write_text("name: a\nruns: []\nseverity: 3\n")
    result = run("study", "run", tmp_path / "a.yaml", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "Unknown key 'severity'" in result.stderr


def test_help_is_instant_and_complete():
    code = (
        "import sys, stillrobust.cli; assert 'torch' not in sys.modules and 'numpy' not in"
        " sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    listed = run("--help").stdout
    assert all(
        command in listed
        for command in ("demo", "train", "evaluate", "report", "study", "checkpoints", "doctor")
    )


def test_version_is_one_line():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"stillrobust {stillrobust.__version__}\n")


def test_evaluate_somebody_elses_model(mydata, tmp_path, mistake):
    """A model file that predicts one class: the report is named, and mistakes are explained."""
    (tmp_path / "first.py").write_text(
        "import numpy as np\nfrom stillrobust.samples import Prediction\ndef create():\n    return"
        " lambda images: [Prediction(probabilities=np.eye(10)[0]) for _ in images]\n"
    )
    base = ["evaluate", "--data", f"folders:{mydata / 'classification'}", "--out", tmp_path / "out"]
    mine = ["--model", tmp_path / "first.py"]
    fog = [*base, *mine, "--task", "classification", "--corruptions", "fog", "--severities", "1"]
    stopped = mistake(*fog)
    assert "add --accept-chance if the score is right" in stopped
    assert (tmp_path / "out" / "first_predictions.png").is_file()
    done = run(*fog, "--accept-chance")
    assert done.returncode == 0, done.stderr
    assert "Report:" in done.stdout
    numbers = {
        m.corruption: m.value for m in Store(tmp_path / "out" / "results").measurements("first")
    }
    assert numbers == {"clean": 0.1, "fog": 0.1}  # one of the ten classes, whose crops are a tenth
    for wrong, message in (
        ([*mine, "--task", "detection"], "Expected data for detection"),
        ([], "either the folder of a finished run or --model"),
        (["--model", "resnet50"], "nothing is downloaded unless asked"),
    ):
        assert message in mistake(*base, *wrong)
