"""Printing: the one way in which commands write to the terminal."""

import typer

from stillrobust.untrusted import printable


def print_text(text: str, err: bool = False) -> None:
    """Print lines. Names from data and files cannot control the terminal.

    Args:
        text: The lines.
        err: Whether to print to standard error.
    """
    typer.echo(printable(text, lines=True), err=err)
