"""The application: all groups of commands, and the commands that belong to no group.

Heavy imports happen inside the commands.
"""

import signal
import sys
import warnings
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from stillrobust import __version__
from stillrobust.cli import (
    checkpoints,
    components,
    corruptions,
    data,
    evaluate,
    gate,
    methods,
    power,
    predictions,
    report,
    runs,
    study,
    techniques,
    train,
)
from stillrobust.cli.output import print_text
from stillrobust.errors import UserError
from stillrobust.extras import extra_of, missing_extra
from stillrobust.runtime.progress import progress_display
from stillrobust.runtime.stopping import interrupt_on_sigterm
from stillrobust.untrusted import path_fault, printable

INTERRUPTED = 128 + signal.SIGINT  # exit status after Ctrl-C
TERMINATED = 128 + signal.SIGTERM
SUMMARY = 64  # characters of a command's summary

SECTIONS = {
    "Start": ("demo", "doctor"),
    "Measure robustness": (
        "corrupt",
        "evaluate",
        "compare",
        "gate",
        "power",
        "report",
        "runs",
        "predictions",
    ),
    "Train": ("train", "robustify", "study"),
    "Data and components": (
        "data",
        "tasks",
        "backbones",
        "checkpoints",
        "corruptions",
        "techniques",
        "methods",
        "recipes",
    ),
}
"""Heading in ``stillrobust --help`` -> its commands."""


class SectionedGroup(TyperGroup):
    """The commands under the headings of ``SECTIONS``."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of ``SECTIONS``."""
        ordered = [name for names in SECTIONS.values() for name in names]
        return sorted(self.commands, key=ordered.index)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each heading."""
        width = max(map(len, self.commands))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (f"{name:<{width}}", self.commands[name].get_short_help_str(SUMMARY))
                        for name in names
                    ]
                )


app = typer.Typer(
    cls=SectionedGroup,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for commands in (
    corruptions.corrupt_command,
    evaluate.commands,
    gate.commands,
    power.commands,
    report.commands,
    train.commands,
):
    app.add_typer(commands)
for name, commands in {
    "backbones": components.backbones,
    "checkpoints": checkpoints.commands,
    "corruptions": corruptions.commands,
    "data": data.commands,
    "methods": methods.commands,
    "predictions": predictions.commands,
    "recipes": components.recipes,
    "runs": runs.commands,
    "study": study.commands,
    "tasks": components.tasks,
    "techniques": techniques.commands,
}.items():
    app.add_typer(commands, name=name)


def _print_version(requested: bool) -> None:
    if requested:
        print_text(f"stillrobust {__version__}")
        raise typer.Exit


@app.callback()
def stillrobust(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Are these models still robust?

    Transfer ImageNet backbones to your task, evaluate models under image corruptions, and report
    how much robustness is left.
    """


def main() -> None:
    """Run the command line.

    A ``UserError``, a missing extra, and an error of the operating system are one sentence and exit
    status 2. Ctrl-C exits with status 130, and SIGTERM, which does the same, with 143.
    """
    terminated = interrupt_on_sigterm()
    if isinstance(sys.stdout, TextIOWrapper):
        # names of files may hold characters that the terminal cannot print
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _format_warning
    try:
        app()
    except UserError as error:
        _exit_with(str(error))
    except SystemExit as ending:
        if ending.code == INTERRUPTED:  # typer exits so on Ctrl-C, without a message
            print(
                "stillrobust: stopped; finished work is kept, run the same command again to resume",
                file=sys.stderr,
            )
            sys.exit(TERMINATED if terminated.is_set() else INTERRUPTED)
        raise
    except ModuleNotFoundError as error:
        if (extra := extra_of(error.name or "")) is None:
            raise
        _exit_with(str(missing_extra(str(error.name), extra)))
    except OSError as error:
        _exit_with(f"{error.strerror or error} ({error.filename}); finished work is kept")
    except (ValueError, RuntimeError) as error:
        if not (fault := path_fault(error)):
            raise
        _exit_with(f"{fault}; check the paths, finished work is kept")


def _exit_with(sentence: str) -> NoReturn:
    print(f"stillrobust: {printable(sentence)}", file=sys.stderr)
    sys.exit(2)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: object = None
) -> str:
    """Return a warning on one line; what it names may come from files."""
    return f"{filename}:{lineno}: {category.__name__}: {printable(str(message))}\n"


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for data, models, results and the report.")
    ] = Path("demo"),
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Maximum number of workers (default: one per GPU, or per core if memory allows).",
        ),
    ] = None,
) -> None:
    """Run a small study on generated data.

    It has three tasks, both transfers and the 15 corruptions.

    Example: stillrobust demo --out demo
    """
    from stillrobust.study import Site, select

    study.run_and_report(select(["demo"]), Site(out.resolve()), workers)


@app.command()
def doctor() -> None:
    """Check the installation and print what to fix.

    The kernels are compiled, which takes about 20 s once. The exit status is 1 if there is a
    problem.

    Example: stillrobust doctor
    """
    from stillrobust.tools.doctor import format_findings, run_checks

    with progress_display() as display:
        findings = run_checks(partial(display, "kernels"))
    print_text(format_findings(findings))
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
