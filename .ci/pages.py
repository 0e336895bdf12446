"""The pages of the site that the code writes itself: the commands with their help, and the cards of
the techniques.
"""

from collections.abc import Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from stillrobust.cli import app
from stillrobust.robustify import TECHNIQUES


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the written pages to those of docs/."""
    for name, text in (("commands.md", commands()), ("cards.md", cards())):
        files.append(File.generated(config, name, content=text))
    return files


def commands() -> str:
    """A section a command: what ``--help`` says."""
    sections = [
        f"## {name}\n\n```text\n{text}\n```\n"
        for name, text in _helps(typer.main.get_command(app), "stillrobust")
    ]
    return "# Commands\n\nWhat `--help` of each command says.\n\n" + "\n".join(sections)


def _helps(command: Any, name: str) -> Iterator[tuple[str, str]]:
    if hasattr(command, "commands"):
        for below, one in command.commands.items():
            yield from _helps(one, f"{name} {below}")
    else:
        yield name, command.make_context(name, [], resilient_parsing=True).get_help()


def cards() -> str:
    """A section a technique: what ``stillrobust card`` prints."""
    sections = [
        f"## {name}\n\n```text\n{entry.card.text()}\n```\n" for name, entry in TECHNIQUES.items()
    ]
    return "# Method cards\n\nWhat `stillrobust card NAME` prints.\n\n" + "\n".join(sections)
