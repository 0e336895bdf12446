import os
import time

import pytest

from stillrobust.errors import UserError
from stillrobust.execution import Job, run_jobs


def write(path, text, progress):
    progress(1, 2, "half")
    path.write_text(text)
    progress(2, 2, "done")


def append(path, other, progress):
    path.write_text(other.read_text() + "b")


def fail(progress):
    raise UserError("this job cannot be done")


def die(progress):
    os._exit(1)


def test_jobs_run_after_what_they_need_and_tell_of_it(tmp_path):
    heard = []
    jobs = [
        Job("second", append, (tmp_path / "2", tmp_path / "1"), after=("first",)),
        Job("first", write, (tmp_path / "1", "a")),
    ]
    run_jobs(jobs, 2, lambda *report: heard.append(report))
    assert (tmp_path / "2").read_text() == "ab"
    assert ("first", 2, 2, "done") in heard


def test_an_error_is_raised_and_what_was_finished_stays(tmp_path):
    jobs = [
        Job("first", write, (tmp_path / "1", "a")),
        Job("bad", fail, (), after=("first",)),
        Job("never", write, (tmp_path / "2", "b"), after=("bad",)),
    ]
    with pytest.raises(UserError, match="cannot be done"):
        run_jobs(jobs, 1)
    assert (tmp_path / "1").exists()
    assert not (tmp_path / "2").exists()


def test_a_killed_worker_is_one_sentence():
    start = time.monotonic()
    with pytest.raises(UserError, match="run the same command again"):
        run_jobs([Job("die", die, ())], 1)
    assert time.monotonic() - start < 60
