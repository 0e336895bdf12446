"""Every sentence for a user says what to do next; none is left to guess.

The walk reads the source of each ``UserError``.
"""

import ast
import re
from pathlib import Path

import stillrobust

SOURCE = Path(stillrobust.__file__).parent
# What comes after one of these is the next step: "..., but got 7; give 1 to 5", "...: run the study
# again", "Did you mean: x?"
NEXT = re.compile(r"(?:[;:?] |, so )\S.*\S$", re.DOTALL)
# sentences that are put together before they are raised; each is held by the test of its module
SAID_ELSEWHERE = 10


def text_of(node: ast.expr) -> str:
    """The literal parts of a sentence, ``{}`` for what is filled in; empty if there is none."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return ""


def sentences() -> list[tuple[str, str]]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("UserError", "MissingCellsError")
            ):
                assert node.args, f"{path}:{node.lineno} says nothing"
                found.append((f"{path.relative_to(SOURCE)}:{node.lineno}", text_of(node.args[0])))
    return found


def test_every_sentence_names_the_next_step():
    found = sentences()
    assert len(found) > 300
    spoken = [(where, text) for where, text in found if text]
    assert len(found) - len(spoken) <= SAID_ELSEWHERE
    assert not [(where, text) for where, text in spoken if not NEXT.search(text)]


def test_every_sentence_is_one():
    """No full stop at its end, for the command line puts it after a colon; no line break, for it is
    one line.
    """
    for where, text in sentences():
        assert not text.endswith(".") or text.endswith("..."), where
        assert "\n" not in text, where


def test_the_walk_finds_what_is_missing():
    assert NEXT.search("Expected a path, but got {}; check it")
    assert NEXT.search("Unknown run {}. Did you mean: {}?")
    assert not NEXT.search("Expected a path, but got {}")
