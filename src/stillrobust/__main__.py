"""``python -m stillrobust``: the command line."""

from stillrobust.cli import main

main()
