"""Every code block of README.md and docs/ is run, or is marked as not run, says why, and is held
against the command line.

How a block is marked stands in CONTRIBUTING.md. The blocks of a page share a folder and a
namespace, in their order.
"""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from stillrobust.cli import app
from tests.commands import parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = ("bash", "python", "yaml", "text")
BLOCK = re.compile(
    r"(?:^<!-- (not run|file): (.+?) -->\n)?^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    line: int
    mark: str
    """``not run``, ``file``, or empty for a block that is run."""
    said: str
    """Why it is not run; the file's name."""
    language: str
    code: str


def blocks(text: str) -> list[Block]:
    return [
        Block(
            text[: match.start()].count("\n") + 1,
            match[1] or "",
            match[2] or "",
            match[3],
            match[4],
        )
        for match in BLOCK.finditer(text)
    ]


def check(block: Block) -> None:
    """What can be said of a block without running it."""
    assert block.language in LANGUAGES, (
        f"line {block.line}: give the block one of the languages {', '.join(LANGUAGES)}"
    )
    if block.language == "yaml":
        yaml.safe_load(block.code)
    if block.language == "bash":
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["stillrobust"]:
                parse(words)
    if block.language == "python":
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), (
                        f"line {block.line}: {node.module} has no {alias.name}"
                    )


def own_commands(block: Block) -> list[list[str]]:
    """The words of each line, if all lines are commands of ours that need no shell."""
    lines = block.code.replace("\\\n", " ").splitlines()
    words = [found for line in lines if (found := shlex.split(line, comments=True))]
    plain = block.language == "bash" and not re.search(r"[|&;<>$*`]", block.code)
    return words if plain and all(one[0] == "stillrobust" for one in words) else []


def check_and_run(block: Block, folder: Path, namespace: dict) -> None:
    check(block)
    if block.mark == "file":
        (folder / block.said).write_text(block.code)
    elif block.mark == "" and block.language == "python":
        exec(compile(block.code, f"block at line {block.line}", "exec"), namespace)
    elif block.mark == "" and (commands := own_commands(block)):
        for words in commands:  # in this process, which has loaded torch already
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, (
                f"line {block.line}: {done.exception}: {done.output[-2000:]}"
            )
    elif block.mark == "" and block.language == "bash":
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(
            ["bash", "-ec", block.code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"line {block.line}: {done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    found = blocks(text)
    assert len(found) * 2 == len(re.findall(r"^\s*```", text, re.MULTILINE)), (
        "a block is indented or not closed"
    )
    namespace = {}
    for block in found:
        check_and_run(block, tmp_path, namespace)


@pytest.mark.parametrize(
    "wrong",
    [
        "```\nls\n```\n",
        "<!-- not run: x -->\n```bash\nstillrobust trian --data x\n```\n",
        "<!-- not run: x -->\n```python\nfrom stillrobust import corupt\n```\n",
        "```python\nassert 1 == 2\n```\n",
        "```bash\nfalse\n```\n",
    ],
)
def test_a_wrong_block_is_seen(wrong, tmp_path):
    (block,) = blocks(wrong)
    with pytest.raises(AssertionError):
        check_and_run(block, tmp_path, {})
