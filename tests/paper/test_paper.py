"""The paper as data, its claims judged, its tables and figures drawn: from invented measurements,
without a model.
"""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from stillrobust import paper
from stillrobust.errors import UserError
from stillrobust.report import results_table, summarize, to_latex
from stillrobust.report.claims import claims_text, judge
from stillrobust.report.exhibit_figures import draw_exhibit
from stillrobust.report.export import export_measurements
from stillrobust.report.paper_exhibits import paper_exhibits
from stillrobust.report.paper_report import write_paper_report
from stillrobust.report.renderers import escape_latex, latex_line
from stillrobust.storage.store import Store
from stillrobust.study import Site, select
from tests.paper_store import fill

# Means over the 15 corruptions that follow from Tables 1 and 2 (protocol, section 4.2), in %.
MEANS = {
    "C1": 29.29,
    "C2": 23.89,
    "C3": 18.21,
    "C4": 21.26,
    "S1": 29.03,
    "S2": 20.09,
    "S3": 17.77,
    "S4": 17.17,
}


# ---- the printed values --------------------------------------------------------------------------


def test_printed_values_agree_with_each_other():
    numbers = paper.printed_values()
    assert {run: round(100 * numbers[run]["drop"], 2) for run in MEANS} == MEANS
    for run in ("C17", "C22", "S17", "S22"):
        row = numbers[run]
        assert abs(1 - row["corrupted"] / row["clean"] - row["drop"]) < 0.0003, (
            "printed from unrounded scores: 0.03 points"
        )


def test_claims_are_about_runs_that_exist():
    runs = {run.id: run for run in select(["paper"]).runs}
    metrics = {
        "classification": {"top1"},
        "detection": {"box_ap", "mask_ap"},
        "segmentation": {"miou"},
    }
    found = paper.load_claims()
    assert len({claim.id for claim in found}) == len(found) >= 20
    for claim in found:
        for statement in claim.statements:
            for run in statement.runs:
                assert claim.subject_of(statement)[0] in metrics[runs[run].task], (claim.id, run)


def test_claims_about_printed_values_hold_as_printed():
    said = {claim.id: judge(claim, {}) for claim in paper.load_claims()}
    assert all(one.verdict == "not measured" for one in said.values())
    printed = {key for key, one in said.items() if one.printed == "holds"}
    assert printed == {
        "robust-fixed-coco", "robust-fixed-ade20k", "swin-fixed-coco-weather",
        "swin-fixed-ade20k-noise", "swin-fixed-ade20k-weather", "prime-drop",
        "prime-clean-coco", "prime-clean-ade20k",
    }  # fmt: skip
    in_part = {key for key, one in said.items() if one.printed == "holds where printed"}
    assert in_part == {"prime-clean-coco-models", "prime-clean-ade20k-models"}
    assert not any(one.printed == "does not hold" for one in said.values())


def test_where_the_paper_contradicts_itself_is_said_on_both_sides():
    found = {claim.id: claim.contradicts for claim in paper.load_claims()}
    pairs = {key: other for key, other in found.items() if other}
    assert pairs == {
        "base-clean-alike": "base-clean-lower",
        "base-clean-lower": "base-clean-alike",
    }
    said = [judge(claim, {}) for claim in paper.load_claims() if claim.contradicts]
    text = claims_text(said)
    assert all(f"contradicts {key}" in text for key in pairs)


def test_a_printed_value_that_speaks_against_a_claim_refutes_it(monkeypatch):
    """One of four statements is printed: with the printed values exchanged, the claim does not
    hold.
    """
    claim = next(one for one in paper.load_claims() if one.id == "prime-clean-coco-models")
    values = paper.printed_values()
    exchanged = values | {"C17": values["C22"], "C22": values["C17"]}
    monkeypatch.setattr("stillrobust.report.claims.printed_values", lambda: exchanged)
    assert judge(claim, {}).printed == "does not hold"


# ---- claims, planted -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    fill(root, "robust", 0.9, 0.8)
    fill(root, "twin", 0.9, 0.8)
    fill(root, "fragile", 0.9, 0.5)
    return {(row.run.name, row.robustness.metric): row for row in summarize(Store(root)).rows}


def claim(*statements):
    content = {
        "id": "x",
        "text": "x",
        "source": "x",
        "of": {"metric": "top1", "quantity": "drop"},
        "statements": list(statements),
    }
    return paper.Claim.model_validate(content)


TRUE, FALSE = {"less": ["robust", "fragile"]}, {"less": ["fragile", "robust"]}
OPEN, ABSENT = {"less": ["robust", "twin"]}, {"less": ["robust", "nowhere"]}


