"""The families of components that can be listed. Each is imported only when it is listed."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.names import format_spec
from stillrobust.untrusted import parse_json, read_regular_file


def backbones() -> list[str]:
    """Return the names of architectures, and the specs of backbones made in this folder."""
    from stillrobust.backbones import ARCHITECTURES

    return [*ARCHITECTURES, *_local_backbones(), "... and every model of timm by its name"]


def _local_backbones() -> list[str]:
    """Return the specs of backbones that ``robustify`` or a study made in or below this folder."""
    found = (
        path
        for depth in ("*", "*/*", "*/runs/*")
        for path in sorted(Path().glob(f"{depth}/checkpoint.json"))
    )
    specs = []
    for path in found:
        with suppress(OSError, UserError, ValueError, KeyError, TypeError):
            architecture = parse_json(read_regular_file(path))["architecture"]
            specs.append(format_spec(architecture, {"weights": str(path.parent)}))
    return list(dict.fromkeys(specs))


def checkpoint_lines() -> list[str]:
    """Return a line per checkpoint: spec, accuracies, whether its file exists, technique."""
    from stillrobust.backbones import CHECKPOINTS, missing_weights

    rows = CHECKPOINTS.values()
    width = max(len(row.spec) for row in rows)
    heading = f"{'spec':<{width}}  {'top-1':>6}  {'IN-C':>6}  file  trained by"
    return [heading] + [
        f"{row.spec:<{width}}  {_percent(row.top1):>6}  {_percent(row.imagenet_c):>6}  "
        f"{'-' if missing_weights(row.spec) else 'here':<4}  {row.technique}"
        for row in rows
    ]


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.1f}"


def corruptions() -> list[str]:
    """Return the names of the 15 common corruptions, then of the 4 extra ones."""
    from stillrobust.corruptions import CORRUPTIONS

    return list(CORRUPTIONS)


def tasks() -> list[str]:
    """Return the names of tasks."""
    from stillrobust.tasks import TASKS

    return list(TASKS)


def formats() -> list[str]:
    """Return the names of data formats, the part of ``--data`` before the colon."""
    from stillrobust.data import FORMATS

    return list(FORMATS)


def recipes() -> list[str]:
    """Return recipes with their sources."""
    from stillrobust.tasks.recipes import RECIPES

    return [f"{name}: {recipe.source}" for name, recipe in RECIPES.items()]


def techniques() -> list[str]:
    """Return techniques with their papers, and the test's corruptions that they use in training."""
    from stillrobust.robustify import TECHNIQUES, cards_of

    lines = []
    for card in (card for name in TECHNIQUES for card in cards_of(name)):
        overlaps = ", ".join(card.overlaps_test)
        note = f"; shows {overlaps} of the test in training" if overlaps else ""
        lines.append(f"{card.name}: {card.title}, {card.paper}{note}")
    return lines


def transfers() -> list[str]:
    """Return the transfers and what they mean."""
    from stillrobust.training import TRANSFERS

    return [f"{name}: {meaning}" for name, meaning in TRANSFERS.items()]


def studies() -> list[str]:
    """Return the shipped studies with their titles."""
    from stillrobust.study.files import read_study, shipped

    return [f"{name}: {read_study(path).title}" for name, path in shipped().items()]


FAMILIES: Mapping[str, Callable[[], list[str]]] = {
    "backbones": backbones,
    "checkpoints": checkpoint_lines,
    "corruptions": corruptions,
    "tasks": tasks,
    "formats": formats,
    "recipes": recipes,
    "techniques": techniques,
    "transfers": transfers,
    "studies": studies,
}
"""Name of a family -> function that returns its lines."""
