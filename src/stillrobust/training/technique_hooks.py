"""Hooks by which a technique acts in training: on images in the loader's workers, on batches, in
the loss, and in a network trained beside the model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from stillrobust.robustify import (
    AuxiliaryNetwork,
    Technique,
    batch_views,
    build_technique,
    image_views,
)
from stillrobust.samples import Sample
from stillrobust.tasks import Task
from stillrobust.tasks.distributed import mean_over_processes
from stillrobust.tasks.heads import image_batch
from stillrobust.user_files import display_name

Views = list[Sample]
"""The views of one image: one, or several for a loss that compares them."""
CompanionBatches = Callable[[int], Iterable[list[Views]]]
"""Epoch -> further batches of its images, which the training itself does not use."""


class TrainingHooks(Protocol):
    """What the training loop calls."""

    def make_views(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The views of an augmented sample. Runs in the loader's workers."""
        ...

    def begin_epoch(
        self, epoch: int, model: nn.Module, batches: CompanionBatches, generator: torch.Generator
    ) -> None:
        """Prepare an epoch. Called before every step; does nothing if the epoch is prepared."""
        ...

    def loss(
        self, model: nn.Module, batch: Sequence[Views], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The parts of the loss by name, each a scalar; training minimizes their sum."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors that a resumed training needs besides those of model and optimizer."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state`` returned; empty for a training that starts."""
        ...


class TransferHooks:
    """Transfer to a task: the loss is the task's, and the technique acts on images alone.

    It acts after resize, crop and mirror, and before images are padded and normalized.
    """

    def __init__(self, task: Task, technique: str) -> None:
        self.task = task
        self.technique = build_technique(technique) if technique else Technique()

    def make_views(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The sample, its image float32 (H, W, 3) of 0..1 if the technique changed it."""
        augment = self.technique.augment_image
        return [replace(sample, image=augment(sample.image, rng)) if augment else sample]

    def begin_epoch(
        self, epoch: int, model: nn.Module, batches: CompanionBatches, generator: torch.Generator
    ) -> None:
        """No network trains beside the model in a transfer."""

    def loss(
        self, model: nn.Module, batch: Sequence[Views], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The parts of the task's loss."""
        augment = self.technique.augment_batch
        photometric = (lambda images: augment(images, generator)) if augment else None
        return self.task.loss(model, [views[0] for views in batch], photometric)

    def state(self) -> dict[str, Tensor]:
        """A transfer has no state besides model and optimizer."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """A transfer has no state besides model and optimizer."""


class UpstreamHooks:
    """Upstream training: several views, a network trained beside the model, the technique's loss.

    Without a technique this is plain training with the cross-entropy.
    """

    def __init__(self, technique: str, device: torch.device) -> None:
        self.technique = build_technique(technique) if technique else Technique(spec="regular")
        self.device = device
        self.companion: AuxiliaryNetwork | None = (
            self.technique.auxiliary_network(device) if self.technique.auxiliary_network else None
        )

    def make_views(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The technique's views, images float32 (H, W, 3) of 0..1."""
        return [
            replace(sample, image=view) for view in image_views(self.technique, sample.image, rng)
        ]

    def begin_epoch(
        self, epoch: int, model: nn.Module, batches: CompanionBatches, generator: torch.Generator
    ) -> None:
        """Let the companion train on further batches of the epoch."""
        if self.companion is not None:
            pairs = (
                (self._images([views[0] for views in batch]), self._labels(batch))
                for batch in batches(epoch)
            )
            self.companion.begin_epoch(epoch, model, pairs, generator)

    def loss(
        self, model: nn.Module, batch: Sequence[Views], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The technique's loss, named after it."""
        labels = self._labels(batch)
        views = [self._images(view) for view in zip(*batch, strict=True)]
        if self.companion is not None:
            views[0] = self.companion.step(model, views[0], labels, generator)
        mean = self.technique.loss(
            model, batch_views(self.technique, views, generator), labels, generator
        )
        # DDP averages over processes whose parts of the batch may differ by one image: each mean
        # is weighted by its images
        weight = len(batch) / mean_over_processes(len(batch), self.device)
        return {display_name(self.technique.spec): mean * weight}

    def state(self) -> dict[str, Tensor]:
        """The state of the companion."""
        return self.companion.state_dict() if self.companion else {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state of the companion."""
        if self.companion is not None and state:
            self.companion.load_state_dict(state)

    def _images(self, view: Sequence[Sample]) -> Tensor:
        return image_batch([sample.image for sample in view], self.device)

    def _labels(self, batch: Sequence[Views]) -> Tensor:
        return torch.tensor([views[0].target.label for views in batch], device=self.device)
