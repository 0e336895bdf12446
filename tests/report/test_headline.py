"""The answer of each kind of store: one sentence and one chart, with values that are known by hand.

Of 100 images the first ones are right, so that every drop is a ratio of two counts.
"""

import numpy as np
import pytest

from stillrobust.grid import COMMON, Cell
from stillrobust.report import summarize
from stillrobust.report.headline import answers_table, headline, transfer_sentence
from stillrobust.report.transfer_gain import Gain, TransferGain
from stillrobust.storage.store import Run, Store
from tests.report import test_transfer_gain as study

IMAGES = 100


def write(root, name, clean, right, kind="external", transfer=None, with_statistics=True, **others):
    """A run that is right on the first ``clean`` images, and on the first ``right`` of them under
    corruption; under ``others`` by name of a corruption.
    """
    store = Store(root)
    protocol = {"seed": 0, "weights": name, "data": others.pop("data", "same")}
    dataset, places = others.pop("dataset", "toy"), others.pop("places", COMMON)
    store.write_run(Run(name, "classification", name, transfer, dataset, {}, ("a", "b"), kind))
    ids = np.array([f"{index:03}.png" for index in range(IMAGES)])
    for place in [("clean", 0), *((corruption, 3) for corruption in places)]:
        number = others.get(place[0], right) if place[1] else clean
        correct = np.arange(IMAGES) < number
        statistics = {"image_ids": ids, "correct": correct} if with_statistics else {}
        scores = {"top1": correct.mean()}
        store.write_cell(Cell(name, *place), "k", scores, protocol, IMAGES, 1.0, statistics)
    return store


def answer(store, replicates=200):
    return headline(store.runs(), summarize(store, replicates))


def test_of_two_models_one_is_more_robust(tmp_path):
    write(tmp_path, "a", 80, 60)
    found = answer(write(tmp_path, "b", 80, 20))
    start = (
        "a is more robust than b: it loses 25.0 % of its top-1 under corruption instead of 75.0 %,"
        " a certain difference of 50.0 points ["
    )
    assert found.sentence.startswith(start)
    assert found.sentence.endswith("].")
    assert found.context == (
        "Image classification on toy, top-1; 15 corruptions at severity 3; 100 images."
    )
    ((chart,),) = (group.charts for group in found.charts)
    clean, corrupted = chart.traces
    assert (clean["x"], corrupted["x"]) == ([80, 80], [60, 20])
    for trace in chart.traces:
        bars = trace["error_x"]
        for value, up, down in zip(trace["x"], bars["array"], bars["arrayminus"], strict=True):
            assert 0 <= value - down < value < value + up <= 100


def test_a_certain_drop_with_a_lower_score_says_so(tmp_path):
    write(tmp_path, "weak", 40, 38)
    found = answer(write(tmp_path, "strong", 90, 60)).sentence
    assert found.startswith("weak is more robust than strong: it loses 5.0 % of its top-1")
    assert found.endswith("; strong still scores higher under corruption (60.0 against 38.0).")


def test_models_that_may_be_equal(tmp_path):
    write(tmp_path, "a", 80, 41)
    found = answer(write(tmp_path, "b", 80, 40)).sentence
    assert found.startswith("a and b may be equally robust: they lose 48.8 % and 50.0 % of their")
    assert "a difference of 1.2 points [" in found
    assert "that may be chance; a still scores" not in found, "a has both"
    write(tmp_path, "c", 80, 10)
    found = answer(Store(tmp_path)).sentence
    assert found.startswith("a loses least of 3 models, but b may be as robust: they lose 48.8 %")


def test_equal_scores_are_called_so(tmp_path):
    write(tmp_path, "a", 80, 40)
    found = answer(write(tmp_path, "b", 80, 40)).sentence
    assert found == (
        "a and b have the same scores: they lose 50.0 % of their top-1 under corruption."
    )


def test_few_images_make_nothing_certain(tmp_path, monkeypatch):
    write(tmp_path, "a", 80, 60)
    store = write(tmp_path, "b", 80, 20)
    assert "a certain difference" in answer(store).sentence
    monkeypatch.setattr("stillrobust.report.headline.FEWEST_IMAGES", IMAGES + 1)
    assert "that may be chance" in answer(store).sentence


def test_without_statistics_nothing_is_certain(tmp_path):
    write(tmp_path, "a", 80, 60, with_statistics=False)
    found = answer(write(tmp_path, "b", 80, 20, with_statistics=False)).sentence
    assert found == (
        "a loses less than b, 25.0 % of its top-1 under corruption instead of 75.0 %; without"
        " per-image statistics it is unknown whether that is chance."
    )


def test_the_most_robust_of_several(tmp_path):
    for name, right in (("a", 70), ("b", 40), ("c", 20)):
        write(tmp_path, name, 80, right)
    found = answer(Store(tmp_path)).sentence
    assert found.startswith(
        "a is the most robust of 3 models: it loses 12.5 % of its top-1 under corruption instead of"
        " the 50.0 % of the next, b, a certain difference of 37.5 points ["
    )


def test_one_model_keeps_and_loses(tmp_path):
    found = answer(write(tmp_path, "a", 80, 60, fog=30))
    assert found.sentence.startswith("a keeps 72.5 % [")  # (14 * 60 + 30) / 15 / 80
    assert found.sentence.endswith(
        "] of its clean top-1 under corruption; it loses most under fog, which leaves 37.5 %."
    )
    (chart,) = found.charts[0].charts
    assert len(chart.traces[1]["x"]) == 15
    assert chart.traces[1]["x"][0] == 30, "lowest first"
    assert chart.table.rows[0].cells[0] == "fog"


