import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.errors import UserError
from stillrobust.execution import Job, run_jobs
from stillrobust.execution.job_queue import LOST, JobQueue
from stillrobust.execution.jobs import Event, JobEnd
from stillrobust.execution.serialization import from_json, to_json
from stillrobust.runtime.forecast import NOT_STARTED
from tests.execution.example_jobs import (
    Append,
    Die,
    Divide,
    Nothing,
    RaiseUnpicklable,
    RecordProcess,
    Refuse,
    WaitFor,
    Write,
)


def test_jobs_run_after_their_dependencies_and_report_progress(tmp_path):
    reports = []
    jobs = [
        Append(name="second", path=tmp_path / "2", other=tmp_path / "1", after=("first",)),
        Write(name="first", path=tmp_path / "1"),
    ]
    run_jobs(jobs, 2, lambda *report: reports.append(report))
    assert (tmp_path / "2").read_text() == "ab"
    assert ("first", 2, 2, "done") in reports


def test_an_error_is_raised_and_what_was_finished_stays(tmp_path):
    jobs = [
        Write(name="first", path=tmp_path / "1"),
        Refuse(name="bad", after=("first",)),
        Write(name="never", path=tmp_path / "2", after=("bad",)),
    ]
    with pytest.raises(UserError, match="cannot be done"):
        run_jobs(jobs, 1)
    assert (tmp_path / "1").exists()
    assert not (tmp_path / "2").exists()


def test_a_killed_worker_is_one_sentence():
    start = time.monotonic()
    with pytest.raises(UserError, match="run the same command again"):
        run_jobs([Die(name="die")], 1)
    assert time.monotonic() - start < 60


def test_a_failure_stops_only_what_comes_after_it(tmp_path):
    jobs = [
        Refuse(name="bad"),
        Write(name="never", path=tmp_path / "2", after=("bad",)),
        Write(name="nor this", path=tmp_path / "3", after=("never",)),
        Divide(name="odd", number=0),
        Write(name="good", path=tmp_path / "1"),
    ]
    failures = {failure.job: failure for failure in run_jobs(jobs, 1, keep_going=True)}
    assert (tmp_path / "1").exists()
    assert failures.keys() == {"bad", "never", "nor this", "odd"}
    assert failures["bad"].reason == "this cannot be done"
    assert not failures["bad"].details
    assert "because this failed: bad" in failures["never"].reason
    assert "ZeroDivisionError" in failures["odd"].reason
    assert "in run" in failures["odd"].details


def test_a_job_that_ends_its_process_takes_no_other_with_it(tmp_path):
    """Both are at work when the process ends; tried alone, the innocent one is done."""
    jobs = [
        Write(name="slow", path=tmp_path / "1", seconds=3.0),
        Die(name="die"),
        Append(name="later", path=tmp_path / "2", other=tmp_path / "1", after=("slow",)),
    ]
    failures = run_jobs(jobs, 2, keep_going=True)
    assert [failure.job for failure in failures] == ["die"]
    assert (tmp_path / "2").read_text() == "ab"


def test_a_lost_job_is_tried_again(tmp_path):
    assert run_jobs([Die(name="dies", path=tmp_path / "1")], 1, keep_going=True) == []


def test_an_error_that_cannot_be_pickled_is_reported():
    (failure,) = run_jobs([RaiseUnpicklable(name="odd")], 1, keep_going=True)
    assert failure.reason == "Unpicklable: 1 and 2"
    assert "raise Unpicklable" in failure.details


def test_each_worker_sees_its_own_gpus_and_keeps_its_model(tmp_path):
    """Two runs of three jobs on two workers: each worker has one run and one GPU."""
    path = tmp_path / "seen"
    jobs = [
        RecordProcess(name=f"{run}{number}", path=path, affinity=run)
        for run in "ab"
        for number in range(3)
    ]
    assert run_jobs(jobs, 8, gpus=["2", "GPU-5"]) == []
    seen = [line.split()[:3] for line in path.read_text().splitlines()]
    assert len({process for _, process, _ in seen}) == 2
    assert {gpu for _, _, gpu in seen} == {"2", "GPU-5"}
    # all but perhaps the last job where they are warm
    assert len({(run, process) for run, process, _ in seen}) <= 3
    assert os.environ.get("CUDA_VISIBLE_DEVICES") is None


def test_scheduling_costs_less_than_20_milliseconds_a_job():
    jobs = [Nothing(name=f"job {number}", affinity=f"run {number % 50}") for number in range(1000)]
    start = time.monotonic()
    run_jobs(jobs[:2], 2)
    begun = time.monotonic()
    run_jobs(jobs, 2)
    seconds = (time.monotonic() - begun) - (begun - start)
    print(f"{1000 * seconds / len(jobs):.2f} ms a job")
    assert seconds / len(jobs) < 0.020


# ---- the queue, without any process
# ----------------------------------------------------------------------------------------


def job(name, *after, **fields):
    return Nothing(name=name, after=after, **fields)


def test_jobs_run_in_order_of_priority_and_affinity():
    queue = JobQueue(
        [
            job("train c"),
            *(job(f"{run}{n}", affinity=run) for run in "ab" for n in range(3)),
            job("late", "a0"),
        ]
    )
    assert queue.take(0).name == "train c"
    assert queue.take(1).name == "a0"
    assert queue.take(2).name == "b0", "a model that nobody has, before one that another holds"
    queue.mark_finished("a0")
    assert queue.take(1).name == "a1"
    queue.mark_finished("train c")
    assert queue.take(0).name == "a2", "one of both that are held as often: the first"
    queue.mark_finished("a1")
    assert queue.take(1).name == "b1"
    queue.mark_finished("b0")
    assert queue.take(2).name == "b2"
    queue.mark_finished("b2")
    assert queue.take(2).name == "late"
    assert queue.take(3) is None
    for name in ("a2", "b1", "late"):
        queue.mark_finished(name)
    assert not queue.unfinished


