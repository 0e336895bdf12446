"""SIGTERM and Ctrl-C end a command in order: one sentence, no child process, finished files stay. A
folder that is renamed while a command writes into it is not made again.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from stillrobust.cli import application
from stillrobust.errors import UserError
from stillrobust.runtime.run_log import note
from stillrobust.runtime.stopping import interrupt_on_sigterm
from stillrobust.storage.files import output_folder, write_whole
from stillrobust.storage.leases import lease
from stillrobust.tools import folder_job
from stillrobust.tools.corrupt_folder import CorruptionPlan, make_corrupted_folder

SECONDS = 30


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    for number in range(200):
        Pillow.fromarray(pixels).save(tmp_path / "photos" / f"{number}.bmp")
    return tmp_path / "photos"


def wait_for(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(process):
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def is_running(process):
    """A process that ended may still wait for init to collect it."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_one_sentence_and_leaves_no_process(number, photos, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "stillrobust", "corrupt", str(photos), str(out)]
    running = subprocess.Popen(
        [*command, "--corruption", "contrast", "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        # a background job of a shell ignores SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: len(list(out.rglob("*.png"))) > 3 or running.poll() is not None)
    started = children(running.pid)
    assert len(started) >= 2, "two workers"
    running.send_signal(number)
    _, said = running.communicate(timeout=SECONDS)
    assert running.returncode == 128 + number
    assert said.splitlines()[-1].endswith("run the same command again to resume")
    assert "Traceback" not in said
    wait_for(lambda: not any(map(is_running, started)))
    assert not list(tmp_path.glob(".out.lease*")), "the lease is given back"
    assert len(list(out.rglob("*.png"))) > 3


def test_a_second_sigterm_does_not_disturb_the_end_of_the_first():
    before = signal.getsignal(signal.SIGTERM)
    try:
        arrived = interrupt_on_sigterm()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert arrived.is_set()
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_exit_status(number, monkeypatch, capsys):
    """The same for every command: typer ends with 130, whatever raised."""

    def command(*_):
        signal.raise_signal(number)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["stillrobust", "doctor"])
    monkeypatch.setattr("stillrobust.tools.doctor.run_checks", command)
    try:
        with pytest.raises(SystemExit) as ended:
            application.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + number
    assert "run the same command again to resume" in capsys.readouterr().err


# ---- a folder that is renamed
# ------------------------------------------------------------------------------


def write(folder):
    write_whole({folder / "cells" / "a.json": b"a"})


def hold_lease(folder):
    with lease(folder / "cells" / "a"):
        pass


@pytest.mark.parametrize("work", [write, hold_lease])
@pytest.mark.parametrize("way", ["renamed", "removed"])
def test_a_folder_that_is_gone_is_not_made_again(work, way, tmp_path):
    out = tmp_path / "share" / "out"
    with output_folder(out):
        assert out.is_dir()
        work(out)
        (tmp_path / "share").rename(tmp_path / "away") if way == "renamed" else subprocess.run(
            ["rm", "-r", str(tmp_path / "share")], check=True
        )
        with pytest.raises(UserError, match="renamed or removed while this command wrote into it"):
            work(out)
        (tmp_path / "share").mkdir()
        note(out / "run.log", "nothing")  # a log is no reason either
        assert not out.exists()
    work(out)  # by another command
    assert out.is_dir()


@pytest.mark.parametrize("workers", [1, 2])
def test_corrupt_into_a_folder_that_is_renamed(workers, photos, tmp_path):
    out, away = tmp_path / "out", tmp_path / "away"

    def lose(job, done, total, text):
        if done and out.exists():
            out.rename(away)

    with pytest.raises(UserError, match=r"renamed or removed|Cannot reach"):
        make_corrupted_folder(photos, out, CorruptionPlan(("contrast",)), workers, lose)
    assert not out.exists()
    assert list(away.rglob("*.png"))


def test_a_worker_does_not_make_the_folder(tmp_path):
    job = folder_job.FolderJob(name="a", root=tmp_path, out=tmp_path / "out", plan="", groups=())
    with pytest.raises(UserError, match="renamed or removed"):
        job.run(lambda *_: None)
    assert not (tmp_path / "out").exists()
