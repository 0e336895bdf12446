"""Tab completion of the values of options. Components are imported only when Tab is pressed."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path


def names_of(family: str) -> Callable[[str], list[str]]:
    """Return a completer for the names of a family.

    Args:
        family: A key of ``NAMES``.

    Returns:
        A function that completes the last of several names with commas.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in NAMES[family]() if name.startswith(last)]

    return complete


def _backbones() -> Iterable[str]:
    from stillrobust.backbones.architectures import ARCHITECTURES
    from stillrobust.cli.components import local_backbones

    return [*ARCHITECTURES, *local_backbones()]


def _corruptions() -> Iterable[str]:
    from stillrobust.corruptions import CORRUPTIONS

    return CORRUPTIONS


def _methods() -> Iterable[str]:
    from stillrobust.finetuning.methods import METHODS

    return METHODS


def _recipes() -> Iterable[str]:
    from stillrobust.tasks.recipes import RECIPES

    return RECIPES


def _techniques() -> Iterable[str]:
    from stillrobust.robustify.techniques import TECHNIQUES

    return TECHNIQUES


def _transfers() -> Iterable[str]:
    from stillrobust.training import TRANSFERS

    return TRANSFERS


NAMES: Mapping[str, Callable[[], Iterable[str]]] = {
    "backbones": _backbones,
    "corruptions": _corruptions,
    "methods": _methods,
    "recipes": _recipes,
    "techniques": _techniques,
    "transfers": _transfers,
}
"""Name of a family -> function that returns the names of its components."""


def checkpoints(incomplete: str) -> list[str]:
    """Complete ARCHITECTURE/WEIGHTS of a published checkpoint, or WEIGHTS alone.

    The form with a slash needs no quotes in a shell.
    """
    from stillrobust.backbones.checkpoints import CHECKPOINTS

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
