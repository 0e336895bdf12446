"""The command line: a file for each group of commands.

It parses, builds one dataclass, calls one library function.
"""

from stillrobust.cli.application import app, main

__all__ = ["app", "main"]
