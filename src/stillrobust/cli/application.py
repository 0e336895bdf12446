"""The command line: it parses, builds one dataclass, calls one library function.

Heavy imports happen inside.
"""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from stillrobust import __version__
from stillrobust.cli import (
    checkpoints,
    corruptions,
    data,
    deepaugment,
    evaluate,
    import_results,
    list_components,
    report,
    statistics,
    study,
    train,
)
from stillrobust.cli.completion import names_of
from stillrobust.errors import UserError
from stillrobust.extras import extra_of, missing_extra

STOPPED = 130  # the exit status of a program that Ctrl-C ended: 128 + SIGINT

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for room in (
    checkpoints,
    corruptions,
    data,
    deepaugment,
    evaluate,
    import_results,
    list_components,
    report,
    statistics,
    study,
    train,
):
    app.add_typer(room.commands)


def _say_version(asked: bool) -> None:
    """Before any command, and instead of one."""
    if asked:
        typer.echo(f"stillrobust {__version__}")
        raise typer.Exit


@app.callback()
def stillrobust(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Are these models still robust? Transfer ImageNet backbones, measure them under image
    corruptions, report.
    """


def main() -> None:
    """The entry point: a user's mistake is one sentence and status 2, Ctrl-C is 130."""
    if isinstance(sys.stdout, TextIOWrapper):
        # names of files hold what no terminal can show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        print(f"stillrobust: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ending:
        if ending.code == STOPPED:  # typer ends so, without a word, on Ctrl-C
            print(
                "stillrobust: stopped; what was finished is kept, run the same command again to"
                " go on",
                file=sys.stderr,
            )
        raise
    except ModuleNotFoundError as error:
        if (extra := extra_of(error.name or "")) is None:
            raise
        print(f"stillrobust: {missing_extra(str(error.name), extra)}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(
            f"stillrobust: {error.strerror or error} ({error.filename}); what was finished is kept",
            file=sys.stderr,
        )
        sys.exit(2)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for data, models, results and the report.")
    ] = Path("demo"),
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="At most so many; 0, the default: one a GPU, or a core by memory."
        ),
    ] = None,
) -> None:
    """Three tasks, both modes of transfer, 15 corruptions at 5 severities, on generated scenes;
    minutes on two cores.

    Example: stillrobust demo --out demo
    """
    from stillrobust.study import Site, select

    study.do(select(["demo"]), Site(out.resolve()), workers)


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
    """Print the card of a technique: its paper, arguments, what was left out, cost and published
    result.

    Example: stillrobust card prime
    """
    from stillrobust.robustify import cards_of

    typer.echo("\n\n".join(one.text() for one in cards_of(spec)))


@app.command()
def doctor() -> None:
    """Check the installation, compile the kernels, and say what to do; status 0, or 1 where
    something is to be mended.

    Example: stillrobust doctor
    """
    from stillrobust.tools.doctor import examine, findings_text

    findings = examine()
    typer.echo(findings_text(findings))
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
