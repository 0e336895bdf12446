"""Names from data, files and records are text: they do not control a terminal, a table or a page.

Every command runs in this process through ``main``, as a user's does.
"""

import ast
import csv
import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stillrobust
from stillrobust.cli import main
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, COMMON, Cell
from stillrobust.names import slug
from stillrobust.report.renderers import (
    to_csv,
    to_html,
    to_latex,
    to_markdown,
    to_records,
    to_text,
)
from stillrobust.report.table import Column, Table
from stillrobust.runtime.forecast import JobStatus
from stillrobust.runtime.progress import Display, render_job
from stillrobust.runtime.run_log import last_line, note
from stillrobust.storage.store import Run, Store

HOSTILE = (
    "a\x1b]0;owned\x07\x1b[2Jb\u202ecod\u2066e\x9b31m\rfog\ttab [red]x[/red] :smile: <b>|\u200f"
)
SURROGATE = "b\udcff"
PRINTS = (
    "print",
    "typer.echo",
    "typer.secho",
    "click.echo",
    "sys.stderr.write",
    "sys.stdout.write",
)
RAW = "\x1b\x07\x9b\u202e\u2066\u200f\udcff\r"


def run(capsys, monkeypatch, *arguments):
    """Exit status, standard output and standard error of a command."""
    monkeypatch.setattr(sys, "argv", ["stillrobust", *map(str, arguments)])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with pytest.raises(SystemExit) as ending:
        main()
    out, err = capsys.readouterr()
    for text in (out, err):
        assert not any(character in text for character in RAW), ascii(text)
        assert "Traceback" not in text
    return ending.value.code or 0, out, err


def fill(root, name, right):
    store = Store(root)
    store.write_run(
        Run(name, "classification", HOSTILE, None, HOSTILE, {HOSTILE: HOSTILE}, (HOSTILE, "=1+1"),
            "external")
    )  # fmt: skip
    for place in [CLEAN, *((one, 1) for one in COMMON)]:
        correct = np.arange(8) < (right if place[1] else 6)
        arrays = {"image_ids": np.array([f"{HOSTILE}{index}" for index in range(8)])}
        arrays |= {"correct": correct, "label": np.arange(8) % 2, "classes": np.array(2)}
        arrays |= {"confidence": np.full(8, 0.5)}
        scores = {"top1": correct.mean()}
        store.write_cell(Cell(name, *place), "k", scores, {HOSTILE: HOSTILE}, 8, 1.0, arrays)


def test_report_and_compare(tmp_path, capsys, monkeypatch):
    for name, right in (("a", 4), ("b", 2)):
        fill(tmp_path / "s", name, right)
    (tmp_path / "s" / "runs" / f"{HOSTILE.replace('/', '')}.json").write_text("{}")
    out = tmp_path / "out"
    code, text, _ = run(capsys, monkeypatch, "report", tmp_path / "s", "--out", out)
    assert code == 0
    assert r"a\x1b]0;owned\x07" in text
    assert "[red]x" in text
    page = (out / "report.html").read_text()
    assert not any(character in page for character in RAW)
    assert "<b>|" not in page
    for file in ("table.csv", "table.tex"):
        content = (out / file).read_text()
        assert not any(character in content for character in RAW), file
    code, _, _ = run(capsys, monkeypatch, "compare", "a", "b", "--results", tmp_path / "s")
    assert code == 0
    code, _, err = run(capsys, monkeypatch, "compare", HOSTILE, "b", "--results", tmp_path / "s")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    code, _, _ = run(capsys, monkeypatch, "runs", "show", tmp_path / "s", "--severities", "1")
    assert code in (0, 2)


