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


def divide(number, progress):
    return 1 / number


def write_slowly(path, progress):
    time.sleep(3)
    path.write_text("a")


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


def test_a_failure_stops_only_what_comes_after_it(tmp_path):
    jobs = [
        Job("bad", fail, ()),
        Job("never", write, (tmp_path / "2", "b"), after=("bad",)),
        Job("nor this", write, (tmp_path / "3", "b"), after=("never",)),
        Job("odd", divide, (0,)),
        Job("good", write, (tmp_path / "1", "a")),
    ]
    failures = {failure.job: failure for failure in run_jobs(jobs, 1, keep_going=True)}
    assert (tmp_path / "1").exists()
    assert failures.keys() == {"bad", "never", "nor this", "odd"}
    assert failures["bad"].reason == "this job cannot be done"
    assert not failures["bad"].details
    assert "because this failed: bad" in failures["never"].reason
    assert "ZeroDivisionError" in failures["odd"].reason
    assert "in divide" in failures["odd"].details


def test_a_job_that_ends_its_process_takes_no_other_with_it(tmp_path):
    """Both are at work when the process ends; tried alone, the innocent one is done."""
    jobs = [
        Job("slow", write_slowly, (tmp_path / "1",)),
        Job("die", die, ()),
        Job("later", append, (tmp_path / "2", tmp_path / "1"), after=("slow",)),
    ]
    failures = run_jobs(jobs, 2, keep_going=True)
    assert [failure.job for failure in failures] == ["die"]
    assert (tmp_path / "2").read_text() == "ab"
