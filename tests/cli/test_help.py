"""Every command's help has an example, and the example parses: the command exists, its options too,
their values fit.
"""

import shlex
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize(
    "words", ["stillrobust card prime", "stillrobust list checkpoints", "stillrobust show ant"]
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
