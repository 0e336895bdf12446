"""Every command has a summary of one line, and an example that parses: the command exists, its
options too, their values fit. Names and Tab are found without loading torch.
"""

import re
import shlex
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.cli.completion import checkpoints, names_of, studies
from tests.commands import COMMANDS, parse


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_ends_with_an_example_that_parses(path):
    examples = (COMMANDS[path].help or "").split("Example: ")[1:]  # each may have several lines
    assert examples, (
        f"give `stillrobust {' '.join(path)}` a line 'Example: stillrobust ...' in its docstring"
    )
    for example in examples:
        words = shlex.split(example)
        assert tuple(words[1 : len(path) + 1]) == path, example
        parse(words)


GROUPS = {path[0] for path in COMMANDS if len(path) > 1}
SAME_MEANING = {"list", "show", "fetch", "report"}  # the only names that may occur twice
VERBS = {
    "check", "compare", "corrupt", "download", "evaluate", "explain", "export", "import", "list",
    "make", "measure", "pass", "plan", "print", "remove", "rename", "run", "score", "show",
    "transfer", "write",
}  # fmt: skip


@pytest.mark.parametrize("words", [[], *([group] for group in sorted(GROUPS))], ids=" ".join)
def test_summaries_are_whole_imperative_sentences(words):
    shown = CliRunner().invoke(app, [*words, "--help"], terminal_width=80).output.splitlines()
    rows = [re.match(r"^  ([a-z]+) {2,}([A-Z].*)$", line) for line in shown]
    rows = [row for row in rows if row]
    if words:
        expected = {path[1] for path in COMMANDS if path[0] == words[0]}
    else:
        expected = {path[0] for path in COMMANDS}
    assert {row[1] for row in rows} == expected
    for row in rows:
        assert len(row[0]) <= 80
        assert row[2].endswith("."), f"{row[1]}: shorten its summary, {row[2]!r} is cut"
        assert not row[2].endswith("..."), f"{row[1]}: shorten its summary, {row[2]!r} is cut"
        first = row[2].partition(" ")[0].strip(",;").lower()
        assert first in VERBS, f"{row[1]}: start its summary with a verb, or add {first} to VERBS"


def test_no_two_commands_share_a_name_and_mean_different_things():
    names = [path[-1] for path in COMMANDS] + sorted(GROUPS)
    assert {name for name in names if names.count(name) > 1} <= SAME_MEANING


def test_every_group_lists():
    assert all((group, "list") in COMMANDS for group in GROUPS)
    for group in GROUPS:  # none needs an argument
        parse(["stillrobust", group, "list"])


@pytest.mark.parametrize(
    "words",
    [
        "stillrobust techniques show prime",
        "stillrobust checkpoints list",
        "stillrobust checkpoints show ant",
    ],
)
def test_cheap_examples_run(words):
    subprocess.run([sys.executable, "-m", *words.split()], check=True, capture_output=True)


def test_an_example_that_is_wrong_is_seen():
    for wrong in (
        "stillrobust evalu runs/mine",
        "stillrobust evaluate runs/mine --dta x",
        "stillrobust corrupt a b --seed one",
    ):
        with pytest.raises(AssertionError):
            parse(shlex.split(wrong))


def test_help_and_completion_are_light():
    """What takes long to load stays out: the start is what it was without it."""
    heavy = {"torch", "numpy", "numba", "jinja2", "matplotlib", "pydantic"}
    code = (
        f"import sys, stillrobust.cli; assert not {heavy!r} & set(sys.modules), {heavy!r} &"
        " set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("family", "begun", "offered"),
    [
        ("corruptions", "fog,sno", "fog,snow"),
        ("techniques", "pri", "prime"),
        ("recipes", "coco_r50_1", "coco_r50_1x"),
    ],
)
def test_tab_offers_names(family, begun, offered):
    assert names_of(family)(begun) == [offered]


def test_tab_offers_checkpoints_studies_and_local_backbones(tmp_path, monkeypatch):
    assert checkpoints("resnet50/prime") == ["resnet50/prime", "resnet50/prime_jsd"]
    assert "ant3x3" in checkpoints("ant")
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "made" / "lamp").mkdir(parents=True)
    (tmp_path / "made" / "lamp" / "checkpoint.json").write_text('{"architecture": "resnet_mini"}')
    (tmp_path / "made" / "checkpoint.json").write_text("not of ours")
    monkeypatch.chdir(tmp_path)
    assert studies("mi") == ["miniature", "mine.yaml"]
    assert names_of("backbones")("resnet_mini(") == ["resnet_mini(weights='made/lamp')"]


TYPOS = {
    "evaluate --model resnet5O --data folders:data --out x": "did you mean resnet50",
    "evaluate --model timm:resnet5O --data folders:data --out x": "Did you mean: resnet50",
    "evaluate --model torchvision:resnet5O --data folders:data --out x": "Did you mean: resnet50",
    "evaluate --model tmm:resnet50 --data folders:data --out x": "Did you mean: timm",
    "evaluate --model nowhere.onnx --data folders:data --out x": "nowhere.onnx",
    "evaluate nowhere --data folders:data --out x": "nowhere",
    "evaluate --model resnet50 --data foldrs:data --out x": "Did you mean: folders",
    "evaluate --model resnet50 --data folders:nowhere --out x": "nowhere",
    "evaluate --model resnet50 --data folders:data --out x --corruptions fg": "Did you mean: fog",
    "evaluate --model resnet50 --data folders:data --out x --severities 7": "severities among",
    "evaluate --model resnet50 --data folders:data --out x --task detektion": "detection",
    "train --backbone resnet5O --data folders:data --out x": "Did you mean: resnet50",
    "train --backbone resnet50(weights='annt') --data folders:data --out x": "Did you mean: ant",
    "train --backbone resnet18 --data folders:nowhere --out x": "nowhere",
    "train --backbone resnet18 --data folders:data --out x --technique prme": "Did you mean: prime",
    "train --backbone resnet18 --data folders:data --out x --recipe smal": "Did you mean: small",
    "train --backbone resnet18 --data folders:data --out x --transfer full": "full_network",
    "robustify --backbone resnt18 --technique prime --data source --out x": "resnet18",
    "robustify --backbone resnet18 --technique prme --data source --out x": "Did you mean: prime",
    "compare a b --results nowhere": "nowhere",
    "checkpoints show annt": "Did you mean: ant",
    "checkpoints fetch annt": "Did you mean: ant",
    "checkpoints fetch timm:resnt50": "Did you mean: resnet50",
    "techniques show prme": "Did you mean: prime",
    "study plan tabel1": "Did you mean: table1",
    "data check foldrs:data": "Did you mean: folders",
}


def test_wrong_names_are_found_without_loading_torch(tmp_path):
    """It takes seconds to load."""
    code = f"""
import sys
from typer.testing import CliRunner
from stillrobust.cli import app
from stillrobust.errors import UserError
for line, expected in {TYPOS!r}.items():
    error = CliRunner().invoke(app, line.split()).exception
    assert isinstance(error, UserError) and expected in str(error), (line, error)
    assert not {{"torch", "timm"}} & set(sys.modules), line
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert not list(tmp_path.iterdir())
