"""Pages of the site that the code writes: the commands, the cards of the techniques, and the API
reference.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import stillrobust
from stillrobust.cli import app
from stillrobust.robustify import TECHNIQUES


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of the API reference to the navigation."""
    assert config.nav is not None
    config.nav.append({"Python API": list(api())})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of docs/."""
    for name, text in (
        {"reference/commands.md": commands(), "reference/cards.md": cards()} | api()
    ).items():
        files.append(File.generated(config, name, content=text))
    return files


def commands() -> str:
    """Return a section for each command, with its ``--help``."""
    sections = [
        f"## {name}\n\n```text\n{text}\n```\n"
        for name, text in _helps(typer.main.get_command(app), "stillrobust")
    ]
    return "# Commands\n\nThe `--help` of each command.\n\n" + "\n".join(sections)


def _helps(command: Any, name: str) -> Iterator[tuple[str, str]]:
    if hasattr(command, "commands"):
        for below, one in command.commands.items():
            yield from _helps(one, f"{name} {below}")
    else:
        yield name, command.make_context(name, [], resilient_parsing=True).get_help()


def cards() -> str:
    """Return a section for each technique, with the output of ``stillrobust techniques show``."""
    sections = [
        f"## {name}\n\n```text\n{entry.card.text()}\n```\n" for name, entry in TECHNIQUES.items()
    ]
    text = "The output of `stillrobust techniques show NAME`."
    return f"# Method cards\n\n{text}\n\n" + "\n".join(sections)


def api() -> dict[str, str]:
    """Return a page for each package and one for the modules outside packages, from docstrings."""
    folder = Path(stillrobust.__file__).parent
    packages = sorted(path.parent.name for path in folder.glob("*/__init__.py"))
    modules = sorted(path.stem for path in folder.glob("[!_]*.py"))
    top = "\n".join(f"::: stillrobust.{name}\n" for name in modules)
    return {"api/stillrobust.md": f"# stillrobust\n\n{top}"} | {
        f"api/{name}.md": f"# stillrobust.{name}\n\n::: stillrobust.{name}\n"
        "    options: {show_submodules: true}\n"
        for name in packages
        if name != "cli"
    }
