"""The contract of the family: every technique builds, keeps shapes and ranges, repeats itself, and
refuses what it cannot do.
"""

import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from stillrobust.errors import UserError
from stillrobust.robustify import (
    TECHNIQUES,
    batch_views,
    build_technique,
    cards_of,
    image_views,
    require_photometric,
    require_unit_range,
)
from stillrobust.tasks.recipes import RECIPES


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(count=4, height=24, width=24, seed=0):
    """Smooth coloured pictures in 8 bits, as float 0..1."""
    coarse = torch.rand(count, 3, 5, 5, generator=generator(seed))
    smooth = torch.nn.functional.interpolate(
        coarse, (height, width), mode="bilinear", align_corners=True
    )
    return (smooth * 255).round() / 255


WITHOUT_FILES = [name for name in TECHNIQUES if name not in ("deepaugment",)]


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_contract(name):
    technique = build_technique(name)
    entry = TECHNIQUES[name]
    assert technique.cards == tuple(cards_of(name))
    assert entry.card.name == name
    assert set(entry.card.parameters) == set(inspect.signature(entry.build).parameters), (
        "the card names every argument"
    )
    for text in (
        entry.card.title,
        entry.card.paper,
        entry.card.code,
        entry.card.cost,
        entry.card.published,
    ):
        assert text.strip()
    if technique.augment_batch:
        images = photos()
        before = images.clone()
        out = technique.augment_batch(images, generator(1))
        assert torch.equal(images, before), "the input is not modified"
        assert out.shape == images.shape
        assert out.dtype == images.dtype
        if name != "noise2net":  # which is not clipped, as its card says
            require_unit_range(out)
        assert torch.equal(out, technique.augment_batch(images, generator(1))), (
            "the generator decides everything"
        )
        assert not torch.equal(out, technique.augment_batch(images, generator(2)))
        with pytest.raises(UserError, match="uint8"):
            technique.augment_batch((images * 255).byte(), generator())
        with pytest.raises(UserError, match="divide 8-bit"):
            technique.augment_batch(images * 255, generator())
        assert len(technique.augment_batch(images[:0], generator())) == 0
    if technique.augment_image:
        image = (photos(1)[0] * 255).byte().permute(1, 2, 0).numpy()
        before = image.copy()
        again = pickle.loads(pickle.dumps(technique.augment_image))
        out = technique.augment_image(image, np.random.default_rng(3))
        assert np.array_equal(image, before)
        assert out.shape == image.shape
        assert out.dtype == np.float32
        assert 0 <= out.min() <= out.max() <= 1 + 1e-6
        assert np.array_equal(out, again(image, np.random.default_rng(3)))


def test_parts_of_a_spec_compose():
    both = build_technique("gaussian(std=0.1, share=1.0) + speckle(share=1.0)")
    assert both.spec == "gaussian(share=1.0, std=0.1)+speckle(share=1.0)"
    assert both.overlaps_test == ("gaussian_noise", "speckle_noise")
    assert [card.name for card in both.cards] == ["gaussian", "speckle"]
    images, stream = photos(), generator(5)
    first, second = (
        build_technique("gaussian(std=0.1,share=1.0)"),
        build_technique("speckle(share=1.0)"),
    )
    expected = second.augment_batch(first.augment_batch(images, stream), stream)
    assert torch.equal(both.augment_batch(images, generator(5)), expected)


def test_single_images_come_before_batches_whichever_is_named_first():
    images = [(photo * 255).byte().permute(1, 2, 0).numpy() for photo in photos(2, seed=4)]

    def seen(spec):
        technique = build_technique(spec)
        rng = np.random.default_rng(1)
        views = [
            torch.from_numpy(image_views(technique, image, rng)[0]).permute(2, 0, 1)
            for image in images
        ]
        return batch_views(technique, [torch.stack(views)], generator(2))[0]

    assert torch.equal(seen("prime+augmix(jsd=False)"), seen("augmix(jsd=False)+prime"))


def test_what_builds_of_two_techniques_takes_a_step():
    """Every pair in both orders: refused in one sentence when it is built, or never."""
    model = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3)
    )
    images = [(photo * 255).byte().permute(1, 2, 0).numpy() for photo in photos(seed=3)]
    labels = torch.arange(4) % 3
    # in what they do to others: to trivialaugment and gaussian
    alike = {"autoaugment", "randaugment", "speckle"}
    names = [*sorted(set(WITHOUT_FILES) - alike), "augmix(jsd=False)", "l2(jitter=False)"]
    refused = set()
    for spec in (f"{first}+{second}" for first in names for second in names):
        try:
            technique = build_technique(spec)
        except UserError:
            refused.add(spec)
            continue
        shown_images = [image_views(technique, image, np.random.default_rng(1)) for image in images]
        views = [
            torch.stack([torch.from_numpy(view).permute(2, 0, 1) for view in one])
            for one in zip(*shown_images, strict=True)
        ]
        if technique.auxiliary_network:
            auxiliary_network = technique.auxiliary_network(torch.device("cpu"))
            auxiliary_network.begin_epoch(0, model, [(views[0], labels)], generator())
            views[0] = auxiliary_network.step(model, views[0], labels, generator())
        loss = technique.loss(
            model, batch_views(technique, views, generator()), labels, generator()
        )
        assert loss.isfinite(), spec
    assert {
        "noise2net+gaussian",
        "noise2net+noise2net",
        "l2+noise2net",
        "noise2net+l2(jitter=False)",
    } <= refused
    assert (
        not {"gaussian+noise2net", "noise2net+augmix", "noise2net+ant", "ant+noise2net"} & refused
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            "noise2net+gaussian",
            (
                "gaussian expects images of 0..1, but those of noise2net leave it; write"
                " gaussian+noise2net"
            ),
        ),
        ("noise2net+noise2net", "leave one of them out"),
        (
            "noise2net+l2(jitter=False)",
            "l2(jitter=False) expects images of 0..1, but those of noise2net leave it; leave one",
        ),
        ("l2+noise2net", "l2 expects images of 0..1, but those of noise2net leave it; leave one"),
        ("gausian", "Did you mean: gaussian"),
        ("gaussian(sd=1)", "Unknown argument of gaussian 'sd'"),
        ("gaussian(std='much')", "std of gaussian got 'much'"),
        ("gaussian(std=-0.5)", "above 0"),
        ("gaussian(std=())", "at least one"),
        ("gaussian(share=1.5)", "at most 1"),
        ("gaussian+", "Expected a technique"),
        ("gaussian(std=open('x'))", "literal"),
    ],
)
def test_a_wrong_spec_is_one_sentence(spec, words):
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        build_technique(spec)
    assert words in str(caught.value)


