"""How long techniques take, as ratios measured in one run.

    python benchmarks/robustify.py [--rounds 9] [--batch 8] [--size 224] [--model resnet50] [--steps
    3]

First each augmentation against its plain form (`plain_robustify.py`), CPU time of this thread in ms
an image; AugMix also against those of timm and torchvision (`plain_augmix.py`). Then a training
step of a ResNet with each technique against a plain step. Rounds interleave the candidates; of each
the median is taken.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
import torchvision

import plain_augmix
import plain_robustify as plain
from stillrobust.robustify import batch_views, build_technique, image_views
from stillrobust.robustify import prime_primitives as primitives
from stillrobust.robustify.ant import project

Call = Callable[[], object]


def photos(count: int, size: int) -> torch.Tensor:
    """Generated pictures with smooth parts and edges, 8 bits as float (count, 3, size, size)."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        smooth = cv2.resize(
            rng.integers(0, 256, (6, 8, 3)).astype(np.uint8),
            (size, size),
            interpolation=cv2.INTER_CUBIC,
        )
        edges = cv2.resize(
            rng.integers(0, 256, (9, 13, 3)).astype(np.uint8),
            (size, size),
            interpolation=cv2.INTER_NEAREST,
        )
        pictures.append(np.where(smooth[..., :1] > 128, smooth, edges))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().float() / 255


def medians(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Seconds of this thread's CPU, each the median of ``rounds`` interleaved rounds after one that
    does not count.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            begun = time.thread_time()
            call()
            if number:
                times[name].append(time.thread_time() - begun)
    return {name: statistics.median(values) for name, values in times.items()}


def augmentations(batch: int, size: int, rounds: int) -> None:
    images, stream = photos(batch, size), torch.Generator().manual_seed(0)
    noise = torch.randn(images.shape, generator=stream)
    without, full = build_technique("prime(geometry=False)"), build_technique("prime")
    print(f"augmentations, {batch} images of {size} x {size}: ms an image; ratio plain / ours")
    pairs: dict[str, tuple[Call, Call]] = {
        "prime colour": (
            lambda: primitives.colour(images, stream),
            lambda: plain.colour(images, stream),
        ),
        "prime filter": (
            lambda: primitives.random_color_filter(images, stream),
            lambda: plain.random_filter(images, stream),
        ),
        "prime diffeo": (
            lambda: primitives.diffeomorphism(images, stream),
            lambda: plain.diffeomorphism(images, stream),
        ),
        "prime(geometry=False)": (
            lambda: without.augment_batch(images, stream),
            lambda: plain.prime(images, stream, geometry=False),
        ),
        "prime": (lambda: full.augment_batch(images, stream), lambda: plain.prime(images, stream)),
        "ant projection": (
            lambda: project(images, noise, 135.0),
            lambda: plain.project_by_sort(images, noise, 135.0),
        ),
    }
    for name, (ours, other) in pairs.items():
        took = medians({"ours": ours, "plain": other}, rounds)
        print_ratios(name, {key: seconds / batch for key, seconds in took.items()})


def augmix(size: int, rounds: int) -> None:
    """One view of one image.

    What is drawn decides how much is done, a factor of three: hence many rounds.
    """
    picture = (photos(1, size)[0] * 255).byte().permute(1, 2, 0).numpy()
    for severity in (1, 3):
        rng, ours = (
            np.random.default_rng(0),
            build_technique(f"augmix(severity={severity})").augment_image,
        )
        assert ours is not None
        calls = {"ours": partial(ours, picture, rng), **plain_augmix.views(picture, severity)}
        print_ratios(f"augmix, severity {severity}", medians(calls, 20 * rounds))


def print_ratios(name: str, took: dict[str, float]) -> None:
    """Seconds of each form, the first one ours: in ms, and the others' ratio to it."""
    first, *others = took.items()
    parts = [
        f"{other} {1000 * seconds:8.2f} {seconds / first[1]:6.1f}x" for other, seconds in others
    ]
    print(f"  {name:24s} {1000 * first[1]:8.2f}   {'   '.join(parts)}", flush=True)


SPECS = (
    "gaussian",
    "prime(geometry=False)",
    "ant",
    "ant(kernel=3)",
    "l2(jitter=False)",
    "augmix",
    "prime(jsd=True)",
    "noise2net",
)


def training_steps(batch: int, size: int, rounds: int, name: str) -> None:
    images, labels = photos(batch, size), torch.arange(batch)
    stream = torch.Generator().manual_seed(0)
    model = (
        getattr(torchvision.models, name)(num_classes=100)
        .train()
        .to(memory_format=torch.channels_last)
    )
    calls: dict[str, Call] = {}
    for spec in ("", *SPECS):
        calls[spec or "plain"] = step(spec, copy.deepcopy(model), images, labels, stream)
    took = medians(calls, rounds)
    print(
        f"training steps of {name}, {batch} images of {size} x {size}: seconds; ratio to a plain"
        " step, without the loader's work"
    )
    for spec, seconds in took.items():
        print(f"  {spec:24s} {seconds:8.3f}   {seconds / took['plain']:6.2f}x", flush=True)


def step(
    spec: str,
    model: torch.nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    stream: torch.Generator,
) -> Call:
    """One step of SGD as the training loop makes it; what runs in a loader's workers is done once
    beforehand.
    """
    optimiser = torch.optim.SGD(model.parameters(), 1e-3, 0.9)
    technique = build_technique(spec or "gaussian")
    eight_bit, rng = (images * 255).byte().permute(0, 2, 3, 1).numpy(), np.random.default_rng(0)
    lists = [image_views(technique, image, rng) for image in eight_bit]
    loaded = [
        torch.from_numpy(np.stack(view)).permute(0, 3, 1, 2) for view in zip(*lists, strict=True)
    ]
    auxiliary_network = (
        technique.auxiliary_network(torch.device("cpu")) if technique.auxiliary_network else None
    )
    if auxiliary_network:
        for epoch in (0, 1):  # an epoch with a pool
            auxiliary_network.begin_epoch(epoch, model, [(images[:1], labels[:1])], stream)

    def run() -> None:
        views = (
            [auxiliary_network.step(model, loaded[0], labels, stream)]
            if auxiliary_network
            else loaded
        )
        views = batch_views(technique, views, stream) if spec else [loaded[0]]
        optimiser.zero_grad()
        technique.loss(model, views, labels, stream).backward()
        optimiser.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--model", default="resnet50", help="of torchvision")
    parser.add_argument(
        "--steps", type=int, default=3, help="rounds of training steps; 0 leaves them out"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    augmentations(arguments.batch, arguments.size, arguments.rounds)
    augmix(arguments.size, arguments.rounds)
    if arguments.steps:
        training_steps(arguments.batch, arguments.size, arguments.steps, arguments.model)


if __name__ == "__main__":
    main()
