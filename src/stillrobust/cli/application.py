"""The application: all groups of commands, and the commands that belong to no group.

Heavy imports happen inside the commands.
"""

import signal
import sys
import warnings
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from stillrobust import __version__
from stillrobust.cli import (
    checkpoints,
    corruptions,
    data,
    deepaugment,
    evaluate,
    gate,
    import_results,
    list_components,
    predictions,
    report,
    runs,
    statistics,
    study,
    train,
)
from stillrobust.cli.completion import names_of
from stillrobust.cli.output import print_text
from stillrobust.errors import UserError
from stillrobust.extras import extra_of, missing_extra
from stillrobust.runtime.stopping import interrupt_on_sigterm
from stillrobust.untrusted import path_fault, printable

INTERRUPTED = 128 + signal.SIGINT  # exit status after Ctrl-C
TERMINATED = 128 + signal.SIGTERM

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (
    checkpoints,
    corruptions,
    data,
    deepaugment,
    evaluate,
    gate,
    import_results,
    list_components,
    predictions,
    report,
    runs,
    statistics,
    study,
    train,
):
    app.add_typer(group.commands)


def _print_version(requested: bool) -> None:
    if requested:
        print_text(f"stillrobust {__version__}")
        raise typer.Exit


@app.callback()
def stillrobust(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Are these models still robust? Transfer ImageNet backbones, evaluate them under image
    corruptions, report.
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
    """Run a small study on generated data: three tasks, both transfers, 15 corruptions.

    Example: stillrobust demo --out demo
    """
    from stillrobust.study import Site, select

    study.run_and_report(select(["demo"]), Site(out.resolve()), workers)


@app.command()
def card(
    spec: Annotated[
        str,
        typer.Argument(
            autocompletion=names_of("techniques"),
            help="A technique such as prime, or a composition.",
        ),
    ],
) -> None:
    """Print the card of a technique: paper, arguments, cost, published result, what was left out.

    Example: stillrobust card prime
    """
    from stillrobust.robustify import cards_of

    print_text("\n\n".join(found.text() for found in cards_of(spec)))


@app.command()
def doctor() -> None:
    """Check the installation, compile the kernels, and print what to fix (exit status 1).

    Example: stillrobust doctor
    """
    from stillrobust.tools.doctor import format_findings, run_checks

    findings = run_checks()
    print_text(format_findings(findings))
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