def test_views():
    image = (photos(1)[0] * 255).byte().permute(1, 2, 0).numpy()
    technique = build_technique("gaussian(share=1.0)")
    (clean,) = image_views(technique, image, np.random.default_rng(0))
    assert np.allclose(clean * 255, image)
    images = torch.from_numpy(clean).permute(2, 0, 1)[None]
    (noisy,) = batch_views(technique, [images], generator())
    assert not torch.equal(noisy, images)
    with pytest.raises(UserError, match="views"):
        batch_views(technique, [images, images], generator())


ROOTS = "deepaugment(roots=('changed',))"
REFUSED = [
    "augmix(fill=128, severity=3)",
    "prime(jsd=True, shared='sample')",
    "randaugment(num_ops=3)",
    "l2+trivialaugment(geometry=True)",
    "prime(jsd=True)+trivialaugment(all_ops=False)",
    f"{ROOTS}+augmix(width=5)",
    f"{ROOTS}+ant",
]


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
@pytest.mark.parametrize("spec", [*WITHOUT_FILES, ROOTS, *REFUSED])
def test_what_a_refusal_hints_at_is_accepted(spec, task):
    try:
        require_photometric(build_technique(spec), task)
    except UserError as refused:
        hint = re.search(r"; use (.+)$", str(refused))[1]
        if hint != "one that only augments":
            require_photometric(build_technique(hint), task)


def test_a_hint_keeps_the_other_arguments_and_names_every_obstacle():
    with pytest.raises(
        UserError,
        match=r"use augmix\(fill=128, geometry=False, jsd=False\)\+prime\(geometry=False\)$",
    ):
        require_photometric(build_technique("augmix(fill=128)+prime"), "detection")
    with pytest.raises(UserError, match=r"use augmix\(fill=128, jsd=False\)\+prime$"):
        require_photometric(build_technique("augmix(fill=128)+prime"), "classification")
    with pytest.raises(UserError, match=r"use one that only augments$"):
        require_photometric(build_technique("ant"), "detection")


def test_range_is_checked():
    require_unit_range(photos())
    with pytest.raises(UserError, match="float images"):
        require_unit_range((photos() * 255).byte())
    with pytest.raises(UserError, match="before normalising"):
        require_unit_range(photos() - 0.5)
    with pytest.raises(UserError, match="but got values from nan"):
        require_unit_range(photos() * float("nan"))
    with pytest.raises(UserError, match="permute"):
        require_unit_range(photos()[0])


@pytest.mark.parametrize("name", TECHNIQUES)
def test_the_page_says_what_the_card_says(name):
    """Every argument and every published number stands in docs/reference/robustify.md as code."""
    page = (Path(__file__).parents[2] / "docs/reference/robustify.md").read_text(encoding="utf-8")
    card = TECHNIQUES[name].card
    assert f"`{name}" in page
    for parameter in card.parameters:
        assert f"`{parameter}`" in page or f"`{parameter}=" in page or f"({parameter}=" in page, (
            parameter
        )
    for number in re.findall(r"\d+\.\d+", card.published):
        assert number in page, number


def test_a_card_is_shown_whole():
    first, second = cards_of("deepaugment + prime(geometry=False)")
    assert (first.name, second.name) == ("deepaugment", "prime")
    text = second.text()
    for part in (
        second.paper,
        second.code,
        second.cost,
        second.published,
        *second.left_out,
        *second.parameters.values(),
    ):
        assert part in text
    with pytest.raises(UserError, match="Did you mean: prime"):
        cards_of("prme")


def test_the_published_result_of_deepaugment_with_augmix_stands_where_it_belongs():
    """53.6 is without Noise2Net, and its script fills with 128."""
    assert [name for name, entry in TECHNIQUES.items() if "53.6" in entry.card.published] == [
        "deepaugment"
    ]
    page = (Path(__file__).parents[2] / "docs/reference/robustify.md").read_text(encoding="utf-8")
    spec, claimed = re.search(
        r"`(deepaugment\(roots=\.\.\.\)\+augmix.*?)`.*?mCE (\d+\.\d)", page
    ).groups()
    assert (spec, claimed) == ("deepaugment(roots=...)+augmix(fill=128)", "53.6")
    assert all(
        "fill=128" in RECIPES[name].source
        for name in ("imagenet_deepaugment_augmix", "imagenet_augmix_180")
    )
