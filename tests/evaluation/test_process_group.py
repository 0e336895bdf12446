"""Several processes evaluate what one does, each image once; torchrun starts them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
from safetensors.torch import load_file

from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.evaluation import loop as evaluation
from stillrobust.evaluation.process_group import SINGLE_PROCESS, ProcessGroup, join_process_group
from stillrobust.grid import Cell
from stillrobust.storage.store import Store
from stillrobust.training import Plan, Recipe, train
from stillrobust.training.launch import is_main_process, launch, launched_processes
from tests.toys import SETTINGS, Toys

RECIPE = Recipe(steps=1, batch_size=4, optimizer="sgd", lr=0.02, warmup=0, accelerator="cpu")
IMAGES = 11  # in batches of 2: six, the last of one image


@dataclass(frozen=True)
class OneAfterAnother(ProcessGroup):
    """Processes in turn, the first one last: what the others hand in lies on the shelf."""

    shelf: dict = field(default_factory=dict)

    def gather(self, value):
        place = self.shelf.setdefault("turn", {})
        mine = place[self.rank] = place.get(self.rank, -1) + 1
        self.shelf[self.rank, mine] = value
        return [self.shelf[rank, mine] for rank in range(self.size)] if self.is_main_process else []

    def broadcast(self, value):
        return value


def content(store, run):
    """Metrics, statistics and examples of all cells."""
    found = {}
    for severity in (1, 3):
        cell = Cell(run, "gaussian_noise", severity)
        found[severity] = (
            {
                m.metric: m.value
                for m in store.measurements()
                if (m.corruption, m.severity) == ("gaussian_noise", severity)
            },
            store.statistics(cell),
            store.examples(cell),
        )
    return found


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("task", sorted(SETTINGS))
def test_any_number_of_processes_measures_what_one_does(task, size, tmp_path, monkeypatch):
    """To the bit: also where the last batch is short, and where a process has none."""
    folder = train(
        Plan(task, "resnet_mini(weights='random')", "full_network", RECIPE, SETTINGS[task]),
        Toys(task),
        tmp_path / "run",
    )
    protocol = Protocol(("gaussian_noise",), (1, 3), clean=False, batch_size=2)
    data, seen = Toys(task, IMAGES, seed=1), []
    original = evaluation.SeverityViews.__getitem__
    name = evaluate(folder, data, tmp_path / "one", protocol)
    monkeypatch.setattr(
        evaluation.SeverityViews,
        "__getitem__",
        lambda self, index: seen.append(index) or original(self, index),
    )
    shelf = {}
    for rank in reversed(range(size)):
        evaluate(folder, data, tmp_path / "all", protocol, group=OneAfterAnother(rank, size, shelf))
        assert (tmp_path / "all").exists() == (rank == 0), "the first alone writes"
    assert sorted(seen) == list(range(IMAGES)), "every image once"
    one, together = (content(Store(tmp_path / kind), name) for kind in ("one", "all"))
    for severity, (metrics, *arrays) in one.items():
        assert metrics == together[severity][0]
        for alone, merged in zip(arrays, together[severity][1:], strict=True):
            assert (alone is None) == (merged is None)
            for key in alone or {}:
                np.testing.assert_array_equal(alone[key], merged[key], err_msg=f"{severity} {key}")


@pytest.mark.parametrize("images", [1, 7, 8, 100])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_parts_are_whole_batches_in_order_and_leave_nothing_out(images, batch_size):
    for size in range(1, 12):
        parts = [ProcessGroup(rank, size).shard(images, batch_size) for rank in range(size)]
        assert [index for part in parts for index in part] == list(range(images))
        assert all(part.start % batch_size == 0 for part in parts)


# ---- what a launcher says
# ------------------------------------------------------------------------------

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "GROUP_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_WORLD_SIZE": "2",
    "WORLD_SIZE": "8",
    "RANK": "5",
    "LOCAL_RANK": "1",
}


@pytest.mark.parametrize(
    ("environment", "expected", "first"),
    [
        ({}, None, True),
        (TORCHRUN, (4, 2), False),
        (TORCHRUN | {"RANK": "0"}, (4, 2), True),
        # a batch script: one process, whatever the job asked for
        ({"SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"}, None, True),
        (
            {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "0"},
            None,
            True,
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "3"},
            (4, 2),
            False,
        ),
    ],
)
def test_who_was_launched(environment, expected, first, monkeypatch):
    for name in {*os.environ, *TORCHRUN}:
        if (
            name.startswith(("SLURM_", "TORCHELASTIC", "GROUP_", "LOCAL_", "WORLD_"))
            or name == "RANK"
        ):
            monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_processes() == expected
    assert is_main_process() == first
    if expected is None:
        assert join_process_group() == SINGLE_PROCESS
    else:
        with pytest.raises(
            UserError, match="the 8 processes that were started, but the recipe asks for 3"
        ):
            launch(
                Recipe(devices=3, batch_size=8), lambda fabric, progress: None, lambda *news: None
            )


def torchrun(processes, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "-m",
        "stillrobust",
    ]
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, env=environment, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_torchrun_trains_and_evaluates_as_one_process(tmp_path):
    """The commands as they are, with nothing said about devices: two processes of one training,
    three of one evaluation.
    """
    from stillrobust.data.generated.scene_files import SceneCounts, write_scenes

    write_scenes(
        tmp_path / "data", seed=0, counts=SceneCounts(train=4, val=4, train_crops=20, val_crops=11)
    )
    data = f"folders:{tmp_path / 'data' / 'classification'}"
    change = [
        f"--change={pair}"
        for pair in ("optimizer=sgd", "lr=0.02", "warmup=0", "norm_eval=false", "accelerator=cpu")
    ]
    words = [
        "train",
        "--data",
        data,
        "--backbone",
        "resnet_mini(weights='random')",
        "--steps",
        "3",
        "--batch-size",
        "5",
        *change,
    ]
    words += ["--set", "resize=48", "--set", "crop=48"]
    found = {}
    for processes, steps in ((1, 3), (2, 3), (1, 1)):
        out = tmp_path / f"{processes}-{steps}"
        said = torchrun(
            processes, *[{"3": str(steps)}.get(word, word) for word in words], "--out", str(out)
        )
        assert said.count("Finished model") == 1
        assert (out / "run.log").read_text().count("training finished") == 1
        found[processes, steps] = load_file(out / "model.safetensors")
    for name, value in found[1, 3].items():
        if value.is_floating_point():
            moved = (value - found[1, 1][name]).abs().max()
            assert (value - found[2, 3][name]).abs().max() <= 1e-5 + 2e-3 * moved, name
    about = json.loads((tmp_path / "2-3" / "model.json").read_text())
    assert (
        about["identity"] == json.loads((tmp_path / "1-3" / "model.json").read_text())["identity"]
    )
    numbers = {}
    for processes in (1, 2, 3):
        out = tmp_path / f"results{processes}"
        corruptions = ["--corruptions", "gaussian_noise", "--severities", "1,3"]
        said = torchrun(
            processes,
            "evaluate",
            str(tmp_path / "1-3"),
            "--data",
            data,
            "--out",
            str(out),
            *corruptions,
            "--accept-chance",
        )
        assert said.count("Report:") == 1
        store = Store(out / "results")
        numbers[processes] = {
            (m.metric, m.corruption, m.severity): (m.value, m.images) for m in store.measurements()
        }
        (cell,) = {m.run for m in store.measurements()}
        assert len(set(store.statistics(Cell(cell, "gaussian_noise", 3))["image_ids"])) == 11
    assert len(numbers[1]) == 3
    assert numbers[1] == numbers[2] == numbers[3]
