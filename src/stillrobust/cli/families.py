"""The families of components, and what can be listed of each; nothing of them is imported before it
is asked for.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from stillrobust.names import format_spec


def backbones() -> list[str]:
    """Architectures by name, and what was made here."""
    from stillrobust.backbones import ARCHITECTURES

    return [*ARCHITECTURES, *_made_here(), "... and every model of timm by its name"]


def _made_here() -> list[str]:
    """The specs of backbones that ``robustify`` or a study made in or below this folder."""
    found = (
        path
        for depth in ("*", "*/*", "*/runs/*")
        for path in sorted(Path().glob(f"{depth}/checkpoint.json"))
    )
    specs = []
    for path in found:
        with suppress(OSError, ValueError, KeyError, TypeError):
            architecture = json.loads(path.read_text(encoding="utf-8"))["architecture"]
            specs.append(format_spec(architecture, {"weights": str(path.parent)}))
    return list(dict.fromkeys(specs))


def checkpoint_lines() -> list[str]:
    """One line a row: its spec, how it was trained, published accuracies, and whether its file is
    there.
    """
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
    """The 15 common corruptions, then the 4 extra ones."""
    from stillrobust.corruptions import CORRUPTIONS

    return list(CORRUPTIONS)


def tasks() -> list[str]:
    """Tasks by name."""
    from stillrobust.tasks import TASKS

    return list(TASKS)


def formats() -> list[str]:
    """What may stand before the colon of ``--data``."""
    from stillrobust.data import FORMATS

    return list(FORMATS)


def recipes() -> list[str]:
    """Recipes with their sources."""
    from stillrobust.tasks.recipes import RECIPES

    return [f"{name}: {recipe.source}" for name, recipe in RECIPES.items()]


def techniques() -> list[str]:
    """Techniques with their papers, and the corruptions of the test that they show in training."""
    from stillrobust.robustify import TECHNIQUES, cards_of

    every = [card for name in TECHNIQUES for card in cards_of(name)]
    shown = (
        f"; shows {', '.join(card.overlaps_test)} of the test in training"
        if card.overlaps_test
        else ""
        for card in every
    )
    return [
        f"{card.name}: {card.title}, {card.paper}{more}"
        for card, more in zip(every, shown, strict=True)
    ]


def transfers() -> list[str]:
    """Modes of transfer and what they mean."""
    from stillrobust.training import TRANSFERS

    return [f"{name}: {meaning}" for name, meaning in TRANSFERS.items()]


def studies() -> list[str]:
    """Studies that are shipped, with their titles."""
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
"""What can be listed -> its lines."""
