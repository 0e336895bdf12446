"""What Tab offers for the values of options; nothing is imported before it is pressed."""

from collections.abc import Callable
from pathlib import Path


def names_of(family: str) -> Callable[[str], list[str]]:
    """Completes a name of ``family``, as `stillrobust list` has it; of several with commas, the
    last.
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
    """Completes ARCHITECTURE/WEIGHTS of a published checkpoint, which no shell needs quotes for, or
    WEIGHTS alone.
    """
    from stillrobust.backbones import CHECKPOINTS

    names = dict.fromkeys(
        name
        for row in CHECKPOINTS.values()
        for name in (f"{row.architecture}/{row.weights}", row.weights)
    )
    return [name for name in names if name.startswith(incomplete)]


def studies(incomplete: str) -> list[str]:
    """Completes the name of a study that is shipped, or a study file."""
    from stillrobust.study.files import shipped

    files = sorted(str(path) for path in Path().glob("*.y*ml"))
    return [name for name in (*shipped(), *files) if name.startswith(incomplete)]
