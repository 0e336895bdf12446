"""The command line: a file for each group of commands.

A command parses its arguments, builds one dataclass, and calls one function of the library.
"""

from stillrobust.cli.application import app, main

__all__ = ["app", "main"]
