"""Tab completion of the values of options. Components are imported only when Tab is pressed."""

from collections.abc import Callable
from pathlib import Path


def names_of(family: str) -> Callable[[str], list[str]]:
    """Return a completer for the names of a family.

    Args:
        family: A key of ``FAMILIES``, as in ``stillrobust list``.

    Returns:
        A function that completes the last of several names with commas.
    """

    def complete(incomplete: str) -> list[str]:
        from stillrobust.cli.families import FAMILIES

        before, comma, last = incomplete.rpartition(",")
        names = [line.partition(":")[0].split("  ")[0] for line in FAMILIES[family]()]
        return [
            f"{before}{comma}{name}"
            for name in names
            if name.startswith(last) and not name.startswith("...")
        ]

    return complete


def checkpoints(incomplete: str) -> list[str]:
    """Complete ARCHITECTURE/WEIGHTS of a published checkpoint, or WEIGHTS alone.

    The form with a slash needs no quotes in a shell.
    """
    from stillrobust.backbones import CHECKPOINTS

    names = dict.fromkeys(
        name
        for row in CHECKPOINTS.values()
        for name in (f"{row.architecture}/{row.weights}", row.weights)
    )
    return [name for name in names if name.startswith(incomplete)]


def studies(incomplete: str) -> list[str]:
    """Complete the name of a shipped study, or a study file."""
    from stillrobust.study.files import shipped

    files = sorted(str(path) for path in Path().glob("*.y*ml"))
    return [name for name in (*shipped(), *files) if name.startswith(incomplete)]
