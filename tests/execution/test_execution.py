import os
import time

import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.errors import UserError
from stillrobust.execution import Job, run_jobs
from stillrobust.execution.book import LOST, Book
from stillrobust.runtime.forecast import NOT_STARTED
from stillrobust.storage.leases import LeaseHeldError


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


def wait_for(path, progress):
    if not path.exists():
        raise LeaseHeldError("another process is at it")


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


def note_process(path, text, progress):
    with path.open("a") as file:
        file.write(f"{text} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\n")
    time.sleep(0.3)


def die_once(path, progress):
    if not path.exists():
        path.write_text("")
        os._exit(1)


class Unsendable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def raise_unsendable(progress):
    raise Unsendable(1, 2)


def nothing(progress):
    pass


def test_a_lost_job_is_tried_again(tmp_path):
    assert run_jobs([Job("dies", die_once, (tmp_path / "1",))], 1, keep_going=True) == []


def test_an_error_that_cannot_be_sent_is_told_all_the_same():
    (failure,) = run_jobs([Job("odd", raise_unsendable, ())], 1, keep_going=True)
    assert failure.reason == "RuntimeError: Unsendable: 1 and 2"
    assert "raise_unsendable" in failure.details


def test_each_worker_sees_its_own_gpus_and_keeps_its_model(tmp_path):
    """Two runs of three jobs on two workers: each worker has one run and one GPU."""
    path = tmp_path / "seen"
    jobs = [
        Job(f"{run}{number}", note_process, (path, run), warm=run)
        for run in "ab"
        for number in range(3)
    ]
    assert run_jobs(jobs, 8, gpus=["2", "GPU-5"]) == []
    seen = [line.split() for line in path.read_text().splitlines()]
    assert len({process for _, process, _ in seen}) == 2
    assert {gpu for _, _, gpu in seen} == {"2", "GPU-5"}
    # all but perhaps the last job where they are warm
    assert len({(run, process) for run, process, _ in seen}) <= 3
    assert os.environ.get("CUDA_VISIBLE_DEVICES") is None


def test_scheduling_costs_less_than_20_milliseconds_a_job():
    jobs = [Job(f"job {number}", nothing, (), warm=f"run {number % 50}") for number in range(1000)]
    start = time.monotonic()
    run_jobs(jobs[:2], 2)
    begun = time.monotonic()
    run_jobs(jobs, 2)
    seconds = (time.monotonic() - begun) - (begun - start)
    print(f"{1000 * seconds / len(jobs):.2f} ms a job")
    assert seconds / len(jobs) < 0.020


# ---- the books, without any process
# ----------------------------------------------------------------------------------------


def job(name, *after, **how):
    return Job(name, nothing, (), after, **how)


def test_jobs_are_given_in_order_and_warm_ones_where_they_are_warm():
    book = Book(
        [
            job("train c"),
            *(job(f"{run}{n}", warm=run) for run in "ab" for n in range(3)),
            job("late", "a0"),
        ]
    )
    assert book.next(0).name == "train c"
    assert book.next(1).name == "a0"
    assert book.next(2).name == "b0", "a model that nobody has, before one that another holds"
    book.done("a0")
    assert book.next(1).name == "a1"
    book.done("train c")
    assert book.next(0).name == "a2", "one of both that are held as often: the first"
    book.done("a1")
    assert book.next(1).name == "b1"
    book.done("b0")
    assert book.next(2).name == "b2"
    book.done("b2")
    assert book.next(2).name == "late"
    assert book.next(3) is None
    for name in ("a2", "b1", "late"):
        book.done(name)
    assert not book.open


def test_a_worker_stays_with_its_model_even_where_others_have_it_too():
    book = Book([*(job(f"a{n}", warm="a") for n in range(3)), job("c0", "a0", warm="c")])
    assert [book.next(worker).name for worker in (0, 1)] == ["a0", "a1"]
    book.done("a0")
    assert book.next(0).name == "a2"
    assert book.next(2).name == "c0"


def test_jobs_wait_until_there_is_room():
    book = Book(
        [
            job("large", memory=6),
            job("other", memory=6),
            job("small", memory=3),
            job("huge", memory=50),
        ],
        memory=10,
    )
    assert book.next(0).name == "large"
    assert book.next(1).name == "small"
    assert book.next(2) is None
    book.done("large")
    assert book.next(2).name == "other"
    book.done("small")
    book.done("other")
    assert book.next(0).name == "huge", "what never fits is tried alone"


def test_each_job_ends_once_and_what_comes_after_a_failure_is_not_begun():
    told = []
    book = Book(
        [job("a"), job("b", "a"), job("c", "a", "b"), job("d")], lambda *news: told.append(news)
    )
    assert [book.next(worker).name for worker in (0, 1)] == ["a", "d"]
    book.failed("a", "broken")
    book.done("d")
    assert not book.open
    assert told == [("a", "broken"), ("b", NOT_STARTED + "a"), ("c", NOT_STARTED + "b"), ("d", "")]
    assert [failure.job for failure in book.failures] == ["a", "b", "c"]


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_lost_is_tried_three_times(alone):
    told = []
    book = Book([job("a"), job("b")], lambda *news: told.append(news), alone=alone)
    assert [book.next(worker).name for worker in (0, 1)] == ["a", "b"]
    book.gone("a")
    again = book.next(0)
    assert (again is None) == alone
    book.done("b")
    for _ in range(2):
        if again is None:
            assert book.next(0).name == "a"
        book.gone("a")
        again = None
    assert not book.open
    assert told == [("b", ""), ("a", LOST)]


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
        with pytest.raises(AssertionError):
            Book(wrong)


def test_a_job_that_somebody_else_is_at_is_tried_after_the_others(tmp_path):
    done = tmp_path / "done"
    jobs = [
        Job("held", wait_for, (done,)),
        Job("after it", append, (tmp_path / "2", done), after=("held",)),
        Job("done", write, (done, "a")),
    ]
    heard = []
    assert run_jobs(jobs, 1, lambda *report: heard.append(report), keep_going=True) == []
    assert heard[0] == ("held", 0, 1, "another process is at it")
    assert (tmp_path / "2").read_text() == "ab"


def test_a_held_job_waits_until_nothing_else_is_ready():
    book = Book([job("a"), job("b"), job("c", "a")])
    assert book.next(0).name == "a"
    book.held("a")
    assert book.next(0).name == "b"
    assert book.next(1).name == "a"
    book.done("a")
    book.done("b")
    assert book.next(0).name == "c"
    assert book.open
