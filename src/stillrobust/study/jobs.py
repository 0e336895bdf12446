"""The jobs of a study."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from stillrobust.backbones import resolve_backbone
from stillrobust.data import open_dataset
from stillrobust.data.image_cache import ImageCache
from stillrobust.errors import UserError
from stillrobust.evaluation import Protocol, evaluate
from stillrobust.execution import Job, ProgressCallback
from stillrobust.runtime.run_log import log_failures
from stillrobust.samples import Dataset
from stillrobust.study.miniature_checkpoints import make_miniature_checkpoint
from stillrobust.study.selection import SELECTION_FILE
from stillrobust.training import Plan, train
from stillrobust.training.upstream_training import robustify
from stillrobust.user_files import display_name


@dataclass(frozen=True, kw_only=True)
class MakeCheckpointJob(Job):
    """Train the substitute weights of a miniature backbone."""

    target: Path
    data: str
    """``FORMAT:PATH`` of the generated crops."""

    def run(self, progress: ProgressCallback) -> None:
        """Train the weights, unless the file exists."""
        make_miniature_checkpoint(self.target, self.data, progress)


@dataclass(frozen=True, kw_only=True)
class TrainJob(Job):
    """Train a run. An upstream run only stores the classes of the data that it is evaluated on."""

    plan: Plan
    data: str
    """``FORMAT:PATH``."""
    folder: Path
    """Of the weights."""
    upstream_digest: str
    """Of the upstream weights when the study began; empty if the study makes them."""
    log: Path

    def run(self, progress: ProgressCallback) -> None:
        """Train the run, or resume it."""
        split = "val" if self.plan.kind == "upstream" else "train"
        with log_failures(self.log, "training"):
            _require_study_folder(self.log)
            if (
                self.upstream_digest
                and resolve_backbone(self.plan.backbone).digest != self.upstream_digest
            ):
                raise UserError(
                    f"The weights of {self.plan.backbone} changed while the study ran; put them"
                    " back, or start the study again to begin from the new ones"
                )
            self._train(open_dataset(self.data, split, training=split == "train"), progress)

    def _train(self, dataset: Dataset, progress: ProgressCallback) -> None:
        train(self.plan, dataset, self.folder, progress, self.log)


@dataclass(frozen=True, kw_only=True)
class MakeBackboneJob(TrainJob):
    """Make a backbone robust; the folder is then also a checkpoint."""

    def _train(self, dataset: Dataset, progress: ProgressCallback) -> None:
        robustify(self.plan, dataset, self.folder, progress, self.log)


@dataclass(frozen=True, kw_only=True)
class EvaluateJob(Job):
    """Evaluate some cells of a run."""

    folder: Path
    """Of the weights."""
    data: str
    """``FORMAT:PATH``."""
    results: Path
    """The folder of the store."""
    protocol: Protocol
    run_name: str
    """In the store."""
    log: Path
    shared_images: Path | None = None
    """A folder in which corrupted images are kept for the next model."""
    shared_bytes: int = 0
    """Its largest size."""

    def run(self, progress: ProgressCallback) -> None:
        """Evaluate the cells that are not in the store."""
        corruptions = " and ".join(map(display_name, self.protocol.corruptions))
        protocol = self.protocol
        if self.shared_images:
            shared = ImageCache(self.shared_images, self.shared_bytes)
            protocol = replace(protocol, shared=shared)
        with log_failures(self.log, f"evaluation on {corruptions or 'clean images'}"):
            _require_study_folder(self.log)
            data = open_test_data(self.data)
            evaluate(
                self.folder,
                data,
                self.results,
                protocol,
                self.run_name,
                progress,
                replace_stale=True,
                log=self.log,
            )


@lru_cache(maxsize=4)
def open_test_data(spec: str) -> Dataset:
    """Open a test set, once in a process: the annotations of COCO take seconds to read.

    Args:
        spec: ``FORMAT:PATH``.

    Returns:
        The dataset.
    """
    return open_dataset(spec, "val")


def _require_study_folder(log: Path) -> None:
    """Raise ``UserError`` if the study's folder, perhaps on a network, is not available: otherwise
    a new folder would be created in its place.
    """
    folder = log.parent.parent
    if not (folder / SELECTION_FILE).is_file():
        raise UserError(
            f"Cannot reach {folder} any more; what was finished is kept: start again when it is"
            " there"
        )
