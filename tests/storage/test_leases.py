"""A lease: one holder at any moment, and of one that died it passes on, once."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stillrobust.errors import UserError
from stillrobust.storage import leases
from stillrobust.storage.leases import LeaseHeldError, lease

HOLD = """
import sys, time
from pathlib import Path
from stillrobust.storage import leases
leases.HEARTBEAT_SECONDS = float(sys.argv[2])
if sys.argv[3] == "elsewhere":
    leases._here = lambda: "another machine/1"
with leases.lease(Path(sys.argv[1])) as held:
    print("held", flush=True)
    sys.stdin.readline()
    held.check()
print("wrote", flush=True)
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Everything a hundred times faster."""
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 30 * 0.02)
    monkeypatch.setattr(leases, "WAIT_SECONDS", 0.02)


def holder(path, place="here", beat=0.05):
    """Another process that holds ``path`` until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(beat), place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def ended(process):
    process.kill()
    process.communicate()


def test_one_holder_and_nothing_left_behind(tmp_path):
    path = tmp_path / "new" / "work"
    with lease(path) as held:
        held.check()
        with (
            pytest.raises(
                LeaseHeldError, match=f"Another process works on work in .*process {os.getpid()} on"
            ),
            lease(path),
        ):
            pass
        with lease(tmp_path / "new" / "other"):
            pass
        pickle.loads(pickle.dumps(held)).check()  # in the processes that train together
    assert list(path.parent.iterdir()) == []
    with pytest.raises(ZeroDivisionError), lease(path):
        _ = 1 / 0
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_who_lives_is_left_alone_and_who_was_killed_followed(tmp_path, place):
    process = holder(tmp_path / "work", place)
    for _ in range(2):
        with pytest.raises(LeaseHeldError), lease(tmp_path / "work"):
            pass
    ended(process)
    began = time.monotonic()
    with lease(tmp_path / "work") as held:
        held.check()
        assert [path.name for path in tmp_path.iterdir()] == [".work.lease.2"]
    waited = time.monotonic() - began
    assert waited < 0.3 if place == "here" else waited > 0.5, (
        "a dead process is seen at once, a silent machine by its silence"
    )


def test_another_process_with_its_number_is_not_the_holder(tmp_path):
    """Numbers of processes come back; the time of its start does not."""
    process = holder(tmp_path / "work")
    file = tmp_path / ".work.lease.1"
    words = file.read_text().split()
    ended(process)
    file.write_text(f"{words[0]} {words[1]} {os.getpid()} {words[3]} {words[4]}\n{0:012}\n")
    with lease(tmp_path / "work") as held:
        assert held.number == 2


def test_who_slept_and_was_overtaken_writes_nothing(tmp_path):
    process = holder(tmp_path / "work")
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)  # a busy machine takes a while to stop it
    with lease(tmp_path / "work") as held:
        os.kill(process.pid, signal.SIGCONT)
        out, _ = process.communicate("\n", timeout=60)
        assert "wrote" not in out
        assert process.returncode == 1
        held.check()
        assert [path.name for path in tmp_path.iterdir()] == [".work.lease.2"], (
            "the end of the first is not the end of the second"
        )


def test_a_lease_that_was_given_back_or_lost_is_noticed(tmp_path):
    with lease(tmp_path / "a" / "work") as held:
        held.file.unlink()
        with pytest.raises(LeaseHeldError, match=r"took over work in"):
            held.check()
    with lease(tmp_path / "a" / "work") as held:
        (tmp_path / "a").rename(tmp_path / "gone")
        with pytest.raises(
            UserError, match=r"Cannot reach .* start again when the folder is available"
        ):
            held.check()
    assert not (tmp_path / "a").exists(), "nothing is made where a network folder was"


def test_a_clock_that_goes_back_does_nothing(tmp_path, monkeypatch):
    clock = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    process = holder(tmp_path / "work", "elsewhere")
    for moment in (0, 2**33):
        os.utime(tmp_path / ".work.lease.1", (moment, moment))
        with pytest.raises(LeaseHeldError), lease(tmp_path / "work"):
            pass
    ended(process)
    with lease(tmp_path / "work") as held:
        held.check()


def test_half_a_lease_is_that_of_a_dead_process(tmp_path):
    (tmp_path / ".work.lease.7").write_text("")
    with lease(tmp_path / "work") as held:
        assert held.number == 8


def test_where_nothing_can_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"Cannot write .*file.* choose another folder"),
        lease(tmp_path / "file" / "work"),
    ):
        pass


def take(path, start, results):
    start.wait()
    try:
        with lease(path):
            (path.parent / "counter").open("a").write("+")
            time.sleep(0.3)
            results.put("held")
    except LeaseHeldError:
        results.put("other")


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_of_many_who_want_it_one_gets_it(tmp_path, place):
    """Eight at once, after a holder that is dead."""
    fork = multiprocessing.get_context("fork")
    for turn in range(5):
        path = tmp_path / str(turn) / "work"
        ended(holder(path, place))
        start, results = fork.Event(), fork.Queue()
        several = [fork.Process(target=take, args=(path, start, results)) for _ in range(8)]
        for process in several:
            process.start()
        start.set()
        assert sorted(results.get(timeout=60) for _ in several) == ["held"] + ["other"] * 7
        for process in several:
            process.join()


def count(path, times):
    for _ in range(times):
        with lease(path, wait=True) as held:
            counter = path.parent / "counter"
            number = int(counter.read_text())
            time.sleep(0.001)
            held.check()
            counter.write_text(str(number + 1))


def test_waiting_loses_no_count(tmp_path):
    (tmp_path / "counter").write_text("0")
    fork = multiprocessing.get_context("fork")
    several = [fork.Process(target=count, args=(Path(tmp_path) / "work", 25)) for _ in range(4)]
    for process in several:
        process.start()
    for process in several:
        process.join()
    assert (tmp_path / "counter").read_text() == "100"


def test_what_this_process_left_while_the_folder_was_away_is_no_holder(tmp_path):
    with lease(tmp_path / "a" / "work"):
        (tmp_path / "a").rename(tmp_path / "away")
    (tmp_path / "away").rename(tmp_path / "a")
    with (
        lease(tmp_path / "a" / "work") as held,
        pytest.raises(LeaseHeldError),
        lease(tmp_path / "a" / "work"),
    ):
        pass
    assert held.number == 2


def test_sweep_takes_what_the_dead_held_and_nothing_else(tmp_path):
    ended(holder(tmp_path / "dead"))
    living = holder(tmp_path / "living")
    elsewhere = holder(tmp_path / "silent", "elsewhere")
    ended(elsewhere)
    (tmp_path / "work").mkdir()
    leases.remove_dead_leases(tmp_path)
    leases.remove_dead_leases(tmp_path / "absent")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".living.lease.1",
        ".silent.lease.1",
        "work",
    ]
    ended(living)
