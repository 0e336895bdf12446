"""A study killed in the middle and run again ends where an undisturbed one ends, and does nothing
finished twice.
"""

import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.errors import UserError
from stillrobust.storage.store import Store
from stillrobust.study import Site, run_states, select
from stillrobust.study.files import read_study
from stillrobust.study.plan import plan_study, plan_text
from stillrobust.study.runs import selected_runs
from stillrobust.study.selection import load_selection, save_selection
from stillrobust.study.state import resolve_data
from stillrobust.study.workload import missing_jobs
from tests.toys import SMALL_STUDY


def command(folder):
    file = folder.parent / "small.yaml"
    file.write_text(SMALL_STUDY)
    return [
        sys.executable,
        "-m",
        "stillrobust",
        "study",
        "run",
        str(file),
        "--out",
        str(folder),
        "--workers",
        "1",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "slurm"], "sbatch and srun"),
        (["--engine", "ray", "--gpu-fraction", "2"], "fraction of a GPU"),
    ],
)
def test_what_an_engine_lacks_is_said_before_anything_is_drawn(options, said, tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path)}  # no Slurm
    told = subprocess.run(
        [*command(tmp_path / "out"), *options], capture_output=True, text=True, env=environment
    )
    assert told.returncode == 2
    assert said in told.stderr
    assert not (tmp_path / "out").exists()


def numbers(folder):
    return {
        (m.run, m.metric, m.corruption, m.severity): m.value
        for m in Store(folder / "results").measurements()
    }