def test_a_worker_stays_with_its_model_even_where_others_have_it_too():
    queue = JobQueue(
        [*(job(f"a{n}", affinity="a") for n in range(3)), job("c0", "a0", affinity="c")]
    )
    assert [queue.take(worker).name for worker in (0, 1)] == ["a0", "a1"]
    queue.mark_finished("a0")
    assert queue.take(0).name == "a2"
    assert queue.take(2).name == "c0"


def test_jobs_wait_until_there_is_room():
    queue = JobQueue(
        [
            job("large", memory=6),
            job("other", memory=6),
            job("small", memory=3),
            job("huge", memory=50),
        ],
        memory=10,
    )
    assert queue.take(0).name == "large"
    assert queue.take(1).name == "small"
    assert queue.take(2) is None
    queue.mark_finished("large")
    assert queue.take(2).name == "other"
    queue.mark_finished("small")
    queue.mark_finished("other")
    assert queue.take(0).name == "huge", "what never fits is tried alone"


def test_each_job_ends_once_and_what_comes_after_a_failure_is_not_begun():
    ends = []
    queue = JobQueue(
        [job("a"), job("b", "a"), job("c", "a", "b"), job("d")], lambda *end: ends.append(end)
    )
    assert [queue.take(worker).name for worker in (0, 1)] == ["a", "d"]
    queue.mark_failed("a", "broken")
    queue.mark_finished("d")
    assert not queue.unfinished
    assert ends == [("a", "broken"), ("b", NOT_STARTED + "a"), ("c", NOT_STARTED + "b"), ("d", "")]
    assert [failure.job for failure in queue.failures] == ["a", "b", "c"]


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_lost_is_tried_three_times(alone):
    ends = []
    queue = JobQueue([job("a"), job("b")], lambda *end: ends.append(end), retries_alone=alone)
    assert [queue.take(worker).name for worker in (0, 1)] == ["a", "b"]
    queue.mark_lost("a")
    again = queue.take(0)
    assert (again is None) == alone
    queue.mark_finished("b")
    for _ in range(2):
        if again is None:
            assert queue.take(0).name == "a"
        queue.mark_lost("a")
        again = None
    assert not queue.unfinished
    assert ends == [("b", ""), ("a", LOST)]


def test_less_than_no_workers_is_a_mistake():
    """It waited for ever."""
    with pytest.raises(UserError, match="but got -1"):
        run_jobs([], -1)
    for command in (["demo"], ["study", "run", "demo"], ["corrupt", "photo.png", "out"]):
        done = CliRunner().invoke(app, [*command, "--workers", "-1"])
        assert done.exit_code == 2
        assert "greater than or equal to 0" in done.output


def test_jobs_of_one_name_or_after_none_are_a_mistake():
    for wrong in ([job("a"), job("a")], [job("a", "b")]):
        with pytest.raises(ValueError, match="different names"):
            JobQueue(wrong)


def test_a_job_that_another_process_is_doing_is_retried_after_the_others(tmp_path):
    done = tmp_path / "done"
    jobs = [
        WaitFor(name="held", path=done),
        Append(name="after it", path=tmp_path / "2", other=done, after=("held",)),
        Write(name="done", path=done),
    ]
    reports = []
    assert run_jobs(jobs, 1, lambda *report: reports.append(report), keep_going=True) == []
    assert reports[0] == ("held", 0, 1, "another process is at it")
    assert (tmp_path / "2").read_text() == "ab"


def test_a_held_job_waits_until_nothing_else_is_ready():
    queue = JobQueue([job("a"), job("b"), job("c", "a")])
    assert queue.take(0).name == "a"
    queue.mark_held("a")
    assert queue.take(0).name == "b"
    assert queue.take(1).name == "a"
    queue.mark_finished("a")
    queue.mark_finished("b")
    assert queue.take(0).name == "c"
    assert queue.unfinished


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...]
    ratio: float | None = None


@dataclass(frozen=True, kw_only=True)
class Nested(Job):
    inner: Inner
    parts: tuple[tuple[int, tuple[str, ...]], ...]
    folder: Path | None = None


def test_a_job_is_json_and_comes_back_equal():
    """Names of files need not be UTF-8."""
    value = Nested(
        name="a", inner=Inner((1, 2), 0.1), parts=((3, ("x", "\udcff")),), folder=Path("/a/\udcfe")
    )
    assert from_json(to_json(value), Job) == value
    end = JobEnd("a", "failed", "it\nbroke")
    assert from_json(to_json(end).encode(), Event) == end


def test_json_creates_only_what_the_reader_expects():
    with pytest.raises(TypeError, match="Expected a Job"):
        from_json(to_json(JobEnd("a", "finished")), Job)
    with pytest.raises(TypeError, match="Expected a Job"):
        from_json('{"type": "subprocess:Popen", "values": {"args": "true"}}', Job)
    with pytest.raises(TypeError, match="but got object"):
        to_json(Nested(name="a", inner=object(), parts=()))


def test_an_unexpected_error_is_raised_with_its_trace():
    with pytest.raises(RuntimeError, match=r"odd failed: ZeroDivisionError(.|\n)*in run"):
        run_jobs([Divide(name="odd", number=0)], 1)
