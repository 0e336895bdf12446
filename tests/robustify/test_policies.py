"""torchvision's policies: unchanged where nothing is left out, and without what is."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from stillrobust.errors import UserError
from stillrobust.robustify import build_technique, policies, require_photometric

NAMES = ("trivialaugment", "randaugment", "autoaugment")
KINDS = {
    "trivialaugment": v2.TrivialAugmentWide,
    "randaugment": v2.RandAugment,
    "autoaugment": v2.AutoAugment,
}


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (24, 20, 3)).astype(np.uint8)


def applied(monkeypatch, spec, count=300):
    """The names of the operations that torchvision is asked for."""
    seen = []
    plain = v2.RandAugment._apply_image_or_video_transform

    def record(self, image, transform_id, *rest, **options):
        seen.append(transform_id)
        return plain(self, image, transform_id, *rest, **options)

    for kind in KINDS.values():
        monkeypatch.setattr(kind, "_apply_image_or_video_transform", record)
    augment = build_technique(spec).augment_image
    for number in range(count):
        augment(picture(), np.random.default_rng(number))
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_by_default_it_is_torchvisions_own(name):
    augment = build_technique(name).augment_image
    for number in range(40):
        ours = augment(picture(), np.random.default_rng(number))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.default_rng(number).integers(2**63)))
            theirs = KINDS[name]()(torch.from_numpy(picture()).permute(2, 0, 1))
        assert np.array_equal(
            np.round(ours * 255).astype(np.uint8), theirs.permute(1, 2, 0).numpy()
        )


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_out_is_never_applied(name, monkeypatch):
    assert set(applied(monkeypatch, name)) & set(policies.OVERLAPS)
    without = set(applied(monkeypatch, f"{name}(all_ops=False)"))
    assert without
    assert not without & set(policies.OVERLAPS)
    still = set(applied(monkeypatch, f"{name}(geometry=False, all_ops=False)"))
    assert still
    assert not still & (set(policies.OVERLAPS) | policies.GEOMETRIC)
    assert "Rotate" in set(applied(monkeypatch, name)), (
        "leaving out changes no one else's transform"
    )


@pytest.mark.parametrize("name", NAMES)
def test_marks(name):
    published = build_technique(name)
    assert "contrast" in published.overlaps_test
    assert published.geometric
    assert build_technique(f"{name}(all_ops=False)").overlaps_test == ()
    fit = build_technique(f"{name}(geometry=False)")
    require_photometric(fit, "detection")
    with pytest.raises(UserError, match=f"use {name}.geometry=False"):
        require_photometric(published, "detection")


def test_autoaugment_is_marked_by_what_its_policy_holds():
    # no brightness
    assert build_technique("autoaugment").overlaps_test == ("contrast", "gaussian_blur", "saturate")
    assert "brightness" in build_technique("autoaugment(policy='cifar10')").overlaps_test


@pytest.mark.parametrize("number", [1, 4])
def test_randaugment_applies_so_many(number, monkeypatch):
    assert len(applied(monkeypatch, f"randaugment(num_ops={number})", 10)) == 10 * number


def test_the_global_generator_stays_as_it_is():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    build_technique("randaugment").augment_image(picture(), np.random.default_rng(0))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "spec",
    ["randaugment(magnitude=31)", "randaugment(num_ops=0)", "autoaugment(policy='imagenett')"],
)
def test_refusals(spec):
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        build_technique(spec)
    with pytest.raises(UserError, match="uint8"):
        build_technique("randaugment").augment_image(picture() / 255, np.random.default_rng(0))