def test_one_model_under_one_corruption_is_a_partial_evaluation(tmp_path):
    found = answer(write(tmp_path, "a", 80, 20, places=("fog",))).sentence
    start = "Partial evaluation, 1 of 15 corruptions (fog) at severity 3: a keeps 25.0 % ["
    assert found.startswith(start)
    assert found.endswith("] of its clean top-1 under corruption.")


def test_chance_has_no_drop(tmp_path):
    found = answer(write(tmp_path, "a", 4, 3))
    assert found.sentence == "No model reaches a clean top-1 of 5 %, so no drop can be measured."
    assert found.charts == ()


def test_finished_models_and_trained_runs_on_the_same_data_are_compared(tmp_path):
    """Whatever the data is called: its fingerprint is the same."""
    write(tmp_path, "finished", 80, 60)
    write(tmp_path, "trained", 80, 20, "transfer", "full_network", dataset="scenes/val")
    write(tmp_path, "frozen", 80, 10, "transfer", "fixed_feature", dataset="scenes/val")
    found = answer(Store(tmp_path)).sentence
    assert found.startswith("finished, finished model is the most robust of 3 models")
    assert "the next, trained, full network" in found
    rows = summarize(Store(tmp_path), 200).rows
    assert len({row.comparison_key for row in rows}) == 1
    assert len({row.alike for row in rows}) == 3, "letters compare all three"


def test_other_data_is_not_compared(tmp_path):
    write(tmp_path, "a", 80, 60)
    write(tmp_path, "b", 80, 20)
    write(tmp_path, "c", 80, 70, data="other", dataset="other")
    write(tmp_path, "d", 80, 69, data="other", dataset="other")
    summary = summarize(Store(tmp_path), 200)
    lines = {row.cells[0]: row.cells for row in answers_table(summary).rows}
    assert set(lines) == {"Image classification on toy", "Image classification on other"}
    toy, other = lines.values() if next(iter(lines)).endswith("toy") else reversed(lines.values())
    assert (toy[1], toy[3], toy[6]) == ("a", "b", "yes")
    assert (other[1], other[3], other[6]) == ("c", "d", "no")
    assert toy[5].value == pytest.approx(0.5)


def test_a_study_has_its_shares(tmp_path):
    """PRIME gains 25 points upstream, 17.5 with a frozen backbone, 12.5 after full fine-tuning."""
    store = Store(tmp_path)
    study.upstream(store, "", 40)
    study.upstream(store, "prime", 60)
    for transfer, regular, prime in (("fixed_feature", 40, 54), ("full_network", 44, 54)):
        study.downstream(store, "", regular, mode=transfer)
        study.downstream(store, "prime", prime, mode=transfer)
    found = answer(store)
    assert found.sentence == (
        "PRIME's robustness mostly survives the transfer: 70 % of its gain with a frozen backbone,"
        " 50 % after full fine-tuning."
    )
    (group,) = found.charts
    assert [entry.label for entry in group.legend] == ["regular", "PRIME"]
    regular, prime = group.charts[0].traces
    assert regular["y"] == pytest.approx([50, 50, 45])
    assert prime["y"] == pytest.approx([25, 32.5, 32.5])
    assert prime["text"] == ["", "70 %", "50 %"]


def line(technique, upstream, downstream, transfer="full network", width=0.02):
    def gain(value):
        return None if value is None else Gain(value, width and (value - width, value + width))

    return TransferGain(
        "net", technique, "classification", "toy", transfer, "top1",
        upstream=gain(upstream), downstream=gain(downstream),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            [line("ant", 0.1, 0.03), line("ant", 0.1, 0.04)],
            (
                "ANT's robustness partly survives the transfer: 30 to 40 % of its gain after full"
                " fine-tuning."
            ),
        ),
        (
            [line("ant", 0.1, 0.01)],
            (
                "ANT's robustness is lost in the transfer, as far as can be told: 10 % of its gain"
                " after full fine-tuning (which may be chance)."
            ),
        ),
        (
            [line("ant", 0.1, -0.05)],
            (
                "ANT's robustness turns into a loss after the transfer: \N{MINUS SIGN}50 % of its"
                " gain after full fine-tuning (a loss)."
            ),
        ),
        (
            [line("ant", 0.1, 0.01, "fixed feature"), line("ant", 0.1, 0.08)],
            (
                "ANT's robustness survives only some transfers for certain: 10 % of its gain with a"
                " frozen backbone (which may be chance), 80 % after full fine-tuning."
            ),
        ),
        (
            [line("ant", 0.1, 0.05), line("mine(1)", 0.2, 0.18), line("l2", 0.001, 0.1)],
            (
                "Of 3 techniques, mine(1) keeps the largest gain: its robustness mostly survives"
                " the transfer: 90 % of its gain after full fine-tuning."
            ),
        ),
        (
            [line("ant", 0.01, 0.3)],
            (
                "ANT gains no robustness for certain upstream (1.0 points [\N{MINUS SIGN}1.0,"
                " 3.0]), so there is none to transfer."
            ),
        ),
        (
            [line("ant", 0.01, 0.3), line("prime", 0.005, 0.3)],
            (
                "None of 2 techniques gains robustness for certain upstream (at most 1.0 points"
                " [\N{MINUS SIGN}1.0, 3.0]), so there is none to transfer."
            ),
        ),
        (
            [line("ant", 0.1, 0.1, width=None)],
            (
                "Without per-image statistics it is unknown whether a gain is chance: the largest"
                " upstream is 10.0 points."
            ),
        ),
    ],
)
def test_sentences_of_studies(lines, sentence):
    assert transfer_sentence(lines) == sentence
