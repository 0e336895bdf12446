"""Kills, and two at once: the files of a study are those of one that nobody disturbed, and nothing
finished is done twice.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.killed_study import CELLS


def tried(folder, kills, seed=0):
    """What ``tests/killed_study.py`` saw."""
    command = [sys.executable, "-m", "tests.killed_study", str(folder), str(kills), str(seed)]
    # threads do not fork
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | one_thread)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_again_and_again(kills, tmp_path):
    found = tried(tmp_path, kills)
    assert found["kills"] >= kills
    assert found["differs"] == [], "files that an undisturbed study does not end in"
    assert found["twice"] == [], "finished, and done again"


def test_two_at_once_share_the_work_and_do_nothing_twice(tmp_path):
    found = tried(tmp_path, 0)
    assert found["differs"] == []
    assert found["counts"] == {"1": 2 * CELLS}, "how often cells were measured, over two studies"
