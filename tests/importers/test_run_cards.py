"""Cards of runs: what is exported is what others import; a card that contradicts itself is not."""

import json
from copy import deepcopy

import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.errors import UserError
from stillrobust.grid import Cell
from stillrobust.importers import import_results
from stillrobust.importers.run_cards import parse_card
from stillrobust.report import summarize
from stillrobust.storage.store import Store
from tests.analysis.test_gate import planted_store

PROTOCOL = {
    "task": "classification",
    "data": "f" * 64,
    "weights": "a" * 64,
    "images": 60,
    "stage": "before resize",
    "seed": 0,
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    protocols = {run: {**PROTOCOL, "weights": run[0] * 64} for run in ("mine", "other")}
    store = planted_store(
        folder / "results", {"mine": 0, "other": 3}, images=60, protocol=protocols
    )
    for run in protocols:
        out = CliRunner().invoke(
            app, ["runs", "export", str(folder), run, "--card", str(folder / "out" / f"{run}.json")]
        )
        assert out.exit_code == 0, out.exception
    assert "Cite it so: mPC is the mean" in out.output
    return store, folder / "out"


@pytest.fixture
def content(exported):
    return json.loads((exported[1] / "mine.json").read_text())


def test_a_card_has_what_a_reader_needs(content, exported):
    (row, _) = summarize(exported[0]).rows
    metric = content["metrics"]["top1"]
    assert content["weights"] == "m" * 64
    assert content["data"] == "f" * 64
    assert metric["drop"] == {
        "value": pytest.approx(row.robustness.drop),
        "interval": pytest.approx(list(row.interval)),
    }
    assert metric["rpc"]["interval"] == pytest.approx([1 - end for end in row.interval[::-1]])
    assert set(metric["groups"]) == {"noise", "blur", "weather", "digital"}
    assert len(metric["scores"]) == 16
    for part in (
        "severity 3 on 60 images of planted",
        "seed 0",
        "data ffffffffffff",
        "over images",
    ):
        assert part in content["cite"]


def test_imported_cards_stand_beside_runs_and_make_a_page(tmp_path, exported):
    store, folder = exported
    written = import_results("card", folder, tmp_path / "results")
    assert [one.run for one in written] == ["card-mine-mmmmmmmm", "card-other-oooooooo"]
    before = {row.run.name: row for row in summarize(store).rows}
    rows = summarize(Store(tmp_path / "results")).rows
    for row in rows:
        source = before[row.run.name.split("-")[1]]
        assert row.robustness.drop == pytest.approx(source.robustness.drop)
        assert row.interval == pytest.approx(source.interval)
        assert row.comparison_key == source.comparison_key, "the same table as the runs"
        assert row.alike == "", "letters need statistics of the images"
    import_results("card", folder, tmp_path / "results")
    out = CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "board")])
    assert out.exit_code == 0, out.exception
    assert "card-other-oooooooo" in (tmp_path / "board" / "report.html").read_text()
    with pytest.raises(UserError, match="a card of any run on ImageNet"):
        import_results("card", folder, tmp_path / "results", dataset="ImageNet")


def test_an_imported_run_has_no_card_of_its_own(tmp_path, exported):
    import_results("card", exported[1] / "mine.json", tmp_path)
    out = CliRunner().invoke(
        app,
        ["runs", "export", str(tmp_path), "card-mine-mmmmmmmm", "--card", str(tmp_path / "x.json")],
    )
    assert "was imported" in str(out.exception)
    assert not (tmp_path / "x.json").exists()


def change(path, value):
    def apply(card):
        *parents, last = path.split("/")
        for key in parents:
            card = card[key]
        if value is None:
            del card[last]
        else:
            card[last] = value

    return apply


HOSTILE = {
    "a better mPC": (change("metrics/top1/mpc/value", 0.99), "its mpc of top1 is 0.99"),
    "a better group": (change("metrics/top1/groups/noise/value", 0.0), "its noise of top1"),
    "a missing group": (change("metrics/top1/groups/noise", None), "lacks the drop of a group"),
    "a hole": (change("metrics/top1/scores/fog", None), "not complete"),
    "no clean score": (change("metrics/top1/scores/clean", None), "not complete"),
    "a clean severity": (change("metrics/top1/scores/fog/0", 0.5), "severity than its own"),
    "a score above 1": (change("metrics/top1/scores/fog/3", 1.5), "less than or equal to 1"),
    "a score of text": (change("metrics/top1/scores/fog/3", "0.5"), "valid number"),
    "an infinite score": (change("metrics/top1/scores/fog/3", 1e999), "Infinity"),
    "no interval": (change("metrics/top1/drop/interval", [0.5, 0.1]), "ends before it starts"),
    "a path": (change("metrics/top1/scores/..~1x", {"3": 0.5}), "not a corruption"),
    "a run that is a path": (change("run", "../../x"), "run"),
    "an unknown key": (change("script", "x"), "script"),
    "another version": (change("card", 2), "card"),
    "another task": (change("task", "poetry"), "task"),
    "a score of another task": (change("task", "detection"), "task"),
    "other weights": (change("weights", "b" * 64), "its weights is not that of its protocol"),
    "a number of images": (change("images", 61), "its images is not"),
    "control characters": (change("dataset", "x\x1b[31m"), "dataset"),
    "a protocol of text": (change("protocol", "x"), "protocol"),
    "a long protocol": (change("protocol/x", "y" * 30_000), "more than 20,000"),
    "wrong parts of a protocol": (change("protocol/left_out", {"a": -1}), "left_out"),
    "severity 7": (change("metrics/top1/severities", [7]), "1 to 5"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_card_is_one_sentence_and_writes_nothing(name, tmp_path, content):
    attack, fault = HOSTILE[name]
    card = deepcopy(content)
    attack(card)
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card))
    with pytest.raises(UserError) as caught:
        import_results("card", path, tmp_path / "results")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"card": 1, "card": 1}', "[" * 10_000, "\udc80"])
def test_what_is_not_a_card(text, tmp_path):
    path = tmp_path / "card.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="Expected a card"):
        import_results("card", path, tmp_path / "results")


def test_one_bad_card_of_a_folder_writes_nothing(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(UserError, match=r"b\.json"):
        import_results("card", tmp_path, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_deep_protocols_are_refused(tmp_path, content):
    deep = []
    for _ in range(30):
        deep = [deep]
    content["protocol"]["x"] = deep
    with pytest.raises(UserError, match="nested too deeply"):
        parse_card(json.dumps(content), tmp_path / "card.json")


def test_a_run_with_holes_has_no_card(tmp_path):
    store = planted_store(tmp_path / "results", {"mine": 0}, images=40)
    store.remove_cells([Cell("mine", "fog", 3)])
    out = CliRunner().invoke(
        app, ["runs", "export", str(tmp_path), "mine", "--card", str(tmp_path / "x.json")]
    )
    assert "Expected all cells of the 15 corruptions" in str(out.exception)
    assert not (tmp_path / "x.json").exists()
