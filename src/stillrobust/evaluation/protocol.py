"""The protocol of an evaluation: its cells and circumstances."""

from dataclasses import dataclass

from stillrobust.analysis.budget import cell_order
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
from stillrobust.metrics import HEADLINE_METRIC
from stillrobust.names import lookup


@dataclass(frozen=True)
class Protocol:
    """Cells and circumstances of an evaluation. They are stored with every score.

    Raises:
        UserError: If a value is unknown or the values do not fit each other.
    """

    corruptions: tuple[str, ...] = COMMON
    """Names, or paths of Python files, which are resolved to their content (``user_files``)."""
    severities: tuple[int, ...] = SEVERITIES
    clean: bool = True
    """Whether the clean cell is evaluated too."""
    seed: int = 0
    """Seed of the corruptions, combined with corruption, severity and image id."""
    images: int | None = None
    """Number of images (default: all), evenly spaced because datasets are sorted by class.

    With a budget, the first images of ``budget.image_order``, so that more images include fewer.
    """
    budget: int | None = None
    """Number of cells, the first of ``budget.cell_order`` with the clean (default: all)."""
    examples: int = 3
    """Number of images stored with their predictions for the report's gallery."""
    batch_size: int = 8
    workers: int | None = None
    """Processes that read and corrupt images (default: none on a CPU, by cores on a GPU)."""
    shared: ImageCache | None = None
    """Cache of corrupted images for the next model. It does not affect scores or keys."""
    draws: str = "fast"
    """Random draws of the corruptions: ``exact`` or ``fast``."""
    regime: str | None = None
    """Severity table of the corruptions (default: the dataset's, ``cifar`` for CIFAR-10)."""
    channel_order: str = "rgb"
    """Channel order of the image that is corrupted. The model always receives RGB."""
    warp_truth: bool = False
    """Whether ground truth follows corruptions that move pixels. Not comparable with papers."""
    scale: str = ""
    """``miniature`` for small stand-ins, whose scores must not mix with others."""

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
        """Return (corruption, severity) of all cells without regard to the budget, clean first."""
        first = [CLEAN] if self.clean else []
        return [
            *first,
            *((name, severity) for name in self.corruptions for severity in self.severities),
        ]


def planned_cells(protocol: Protocol, task: str) -> list[Place]:
    """Return the cells that an evaluation covers, within the protocol's budget.

    Args:
        protocol: The protocol.
        task: Task of the dataset; its headline metric decides the order under a budget.

    Returns:
        (corruption, severity) of each cell, the clean one first.
    """
    if protocol.budget is None:
        return protocol.cells()
    return list(cell_order(HEADLINE_METRIC[task], protocol.severities)[: protocol.budget])