@pytest.mark.parametrize(
    ("statements", "verdict"),
    [
        ([TRUE], "supported"),
        ([FALSE], "refuted"),
        ([OPEN], "undecided"),
        ([ABSENT], "not measured"),
        ([TRUE, TRUE], "supported"),
        ([TRUE, OPEN], "undecided"),
        ([TRUE, FALSE], "refuted"),
        ([ABSENT, FALSE], "refuted"),
        ([ABSENT, TRUE], "not measured"),
        ([{**TRUE, "quantity": "drop.noise"}], "supported"),
        ([{**FALSE, "quantity": "corrupted"}], "supported"),
        ([{**TRUE, "quantity": "clean"}], "undecided"),
        ([{"alike": ["robust", "twin"], "within": 10}], "supported"),
        ([{"alike": ["robust", "fragile"], "within": 1}], "refuted"),
        ([{"alike": ["robust", "twin"], "within": 0.01}], "undecided"),
    ],
)
def test_true_false_and_ambiguous_claims_are_told_apart(rows, statements, verdict):
    assert judge(claim(*statements), rows).verdict == verdict


def test_the_effect_is_in_its_interval_and_paired(rows):
    one = judge(claim(TRUE), rows).statements[0]
    assert one.low < one.effect < one.high
    assert one.effect == pytest.approx(
        rows["fragile", "top1"].robustness.drop - rows["robust", "top1"].robustness.drop
    )
    apart = [rows[name, "top1"].interval for name in ("fragile", "robust")]
    assert one.high - one.low < sum(high - low for low, high in apart), (
        "what is common to both cancels"
    )


def test_without_statistics_of_the_same_images_nothing_is_decided(tmp_path):
    fill(tmp_path, "robust", 0.9, 0.8, images=300)
    fill(tmp_path, "fragile", 0.9, 0.5, images=200)
    found = {(row.run.name, row.robustness.metric): row for row in summarize(Store(tmp_path)).rows}
    one = judge(claim(TRUE), found)
    assert one.verdict == "undecided"
    assert "no interval" in one.deciding.reason


def test_wrong_claims_are_one_sentence(tmp_path):
    file = tmp_path / "claims.yaml"
    with pytest.raises(UserError, match="Cannot read the claims"):
        paper.load_claims(file)
    for text in (
        "- {id: x}",
        "[",
        "7",
        "- {id: x, text: x, source: x, of: {metric: top1, quantity: drop}, statements: [{}]}",
        (
            "- {id: x, text: x, source: x, of: {metric: top1, quantity: drop}, contradicts: y,"
            " statements: [{less: [a, b]}]}"
        ),
    ):
        file.write_text(text)
        with pytest.raises(UserError) as caught:
            paper.load_claims(file)
        assert "\n" not in str(caught.value)


# ---- tables and figures --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Every run of the paper; later runs drop more. One is left out."""
    root = tmp_path_factory.mktemp("paper") / "results"
    selection = select([])
    for index, run in enumerate(selection.runs):
        if run.id != "S3":
            transfer = run.transfer
            fill(
                root,
                run.name(selection.protocol),
                0.9,
                0.8 - 0.005 * index,
                run.task,
                60,
                (1,),
                run.backbone,
                transfer,
            )
    return root


