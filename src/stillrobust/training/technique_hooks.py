"""A technique at work in training: in the loader's workers, beside the model, on the batch, in the
loss.
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
from stillrobust.tasks.heads import image_batch
from stillrobust.tasks.processes import share_of
from stillrobust.user_files import shown

Views = list[Sample]
"""One image as the loss sees it, once or several times."""
Fresh = Callable[[int], Iterable[list[Views]]]
"""Epoch -> batches of it that the training itself does not use up."""


class Work(Protocol):
    """What the training loop asks for."""

    def views_of(self, sample: Sample, rng: np.random.Generator) -> Views:
        """In a loader's worker: an augmented sample as the loss is to see it."""
        ...

    def begin_epoch(
        self, epoch: int, model: nn.Module, fresh: Fresh, generator: torch.Generator
    ) -> None:
        """What is done before an epoch; nothing where that has been done."""
        ...

    def loss(
        self, model: nn.Module, batch: Sequence[Views], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The parts of the loss, by name."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What resuming needs beside the model's and the optimiser's."""
        ...

    def go_on(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        ...


class InTransfer:
    """The loss is the task's; a technique acts on the images alone: after resize, crop and mirror,
    before they are padded.
    """

    def __init__(self, task: Task, spec: str) -> None:
        self.task = task
        self.technique = build_technique(spec) if spec else Technique()

    def views_of(self, sample: Sample, rng: np.random.Generator) -> Views:
        """The sample as it is, or with an image float32 (H, W, 3) of 0..1 that the technique made
        of it.
        """
        augment = self.technique.augment_image
        return [replace(sample, image=augment(sample.image, rng)) if augment else sample]

    def begin_epoch(
        self, epoch: int, model: nn.Module, fresh: Fresh, generator: torch.Generator
    ) -> None:
        """Nothing."""

    def loss(
        self, model: nn.Module, batch: Sequence[Views], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The task's."""
        augment = self.technique.augment_batch
        act = (lambda images: augment(images, generator)) if augment else None
        return self.task.loss(model, [views[0] for views in batch], act)

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def go_on(self, state: Mapping[str, Tensor]) -> None:
        """Nothing."""


class Upstream:
    """Everything that a technique is beside its data: several views, a network trained beside the
    model, a loss of its own.

    Without a technique it is plain training with the cross-entropy.
    """

    def __init__(self, spec: str, device: torch.device) -> None:
        self.technique = build_technique(spec) if spec else Technique(spec="regular")
        self.device = device
        self.companion: AuxiliaryNetwork | None = (
            self.technique.auxiliary_network(device) if self.technique.auxiliary_network else None
        )

    def views_of(self, sample: Sample, rng: np.random.Generator) -> Views:
        """Images are float32 (H, W, 3) of 0..1."""
        return [
            replace(sample, image=view) for view in image_views(self.technique, sample.image, rng)
        ]

    def begin_epoch(
        self, epoch: int, model: nn.Module, fresh: Fresh, generator: torch.Generator
    ) -> None:
        """The companion's preparation."""
        if self.companion is not None:
            pairs = (
                (self._images([views[0] for views in batch]), self._labels(batch))
                for batch in fresh(epoch)
            )
            self.companion.begin_epoch(epoch, model, pairs, generator)

    def loss(
        self, model: nn.Module, batch: Sequence[Views], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The technique's, by its name."""
        labels = self._labels(batch)
        views = [self._images(view) for view in zip(*batch, strict=True)]
        if self.companion is not None:
            views[0] = self.companion.step(model, views[0], labels, generator)
        mean = self.technique.loss(
            model, batch_views(self.technique, views, generator), labels, generator
        )
        # DDP averages over processes, whose parts of the batch may differ by one image: a mean
        # counts by its images.
        return {shown(self.technique.spec): mean * (len(batch) / share_of(len(batch), self.device))}

    def state(self) -> dict[str, Tensor]:
        """The companion's."""
        return self.companion.state_dict() if self.companion else {}

    def go_on(self, state: Mapping[str, Tensor]) -> None:
        """The companion goes on."""
        if self.companion is not None and state:
            self.companion.load_state_dict(state)

    def _images(self, view: Sequence[Sample]) -> Tensor:
        return image_batch([sample.image for sample in view], self.device)

    def _labels(self, batch: Sequence[Views]) -> Tensor:
        return torch.tensor([views[0].target.label for views in batch], device=self.device)
