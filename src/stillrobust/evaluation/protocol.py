"""The circumstances of an evaluation, and the cells that it measures."""

from dataclasses import dataclass

from stillrobust.analysis.budget import cell_order
from stillrobust.analysis.estimates import HEADLINE
from stillrobust.corruptions import (
    CHANNEL_ORDERS,
    COMMON,
    DRAWS,
    REGIMES,
    SEVERITIES,
    resolve_corruptions,
)
from stillrobust.data.image_cache import ImageCache
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, Place
from stillrobust.names import lookup


@dataclass(frozen=True)
class Protocol:
    """The circumstances of an evaluation that a caller chooses; the store keeps them with every
    number.
    """

    corruptions: tuple[str, ...] = COMMON
    """Names, or paths of files of your own, which are pinned to their content (``user_files``)."""
    severities: tuple[int, ...] = SEVERITIES
    clean: bool = True
    """Whether the clean cell is measured too."""
    seed: int = 0
    """Keys the corruptions' generators together with corruption, severity and image."""
    images: int | None = None
    """Only so many images, evenly spaced over the set: class folders are sorted, so that the first
    ones would be a few classes.

    Under a budget the first of the published order (``budget.image_order``), so that more images
    contain the fewer."""
    budget: int | None = None
    """Only so many cells, the first of the published order (``budget.cell_order``), the clean one
    included.
    """
    examples: int = 3
    """Images kept with their predictions for the report's gallery."""
    batch_size: int = 8
    workers: int | None = None
    """Processes that read and corrupt images; ``None``: none beside a model on the CPU, as many as
    there are cores for a GPU.
    """
    shared: ImageCache | None = None
    """Where corrupted images are kept for the next model; decides no number and is in no key."""
    draws: str = "fast"
    """Draws of the corruptions: ``fast`` or ``exact``."""
    regime: str | None = None
    """Severity table of the corruptions; ``None`` for the data's own, which is ``cifar`` for
    CIFAR-10.
    """
    channel_order: str = "rgb"
    """Of the image that is corrupted; the model always sees RGB."""
    warp_truth: bool = False
    """Ground truth follows the corruptions that move pixels.

    Numbers are then not comparable with published ones.
    """
    scale: str = ""
    """``miniature`` for numbers of stand-ins, so that they never mix with real ones; empty for the
    real thing.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "corruptions", resolve_corruptions(self.corruptions))
        if self.regime is not None:
            lookup("regime", self.regime, REGIMES)
        lookup("draws", self.draws, DRAWS)
        lookup("channel order", self.channel_order, CHANNEL_ORDERS)
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise UserError(
                    f"Expected severities among 1, 2, 3, 4, 5, but got {severity}; leave the"
                    " others out"
                )
        if self.images is not None and self.images < 1:
            raise UserError(
                f"Expected at least one image to evaluate on, but got images={self.images}; give 1"
                " or more, or leave it out for all"
            )
        if self.budget is not None and (
            self.budget < 1 or self.corruptions != COMMON or not self.clean
        ):
            raise UserError(
                "Expected a budget of at least one cell, of the 15 common corruptions, but got"
                f" budget={self.budget}; give such a budget, or leave it out for all cells"
            )

    def cells(self) -> list[Place]:
        """(corruption, severity) of every cell, the clean one first."""
        first = [CLEAN] if self.clean else []
        return [
            *first,
            *((name, severity) for name in self.corruptions for severity in self.severities),
        ]


def cells_of(protocol: Protocol, task: str) -> list[Place]:
    """The cells that an evaluation measures: all of the protocol, or the first of the order for the
    task's metric.
    """
    if protocol.budget is None:
        return protocol.cells()
    return list(cell_order(HEADLINE[task], protocol.severities)[: protocol.budget])