@pytest.fixture(scope="module")
def made(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, write_paper_report(store, out, replicates=50)


def test_every_exhibit_as_pdf_and_png_with_fonts_as_text(made):
    out, report = made
    names = ["table1", "table2", "tables4-5", *(f"figure{number}" for number in range(2, 7))]
    assert {path.stem for path in report.files if path.suffix == ".pdf"} == set(names)
    for name in names:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        pdf = (out / f"{name}.pdf").read_bytes()
        assert b"/FontFile2" in pdf, "TrueType, embedded"
        assert b"/Type3" not in pdf


def test_a_run_that_is_not_complete_is_said_and_not_draw_exhibit(made):
    out, report = made
    assert report.missing == ("S3",)
    assert "DeepAug+ & -- & --" in (out / "table2.tex").read_text()
    assert "not measured" in report.side_by_side


def test_ours_stand_beside_the_printed_values(made):
    _, report = made
    heads = [
        line.split(" (")[0] for line in report.side_by_side.splitlines() if line.startswith("Table")
    ]
    assert heads == ["Table 1", "Table 2", "Table 4", "Table 5"]
    regular = report.side_by_side.splitlines()
    line = next(index for index, text in enumerate(regular) if "36.09" in text)
    assert "printed" in regular[line]
    assert "ours" in regular[line + 1]
    judged = json.loads((made[0] / "claims.json").read_text())
    assert {one["verdict"] for one in judged} <= {
        "supported",
        "refuted",
        "undecided",
        "not measured",
    }
    assert (
        next(one for one in judged if one["id"] == "robust-fixed-ade20k")["verdict"]
        == "not measured"
    )


def test_latex_says_which_runs_are_alike(made):
    assert "Alike" not in (made[0] / "table1.tex").read_text(), "detection has no statistics here"
    text = (made[0] / "table2.tex").read_text()
    assert r"Mean [95 \%] & Alike \\" in text
    assert "share a letter are not distinguishable" in text
    assert re.search(r"\]\} & [a-z]+ \\\\", text), "a row's letters stand after its interval"
    assert re.search(r"^alike & [a-z]", (made[0] / "tables4-5.tex").read_text(), re.MULTILINE)


def test_latex_is_well_formed(made):
    for path in made[1].files:
        if path.suffix == ".tex":
            text = path.read_text()
            assert text.isascii()
            assert re.findall(r"\\begin\{([\w*]+)\}", text) == [
                n for _ in range(text.count("caption")) for n in ("table*", "tabular")
            ]
            assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
            for tabular in re.findall(
                r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL
            ):
                lines = [line for line in tabular[1].splitlines() if line.endswith(r"\\")]
                assert len(lines) >= 3
                assert all(
                    len(re.findall(r"(?<!\\)&", line)) == len(tabular[0]) - 1 for line in lines
                )


@pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="no LaTeX on this machine: apt-get install texlive-latex-base",
)
def test_latex_compiles(store, made, tmp_path):
    """Every table of the paper, the page's table, and every character that LaTeX gives a meaning
    to.
    """
    tables = [path.read_text() for path in made[1].files if path.suffix == ".tex"]
    assert len(tables) == 3  # Tables 1, 2, and 4 with 5
    tables.append(to_latex(results_table(summarize(Store(store), replicates=50).rows)))
    every = "".join(map(chr, range(32, 127))) + "\u2212\u2013\u00d7\u03b5\u4e2d\t"
    lines = "\n".join(map(latex_line, ([every], ["[x] * &"], ["* y"])))
    tables.append(rf"\begin{{tabular}}{{l}}{lines}\end{{tabular}}")
    body = "\n\n".join(tables)
    (tmp_path / "all.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stdout[-2000:]
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF")
    assert "Missing character" not in ended.stdout


def test_names_from_data_are_text_in_latex():
    assert escape_latex(r"a_b & 50% \x{}") == r"a\_b \& 50\% \textbackslash{}x\{\}"


def test_the_same_numbers_give_the_same_files(store, made):
    first = next(
        exhibit
        for exhibit in paper_exhibits(Store(store), replicates=50).exhibits
        if exhibit.name == "table1"
    )
    again = draw_exhibit(first, "Severity 1")
    for kind in ("pdf", "png"):
        assert again[kind] == (made[0] / f"table1.{kind}").read_bytes()


def test_a_store_of_other_runs_is_refused(tmp_path):
    fill(tmp_path / "s", "mine", 0.9, 0.7)
    for folder in ("s", "nothing"):
        with pytest.raises(UserError, match="has tables and figures of all other runs"):
            write_paper_report(tmp_path / folder, tmp_path / "out", replicates=20)
    assert not (tmp_path / "out").exists()


def test_export_has_every_number_with_its_key(store, tmp_path):
    selection, site = select([]), Site(store.parent)
    written = export_measurements(selection, site, tmp_path / "all.json")
    listed = json.loads((tmp_path / "all.json").read_text())
    assert written == len(listed) == (57 + 23) * 16, "each run of COCO has two metrics"
    assert len({(one["run"], one["metric"], one["corruption"]) for one in listed}) == written
    export_measurements(selection, site, tmp_path / "all.csv")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == written + 1
    with pytest.raises(UserError, match=r"\.csv or \.json"):
        export_measurements(selection, site, tmp_path / "all.xlsx")


def test_intervals_of_an_ambiguous_claim_hold_their_level():
    """Two runs of the same truth: the claim is decided in about 5 % of simulated stores, and not in
    many more.
    """
    from stillrobust.analysis.intervals import bootstrap_weights, paired_interval

    rng, decided, images = np.random.default_rng(0), 0, 200
    weights = bootstrap_weights([str(number) for number in range(images)], 100)
    for _ in range(300):
        difference = rng.random(images) - rng.random(images)
        low, high = paired_interval(weights @ difference / weights.sum(1), difference.mean())
        decided += low > 0 or high < 0
    assert decided <= 0.09 * 300