def test_names_of_images_and_classes(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "data" / "val"
    for name in (HOSTILE.replace("/", ""), SURROGATE):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(folder / name / "x\u202e.png")
        (folder / name / "bad\x1b[2J.png").write_bytes(b"no image")
    code, out, err = run(capsys, monkeypatch, "data", "check", "folders", tmp_path / "data")
    assert code in (0, 2, 3), err
    arguments = ["--corruption", "brightness", "--severity", "1", "--workers", "1"]
    code, out, err = run(
        capsys, monkeypatch, "corrupt", tmp_path / "data", tmp_path / "out", *arguments
    )
    assert code in (0, 2, 3), err
    assert "bad\\x1b[2J.png" in out + err


def test_studies(tmp_path, capsys, monkeypatch):
    run_of = "name: a\nruns: [{{task: classification, {}, transfer: {}}}]\n"
    texts = [
        'name: "\\e[2J\\u202e"\nruns: [{"\\e[31m": 1}]\n',
        run_of.format('model: "\\e[2J", data: "\\u202e:x\\0y"', "full_network"),
        run_of.format('model: resnet18, data: "folders:a\\0b"', '"\\e[2J"'),
    ]
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}\x1b[2J.yaml"
        path.write_text(text)
        code, _, err = run(capsys, monkeypatch, "study", "plan", path, "--out", tmp_path / "out")
        assert code in (0, 2, 3), err


def test_paths_that_no_file_can_have(tmp_path, capsys, monkeypatch):
    """In every command that takes a path: one sentence, exit status 2, nothing written."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    for path in ("loop", "x" * 300, "a\0b", "\udcff\ud800", "loop/x", "nowhere\x1b[2J"):
        for command in (
            ["report", path, "--out", "out"],
            ["compare", "a", "b", "--results", path],
            ["runs", "show", path],
            ["study", "plan", f"{path}.yaml", "--out", "out"],
            ["study", "status", "--out", path],
            ["study", "numbers", "x.csv", "--out", path],
            ["corrupt", path, "out"],
            ["data", "check", "folders", path],
            ["runs", "import", "mmdetection", f"{path}.json", "--out", "out"],
            ["runs", "import", "semsegbench", path, "--out", "out"],
            ["evaluate", "--data", f"folders:{path}", "--model", "m.py", "--out", "out"],
            ["evaluate", "--data", "folders:data", "--model", f"{path}.py", "--out", "out"],
        ):
            code, _, err = run(capsys, monkeypatch, *command)
            assert code == 2, (command, err)
            assert len(err.strip().splitlines()) == 1 or "Usage" in err, (command, err)
            assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "loop"], command


def table(*values):
    columns = [Column("name", "Name", is_text=True), Column("value", "Value")]
    return Table.from_rows("T", columns, [[one, 0.5] for one in values])


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd", "'+cmd"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", r"'\tx"),
        ("\rx", r"'\rx"),
        ("-3.2", "-3.2"),
        ("+1e5", "+1e5"),
        ("a=b", "a=b"),
        ("ü", "ü"),
        (-3.2, "-3.2"),
        (-7, "-7"),
    ],
)
def test_no_cell_of_csv_is_a_formula(text, cell):
    rows = list(csv.reader(io.StringIO(to_csv(table(text)))))
    assert rows == [["name", "value"], [cell, "0.5"]]
    assert to_records(table(text)) == [{"name": text, "value": 0.5}]


def test_every_renderer_escapes():
    rows = table(HOSTILE, SURROGATE, "a\nb")
    for render in (to_text, to_csv, to_markdown, to_latex, to_html):
        text = str(render(rows))
        assert not any(character in text for character in RAW), render
        assert len(text.encode()) > 0
    assert len(to_markdown(rows).splitlines()) == 2 + 2 + 3
    assert "<b>" not in to_markdown(rows)
    assert len(to_text(rows).splitlines()) == 2 + 2 + 3


def test_progress_and_logs(tmp_path, capsys):
    display = Display()
    display.work.update(HOSTILE, 1, 2, HOSTILE)
    display.show_update(HOSTILE)
    display.finish(HOSTILE, f"{HOSTILE}\nfailed: all is well")
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 2
    line = render_job(HOSTILE, JobStatus("job", 0.0, 0.0, None, 1, 2, HOSTILE), 200)
    log = tmp_path / "run.log"
    note(log, f"{HOSTILE}{SURROGATE}\n2026-01-01 00:00:00 host[1] all is well")
    written = log.read_text()
    for text in (err, line, written, last_line(log)):
        assert not any(character in text for character in RAW), ascii(text)
    assert written.splitlines()[1].startswith("    2026")


def test_any_text_has_a_short_slug():
    for text in ("\ud800", "\udcff", "x" * 5000, "ü" * 300, HOSTILE, "a/" * 200):
        assert len(slug(text).encode()) <= 160
        assert slug(text) != slug(f"{text}!")
    assert slug("resnet50") == "resnet50"


def test_user_errors_are_values():
    assert str(UserError(HOSTILE)) == HOSTILE, "only what is printed is escaped"


def test_nothing_is_printed_past_the_escapes():
    """Commands print with ``print_text``; the few other places that print call ``printable``."""
    source = Path(stillrobust.__file__).parent
    found = []
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTS:
                safe = all(
                    isinstance(one, ast.Constant) or "printable(" in ast.unparse(one)
                    for one in node.args
                )
                if not safe:
                    found.append(f"{path.name}:{node.lineno}")
    assert not found
