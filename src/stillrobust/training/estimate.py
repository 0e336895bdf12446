"""The time that a training will take, measured on two images before it starts."""

import time

import torch

from stillrobust.backbones import resolve_backbone
from stillrobust.samples import Dataset
from stillrobust.training.batches import AugmentedDataset, derive_seed
from stillrobust.training.loop import build_model
from stillrobust.training.plan import Plan
from stillrobust.training.technique_hooks import TransferHooks

SAMPLE = 2  # images; the least that BatchNorm in a head can normalize


def estimate_training_seconds(plan: Plan, dataset: Dataset) -> float:
    """Measure one step on two images on the CPU, and scale it to the whole training.

    Nothing is written, and the training itself draws the same numbers afterwards.

    Args:
        plan: A transfer.
        dataset: Its training images.

    Returns:
        Seconds.

    Raises:
        UserError: If the parts of the plan do not fit each other.
    """
    seed = plan.recipe.seed
    torch.manual_seed(seed)
    model, _ = build_model(plan, resolve_backbone(plan.backbone), dataset.info)
    model = model.train().to(memory_format=torch.channels_last)
    hooks = TransferHooks(plan.make_task(), plan.technique)
    examples = AugmentedDataset(plan.make_task(), dataset, seed, hooks.make_views)
    draws = torch.Generator().manual_seed(derive_seed(seed, "estimate"))
    begun = time.monotonic()
    batch = [examples[0, index % len(dataset)] for index in range(SAMPLE)]
    torch.stack(list(hooks.loss(model, batch, draws).values())).sum().backward()  # type: ignore[no-untyped-call]
    images = plan.recipe.total_steps(len(dataset)) * plan.recipe.batch_size
    return (time.monotonic() - begun) * images / SAMPLE