def kill_when(folder, pattern):
    """Start the study, kill it (SIGKILL) once a file like ``pattern`` is there, and wait for its
    workers to notice.
    """
    process = subprocess.Popen(
        command(folder), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    start = time.monotonic()
    while not list(folder.glob(pattern)) and time.monotonic() - start < 600:
        assert process.poll() is None, "the study ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(2)


@pytest.mark.slow
def test_killed_and_run_again_equals_undisturbed(tmp_path):
    whole, killed = tmp_path / "a" / "out", tmp_path / "b" / "out"
    whole.parent.mkdir()
    killed.parent.mkdir()
    assert subprocess.run(command(whole), capture_output=True).returncode == 0
    kill_when(killed, "runs/*/resume.json")
    kill_when(killed, "results/cells/*/fog_1.json")
    before = {
        path: path.stat().st_mtime_ns
        for path in killed.glob("r*/**/*.json")
        if not path.name.startswith("resume")
    }
    before = {path: written for path, written in before.items() if path.parent.name != "runs"}
    assert before
    again = subprocess.run(command(killed), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "Report:" in again.stdout
    assert all(path.stat().st_mtime_ns == written for path, written in before.items()), (
        "something finished was done twice"
    )
    assert numbers(killed) == numbers(whole)
    assert len(numbers(whole)) == 2 * 5


@pytest.mark.slow
def test_no_room_is_one_sentence_and_nothing_finished_is_lost(tmp_path):
    """A limit on the size of files stands for the full disk: the kernel refuses the write in the
    same place.
    """
    folder = tmp_path / "out"
    limited = ["bash", "-c", 'ulimit -f 20000; exec "$@"', "limited", *command(folder)]
    refused = subprocess.run(limited, capture_output=True, text=True)
    assert refused.returncode == 3
    assert "Cannot write" in refused.stderr
    assert "free some space" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(folder.glob("runs/*/model.*")), "a model that was not written whole"
    again = subprocess.run(command(folder), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len(numbers(folder)) == 2 * 5


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_is_one_sentence_and_the_workers_end(number, tmp_path):
    folder = tmp_path / "out"
    # A shell's background job would ignore SIGINT, and so would what it starts; a terminal's does
    # not.
    process = subprocess.Popen(
        command(folder),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    start = time.monotonic()
    while not list(folder.glob("runs/*/resume.json")) and time.monotonic() - start < 600:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "finished work is kept, run the same command again" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert list(folder.glob("runs/*/resume.json"))


def test_a_folder_with_the_name_of_a_study_is_none(tmp_path, monkeypatch):
    """``make demo`` leaves a folder called demo beside the Makefile."""
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    save_selection(select(["demo"]), tmp_path / "demo")
    assert load_selection(tmp_path / "demo").names == ("demo",)


def test_the_demo_is_the_whole_job(tmp_path):
    """Two backbones made upstream and transferred to crops in both modes; the published one to
    scenes, in both tasks. The question comes first.
    """
    demo = select(["demo"])
    assert {run.task for run in demo.runs} == {"classification", "detection", "segmentation"}
    assert sum(state.cells for state in run_states(demo.runs, demo.protocol, Site(tmp_path))) == (
        2 + 2 * 2 + 2
    ) * (1 + 15 * 3)
    assert [run.setting for run in demo.runs[:3]] == ["robustify", "robustify", "fixed_feature"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("severities: [1, 3]", "severitys: [1, 3]"),
            "at protocols.short: Unknown key 'severitys'. Did you mean: severities",
        ),
        (("severities: [1, 3]", "severities: [1, 6]"), "severities among 1, 2, 3, 4, 5, but got 6"),
        (("fixed_feature", "frozen"), "Unknown transfer .frozen."),
        (("steps: 30", "stepz: 30"), "stepz"),
        (("crop: 48", "krop: 48"), "Did you mean: crop"),
        (("[fog, gaussian_noise]", "[fogg]"), "Did you mean: fog"),
        (("name: small", "name: [unclosed"), "YAML"),
        (("model: [", "modell: ["), "axis in runs.0.*Did you mean: model"),
        (("    axes:", "    ids: [A]\n    axes:"), "2 runs, but 1 ids"),
        (
            ("    axes:", "    differences: [{when: {model: other}, images: 3}]\n    axes:"),
            "no run of the block has these values",
        ),
        (("task: classification", "task: clasification"), "at runs.0.task"),
        (("    data: scenes\n", ""), "has no data"),
        (("data: scenes", "data: coco"), "Unknown data 'coco'"),
    ],
)
def test_a_wrong_study_is_one_sentence_before_anything_is_trained(change, message, tmp_path):
    (tmp_path / "x.yaml").write_text(SMALL_STUDY.replace(*change))

    def begin():
        wrong = select([str(tmp_path / "x.yaml")])
        missing_jobs(wrong.runs, wrong.protocol, Site(tmp_path))

    with pytest.raises(UserError, match=message) as caught:
        begin()
    assert "\n" not in str(caught.value)


BOMB = "title: &a0 [x]\n" + "\n".join(
    f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 8)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{SMALL_STUDY}\nruns: []", "key 'runs' is given twice in line 5 and in line 14"),
        (
            SMALL_STUDY.replace("{train: 4, val", "{train: 4, train: 5, val"),
            "key 'train' is given twice in line 3 and in line 3",
        ),
        (
            SMALL_STUDY.replace("name: small", "name: small\ntitle: 2024-02-30"),
            r"day is out of range for month.* in line 3",
        ),
        (
            SMALL_STUDY.replace("name: small", "name: small\nseed: !!int abc"),
            "invalid literal .* in line 3",
        ),
        (
            SMALL_STUDY.replace("name: small", "name: [small"),
            "expected ',' or ']', but got ':' in line 3",
        ),
        ("settings: &a {x: *a}", "a value contains itself in line 1"),
        (BOMB, "nested aliases expand to too many values in line"),
        ("x: " + "[" * 3000, "nested too deeply"),
        (
            SMALL_STUDY.replace("transfer: [fixed_feature, full_network]", "transfer: []"),
            "no values on the axis transfer",
        ),
    ],
)
def test_a_study_file_means_one_thing(text, said, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_study(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


def test_runs_are_taken_from_the_file_that_has_them(tmp_path):
    for name, text in (
        ("a", SMALL_STUDY),
        ("b", "name: b\nfrom: a.yaml"),
        ("c", "name: c\nfrom: b.yaml"),
    ):
        (tmp_path / f"{name}.yaml").write_text(text)
    assert len(selected_runs(read_study(tmp_path / "b.yaml"))) == 2
    with pytest.raises(UserError, match="which is `from` a"):
        read_study(tmp_path / "c.yaml")


def test_a_plan_names_what_cannot_be_without_any_data(tmp_path):
    wrong = [
        "transfer: ful_network",
        "recipe: nosuch",
        "technique: agmix",
        "images: -3",
        "settings: {nosuch: 1}",
        "data: mine",
    ]
    common = (
        "task: classification, model: \"resnet18(weights='random')\", transfer: full_network, data:"
        " scenes"
    )
    blocks = [
        f"  - {{ids: [r{n}], {_with(common, change)}}}"
        for n, change in enumerate([*wrong, "recipe: small"])
    ]
    (tmp_path / "x.yaml").write_text("\n".join(["name: x", "data: {mine: coco}", "runs:", *blocks]))
    selection = select([str(tmp_path / "x.yaml")])
    found = plan_study(selection, Site(tmp_path, resolve_data(selection.studies[0].data, tmp_path)))
    assert [fault.split(":")[0] for fault in found.faults] == ["r0", "r1", "r2", "r3", "r4", "r5"]
    for fault, said in zip(
        found.faults,
        ("full_network", "nosuch", "augmix", "images=-3", "nosuch", "FORMAT:PATH"),
        strict=True,
    ):
        assert said in fault
    assert "wrong: 6 runs" in plan_text(found)
    done = CliRunner().invoke(
        app, ["study", "plan", str(tmp_path / "x.yaml"), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 3


def _with(common, change):
    key = change.split(":")[0]
    return ", ".join(
        [*(part for part in common.split(", ") if not part.startswith(f"{key}:")), change]
    )
