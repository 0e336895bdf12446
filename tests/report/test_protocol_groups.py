"""What differs is never put into one table, in any of its forms, and what differs is said; runs of
several seeds get their mean.
"""

import csv
import io
import json
import re
from statistics import fmean

import numpy as np
import pytest

from stillrobust.analysis.protocols import comparable_protocol
from stillrobust.grid import COMMON, Cell
from stillrobust.paper import Claim
from stillrobust.report import render_page, results_table, summarize, to_csv, to_latex, to_text
from stillrobust.report.claims import TWO_PROTOCOLS, judge
from stillrobust.report.downloads import report_files
from stillrobust.report.paper_figures import list_paper_figures
from stillrobust.report.protocol_groups import (
    protocol_difference,
    protocol_groups,
)
from stillrobust.report.results_table import compact_letters
from stillrobust.report.seed_means import merge_seeds
from stillrobust.storage.store import Run, Store
from tests.report.test_page import Page


def write(store, name, backbone, kept, protocol, severities=(1,), training=None, about=None):
    """A run that is right on the first 80 of 100 images, and on the first ``kept`` of them where
    they are corrupted.
    """
    run = Run(
        name,
        "classification",
        backbone,
        "full_network",
        "toy",
        {"training": training or {}, **(about or {})},
        ("a", "b"),
    )
    store.write_run(run)
    for place in [("clean", 0), *((c, s) for c in COMMON for s in severities)]:
        correct = np.arange(100) < (kept if place[1] else 80)
        statistics = {"image_ids": np.array([f"{i}.png" for i in range(100)]), "correct": correct}
        circumstances = {"weights": name, "data_name": name, **protocol}
        store.write_cell(
            Cell(name, *place), "k", {"top1": correct.mean()}, circumstances, 100, 1.0, statistics
        )


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two runs of ours, one in the reference's channel order, one at severity 3, and an imported
    one of unknown seed.
    """
    store = Store(tmp_path_factory.mktemp("store"))
    write(store, "a", "net_a", 60, {"seed": 0})
    write(store, "b", "net_b", 20, {"seed": 0})
    write(store, "c", "net_a", 70, {"seed": 0, "channel_order": "bgr"})
    write(store, "d", "net_d", 50, {"seed": 5}, (3,))
    imported = {"imported": {"source": "robustbench"}}
    write(store, "e", "net_e", 10, {"seed": "unknown", **imported}, about=imported)
    return store, summarize(store, replicates=50)


def test_groups_have_one_protocol(mixed):
    _, summary = mixed
    names = [[row.run.name for row in section] for section in protocol_groups(summary.rows)]
    assert sorted(map(sorted, names)) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert names[-1] == ["e"]  # imported rows last
    assert not summary.incomplete  # a run of another protocol at other severities makes no hole
    found = {
        section[0].run.name: protocol_difference(section, summary.rows)
        for section in protocol_groups(summary.rows)
    }
    assert found["c"] == "channel order bgr; seed 0; severities 1"
    assert found["e"] == "channel order nothing; seed unknown; severities 1"
    assert comparable_protocol({"weights": 1, "data_name": 2, "imported": 3, "seed": 4}) == {
        "seed": 4
    }
    assert protocol_difference(summary.rows[:1], summary.rows[:1]) == ""
    assert {row.run.name: row.alike for row in summary.rows} == {
        "a": "a",
        "b": "b",
        "c": "a",
        "d": "a",
        "e": "a",
    }


def test_terminal_names_what_differs(mixed):
    _, summary = mixed
    lines = to_text(results_table(summary.rows), 200).split("\n")
    heads = [line for line in lines if "measured with" in line]
    assert len(heads) == 4
    assert (
        "Image classification on toy, top-1, measured with channel order bgr; seed 0; severities 1"
        in heads
    )
    below = lines[lines.index(next(head for head in heads if "seed unknown" in head)) + 1]
    assert "net_e" in below
    assert "(a)" not in "".join(lines)  # in another block the same model needs no other name


def test_page_has_a_block_and_a_section_for_each(mixed):
    store, summary = mixed
    text = render_page(store, summary)
    table = Page(text).runs
    heads = [line[0] for line in table if len(line) == 1]
    assert len(heads) == 4
    assert any("seed unknown" in head for head in heads)
    severity = text.split('id="severity"')[1].split("</section>")[0]
    assert severity.count("<h3>") == 4
    assert "channel order bgr; seed 0; severities 1</h3>" in severity
    best = [line for line in text.split("<tr ") if "number bar drop best" in line]
    assert [line.split('"')[1] for line in best] == ["a"], "only of what is compared"
    sentence = text.split("<h1>")[1].split("</h1>")[0].replace("\u00a0", " ")
    assert sentence.startswith("net_a is more robust than net_b: it loses 25.0 % of its top-1")
    assert "channel order nothing; seed 0; severities 1." in text.split("<nav")[0]


def test_files_say_the_protocol(mixed):
    store, summary = mixed
    keys = {
        line["run"]: line["protocol"]
        for line in csv.DictReader(io.StringIO(to_csv(results_table(summary.rows))))
    }
    assert keys["a"] == keys["b"]
    assert len(set(keys.values())) == 4
    found = {
        row["run"]: row["protocol"]
        for row in json.loads(report_files(store, summary)["results.json"].content)["rows"]
    }
    assert found["c"] == {"seed": 0, "channel_order": "bgr"}
    latex = to_latex(results_table(summary.rows))
    assert latex.count(r"\multicolumn{8}{l}{") == 4
    figures = [
        one.name for one in list_paper_figures(store.runs(), summary) if "drop_by" in one.name
    ]
    assert len(figures) == len(set(figures)) == 4


def test_no_claim_across_protocols(mixed):
    _, summary = mixed
    rows = {(row.run.name, "top1"): row for row in summary.rows}
    about = {
        "id": "x",
        "text": "a is below c",
        "source": "here",
        "of": {"metric": "top1", "quantity": "drop"},
    }
    claim = Claim.model_validate({**about, "statements": [{"less": ["a", "c"]}]})
    judged = judge(claim, rows)
    assert (judged.verdict, judged.deciding.reason) == ("undecided", TWO_PROTOCOLS)


def test_a_mean_of_seeds_everywhere(tmp_path):
    store = Store(tmp_path)
    for seed, kept in enumerate((60, 50, 58)):
        write(store, f"s{seed}", "net", kept, {"seed": 0}, training={"recipe": {"seed": seed}})
    write(store, "o", "other", 10, {"seed": 0}, training={"recipe": {"seed": 0}})
    summary = summarize(store, replicates=50)
    drop = fmean(1 - kept / 80 for kept in (60, 50, 58))
    (mean,) = json.loads(report_files(store, summary)["results.json"].content)["seed_means"]
    assert mean["run"] == "mean of 3 seeds"
    assert mean["drop"] == pytest.approx(drop)
    shown = f"{100 * drop:.1f} ["
    lines = [
        line for line in Page(render_page(store, summary)).runs if "mean of 3 seeds" in line[0]
    ]
    assert len(lines) == 1
    assert lines[0][-1].startswith(shown)
    assert re.search(
        r"net \(mean of 3 seeds\) & 80.0 \{\\scriptsize \[\S+ \S+\]\} & 56.0 .*( & 30.0){4}"
        rf" & {100 * drop:.1f} \{{\\scriptsize \[",
        to_latex(results_table(summary.rows)),
    )
    lines = to_text(results_table(summary.rows)).split("\n")
    at = next(index for index, line in enumerate(lines) if "(mean of 3" in line)
    assert lines[at].endswith(f"{100 * drop:.1f}")
    assert "[" not in lines[at], "the intervals are below their numbers"
    assert lines[at + 1].count("[") == 3
    assert [row.run.name for row in merge_seeds(summary.rows)] == ["mean of 3 seeds", "o"]


def test_letters_are_compact_letters():
    assert compact_letters("") == ""
    assert compact_letters("a") == "a"
    assert compact_letters("ab") == "a b"
    assert compact_letters("abcdf") == "a–d f"
    assert compact_letters("yza1b1") == "y–b1"
    assert compact_letters("aceg") == "a c e g"
