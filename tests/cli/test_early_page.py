"""The page of a running study appears with its first finished run and says that it is partial."""

from stillrobust.cli.early_page import EarlyPage
from stillrobust.runtime.forecast import PlannedJob
from tests.paper_store import fill


def evaluations(run, count=2):
    return [PlannedJob(f"evaluate {run} {n}", "evaluate", run, cells=8) for n in range(count)]


def test_the_page_is_written_when_a_run_is_finished_but_others_are_not(tmp_path):
    results, messages = tmp_path / "results", []
    page = EarlyPage(results, tmp_path, messages.append)
    jobs = [PlannedJob("train one", "train"), *evaluations("one"), *evaluations("two")]
    page.start(jobs, 2, 0, 32, 0)
    fill(results, "one", 0.9, 0.5, images=20)
    for name in ("train one", "evaluate one 0"):
        page.job_ended(name, "")
        page.wait()
        assert not (tmp_path / "report.html").exists()
    page.job_ended("evaluate one 1", "")
    page.wait()
    text = (tmp_path / "report.html").read_text()
    assert "Partial results." in text
    assert "1 of 2 runs finished" in text
    assert messages == [f"First results, 1 of 2 runs finished: {tmp_path / 'report.html'}"]
    (tmp_path / "report.html").unlink()
    page.next_time = 0  # otherwise the next page waits for its share of the time
    for job in evaluations("two"):
        page.job_ended(job.name, "")
        page.wait()
    assert not (tmp_path / "report.html").exists()  # the whole page follows


def test_a_failed_evaluation_and_a_missing_store_write_nothing(tmp_path):
    page = EarlyPage(tmp_path / "results", tmp_path, lambda text: None)
    page.start([*evaluations("one", 1), *evaluations("two", 1)], 3, 0, 24, 0)
    page.job_ended("evaluate one 0", "no room")
    page.wait()
    page.job_ended("evaluate two 0", "")
    page.wait()
    assert not (tmp_path / "report.html").exists()
