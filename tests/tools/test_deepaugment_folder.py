"""DeepAugment's folders: matched, resumable, the same whatever the workers; and training sets of
several roots.
"""

import json
import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from stillrobust.cli import app
from stillrobust.data import open_dataset
from stillrobust.data.official.imagenet import ImageNetDataset
from stillrobust.errors import UserError
from stillrobust.robustify import build_technique
from stillrobust.robustify.deepaugment import NETWORKS, MultiRootDataset, Pretrained
from stillrobust.tools import deepaugment_folder, folder_job
from stillrobust.tools.deepaugment_folder import make_deepaugment_folder, weight_groups
from stillrobust.training import batches
from tests.deepaugment_toys import enlarging_edsr

CLASSES = {"cat": ("a.png", "b.jpg", "deep/c.png"), "dog": ("a.png", "d.jpeg")}
NAMES = sorted(f"{folder}/{name}" for folder, names in CLASSES.items() for name in names)


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        path = tmp_path / "set" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (10 + number, 12, 3)).astype(np.uint8)).save(path)
    return tmp_path / "set" / "train"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "edsr.pt"
    torch.save(enlarging_edsr().state_dict(), path)
    return path


@pytest.fixture
def small(monkeypatch):
    """Images of 12 pixels instead of 128, and no processes; every part's name is kept."""
    parts = []

    def here(jobs, workers, listen, gpus):
        for job in jobs:
            parts.append(job.name)
            job.run(lambda done, total, text, job=job: listen(job.name, done, total, text))

    monkeypatch.setitem(NETWORKS, "edsr", replace(NETWORKS["edsr"], side=12))
    monkeypatch.setattr(folder_job, "run_jobs", here)
    return parts


def made(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.jpg")}


def test_folders_match(source, weights, small, tmp_path):
    out = tmp_path / "edsr"
    heard = []
    summary = make_deepaugment_folder(
        source, out, "edsr", weights, listen=lambda *news: heard.append(news)
    )
    assert (summary.written, summary.already, summary.skipped) == (5, 0, {})
    files = made(out)
    assert sorted(files) == ["cat/a.jpg", "cat/b.jpg", "cat/deep/c.jpg", "dog/a.jpg", "dog/d.jpg"]
    with Image.open(out / "dog" / "d.jpg") as opened:
        assert opened.format == "JPEG"
        assert min(opened.size) == 48
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["protocol"]["weights"] == summary.protocol["weights"]
    assert sum(done == total for _, done, total, _ in heard) == len(small)


def test_images_of_16_bits_need_a_range(source, weights, small, tmp_path):
    deep = np.linspace(7000, 8530, 144).reshape(12, 12).astype(np.uint16)
    Image.fromarray(deep).save(source / "cat" / "a.png")
    without = make_deepaugment_folder(source, tmp_path / "one", "edsr", weights)
    assert list(without.skipped) == ["cat/a.png"]
    assert "7000 to 8530 of 0 to 65535" in without.skipped["cat/a.png"]
    scaled = make_deepaugment_folder(source, tmp_path / "two", "edsr", weights, scale=(7000, 8530))
    assert (scaled.written, scaled.skipped) == (5, {})
    assert scaled.protocol["reading"] == "values 7000 to 8530 become 0 to 255"


def test_workers_and_interruptions_do_not_matter(source, weights, small, tmp_path, monkeypatch):
    monkeypatch.setattr(
        deepaugment_folder, "REDRAW_PROBABILITY", 1.0
    )  # every image has weights of its own
    assert len(weight_groups(NAMES, 0)) == 5
    make_deepaugment_folder(source, tmp_path / "one", "edsr", weights, workers=1)
    make_deepaugment_folder(source, tmp_path / "many", "edsr", weights, workers=7)
    assert made(tmp_path / "one") == made(tmp_path / "many")
    (tmp_path / "many" / "cat" / "a.jpg").unlink()
    (tmp_path / "many" / "cat" / f".b.jpg.{'0' * 12}").write_bytes(b"half")
    again = make_deepaugment_folder(source, tmp_path / "many", "edsr", weights)
    assert (again.written, again.already) == (1, 4)
    assert made(tmp_path / "one") == made(tmp_path / "many")
    assert not list((tmp_path / "many").rglob(".b.jpg*"))
    for path in sorted((tmp_path / "many").rglob("*.jpg")):
        path.unlink()
        make_deepaugment_folder(source, tmp_path / "many", "edsr", weights)
    assert made(tmp_path / "one") == made(tmp_path / "many"), (
        "whichever is missing, it becomes what it was"
    )
    with monkeypatch.context() as patch:
        patch.delattr(Pretrained, "perturb")  # nothing is missing, so no network is used
        assert make_deepaugment_folder(source, tmp_path / "many", "edsr", weights).written == 0
    make_deepaugment_folder(source, tmp_path / "other", "edsr", weights, seed=1)
    assert made(tmp_path / "one") != made(tmp_path / "other")


def test_every_group_and_every_image_has_draws_of_its_own(
    source, weights, small, tmp_path, monkeypatch
):
    drawn = []

    class Noted:
        sha256 = "0" * 64

        def perturb(self, rng):
            drawn.append(("weights", int(rng.integers(2**60))))

        def distort(self, image, rng):
            drawn.append(("image", int(rng.integers(2**60))))
            return np.asarray(image)

    monkeypatch.setattr(deepaugment_folder, "load_pretrained", lambda *_: Noted())
    monkeypatch.setattr(deepaugment_folder, "REDRAW_PROBABILITY", 1.0)  # a group an image
    for seed in (0, 1):
        make_deepaugment_folder(source, tmp_path / f"out{seed}", "edsr", weights, seed=seed)
    assert len(drawn) == len(set(drawn)) == 2 * (5 + 5)
    many = [f"{number}.png" for number in range(200)]
    assert weight_groups(many, 0) != weight_groups(many, 1)


def test_another_protocol_is_refused(source, weights, small, tmp_path):
    make_deepaugment_folder(source, tmp_path / "out", "edsr", weights)
    with pytest.raises(UserError, match="seed was 0 and is 1"):
        make_deepaugment_folder(source, tmp_path / "out", "edsr", weights, seed=1)
    shutil.copy(source / "cat" / "a.png", source / "cat" / "z.png")
    with pytest.raises(UserError, match="sources was"):
        make_deepaugment_folder(source, tmp_path / "out", "edsr", weights)


def test_a_damaged_image_is_left_out_and_said(source, weights, small, tmp_path):
    (source / "cat" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf of it")
    summary = make_deepaugment_folder(source, tmp_path / "out", "edsr", weights)
    assert list(summary.skipped) == ["cat/a.png"]
    assert summary.written == 4
    sources = json.loads((tmp_path / "out" / "manifest.json").read_text())["sources"]
    assert [name for name, record in sources.items() if record.get("skipped")] == ["cat/a.png"]
    again = make_deepaugment_folder(source, tmp_path / "out", "edsr", weights)
    assert (again.written, again.already, list(again.skipped)) == (0, 4, ["cat/a.png"])


def test_refusals(source, weights, tmp_path):
    with pytest.raises(UserError, match="random ones leave nothing"):
        make_deepaugment_folder(source, tmp_path / "out", "edsr", None)
    with pytest.raises(UserError, match="outside"):
        make_deepaugment_folder(source, source / "out", "edsr", weights)
    with pytest.raises(UserError, match="there is none"):
        make_deepaugment_folder(tmp_path / "nothing", tmp_path / "out", "edsr", weights)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="found none"):
        make_deepaugment_folder(tmp_path / "empty", tmp_path / "out", "edsr", weights)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="other files"):
        make_deepaugment_folder(source, tmp_path / "taken", "edsr", weights)
    shutil.copy(source / "cat" / "a.png", source / "cat" / "a.jpg")
    with pytest.raises(UserError, match="found more than one cat/a"):
        make_deepaugment_folder(source, tmp_path / "out", "edsr", weights)
    assert not (tmp_path / "out").exists()


def test_weights_change_before_one_image_in_twenty():
    names = [f"c/{number}.png" for number in range(20_000)]
    found = weight_groups(names, seed=3)
    assert sorted(name for group in found for name in group) == sorted(names)
    assert abs(len(found) / 20_000 - 0.05) < 0.005
    sizes = np.array([len(group) for group in found])
    assert abs((sizes == 1).mean() - 0.05) < 0.025, "geometric"
    assert found[0][0] != names[0], "in a random order"


@pytest.mark.slow
def test_in_processes(source, weights, tmp_path):
    for name in NAMES[2:]:
        (source / name).unlink()
    summary = make_deepaugment_folder(source, tmp_path / "out", "edsr", weights, workers=2)
    assert summary.written == 2
    with Image.open(tmp_path / "out" / "cat" / "a.jpg") as opened:
        assert min(opened.size) == 512


def test_command(source, weights, small, tmp_path):
    call = [
        "techniques",
        "deepaugment",
        str(source),
        str(tmp_path / "out"),
        "--network",
        "edsr",
        "--weights",
        str(weights),
    ]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert "weights: SHA-256 " in result.output
    assert "5 files written, 0 existed already, 0 images skipped" in result.output
    (source / "cat" / "a.png").write_bytes(b"")
    call[3] = str(tmp_path / "second")
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 3
    assert "skipped: cat/a.png" in result.output


# ---- several roots ----


@pytest.fixture
def roots(source):
    """Two folders of grey images, whose grey says root and place; one has other suffixes and an
    image too many.
    """
    folders = []
    for number, (root, suffix) in enumerate((("edsr", "jpg"), ("cae", "png"))):
        folders.append(source.parent.parent / root)
        for place, name in enumerate(NAMES):
            path = (folders[-1] / name).with_suffix(f".{suffix}")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 6, 3), 100 * (number + 1) + 4 * place, np.uint8)).save(path)
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(folders[1] / "cat" / "extra.png")
    return tuple(map(str, folders))


def test_concat_has_all_of_all(source, roots):
    clean = open_dataset(f"folders:{source.parent}", "train")
    both = MultiRootDataset(clean, roots)
    assert len(both) == both.info.size == 15
    assert both.info.classes == ("cat", "dog")
    for index in range(15):
        version, place = divmod(index, 5)
        sample, original = both[index], clean[place]
        assert sample.target.label == original.target.label
        if version == 0:
            assert np.array_equal(sample.image, original.image)
        else:
            assert abs(int(sample.image[0, 0, 0]) - (100 * version + 4 * place)) <= 1
            assert (
                Path(sample.target.image_id)
                .with_suffix("")
                .as_posix()
                .endswith(str(Path(NAMES[place]).with_suffix("")))
            )
    assert len({both[index].target.image_id for index in range(15)}) == 15
    with pytest.raises(IndexError):
        both[15]


def version_of(sample):
    grey = sample.image.reshape(-1, 3)
    return int(grey[0, 0]) // 100 if (grey == grey[0]).all() else 0


def test_choice_keeps_the_length(source, roots):
    chosen = MultiRootDataset(
        open_dataset(f"folders:{source.parent}", "train"), roots, combine="choice"
    )
    assert len(chosen) == 5
    versions = [
        [version_of(chosen.at_epoch(epoch)[place]) for place in range(5)] for epoch in range(200)
    ]
    again = [
        [version_of(chosen.at_epoch(epoch)[place]) for place in range(5)] for epoch in range(3)
    ]
    assert versions[:3] == again, "the same in any order, with any number of workers"
    shares = [np.mean(np.array(versions) == version) for version in range(3)]
    assert all(abs(share - 1 / 3) < 0.05 for share in shares)


def test_training_takes_another_choice_every_epoch(source, roots):
    """The loop's own reader of samples, with a task that leaves them as they are."""

    class Plain:
        augment = staticmethod(lambda sample, rng: sample)

    clean = open_dataset(f"folders:{source.parent}", "train")
    chosen = MultiRootDataset(clean, roots, combine="choice")
    reader = batches.AugmentedDataset(Plain(), chosen, 0, lambda sample, rng: [sample])
    seen = [version_of(reader[epoch, 2][0]) for epoch in range(20)]
    assert seen == [version_of(chosen.at_epoch(epoch)[2]) for epoch in range(20)]
    assert len(set(seen)) == 3
    fresh = [
        version_of(view)
        for ((view,),) in chain.from_iterable(
            batches.companion_batches(reader, 1, 0, 0, 1, e) for e in range(9)
        )
    ]
    shown = [sorted(version_of(chosen.at_epoch(e)[place]) for place in range(5)) for e in range(9)]
    assert [sorted(fresh[5 * e : 5 * e + 5]) for e in range(9)] == shown, (
        "what trains beside the model sees the epoch's images too"
    )
    assert (
        version_of(
            batches.AugmentedDataset(Plain(), clean, 0, lambda sample, rng: [sample])[7, 2][0]
        )
        == 0
    )


def test_missing_images_are_counted(source, roots):
    Path(roots[0], "cat", "a.jpg").unlink()
    Path(roots[1], "cat", "a.png").unlink()
    Path(roots[1], "dog", "d.png").unlink()
    with pytest.raises(
        UserError,
        match=r"each of the 5 .*1 are missing in .*edsr \(cat/a.png\); 2 are missing in .*cae",
    ) as caught:
        MultiRootDataset(open_dataset(f"folders:{source.parent}", "train"), roots)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is none"):
        MultiRootDataset(open_dataset(f"folders:{source.parent}", "train"), ("nowhere",))


def test_fingerprint_follows_everything(source, roots):
    clean = open_dataset(f"folders:{source.parent}", "train")

    def fingerprints():
        modes = [
            MultiRootDataset(clean, roots, mode).info.fingerprint for mode in ("concat", "choice")
        ]
        return [
            *modes,
            MultiRootDataset(clean, roots[:1]).info.fingerprint,
            MultiRootDataset(clean, roots, "choice", 1).info.fingerprint,
        ]

    first = fingerprints()
    assert len({*first, clean.info.fingerprint}) == 5
    assert fingerprints() == first
    Image.fromarray(np.full((6, 6, 3), 7, np.uint8)).save(Path(roots[1], "dog", "d.png"))
    second = fingerprints()
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, False, True, False]


def test_imagenet_is_extended(tmp_path):
    """The official layout: WordNet ids as classes, .JPEG as suffix; the folders' files end
    otherwise.
    """
    ids = ("n01440764/n01440764_10026.JPEG", "n15075141/n15075141_9.JPEG")
    for root, suffix in (("train", ".JPEG"), ("edsr", ".jpg")):
        for name in ids:
            path = (tmp_path / root / name).with_suffix(suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(path)
    both = MultiRootDataset(
        ImageNetDataset(tmp_path / "train", ids, False, "train"), (str(tmp_path / "edsr"),)
    )
    assert [both[index].target.label for index in range(4)] == [0, 999, 0, 999]


def test_as_a_technique(source, roots):
    clean = open_dataset(f"folders:{source.parent}", "train")
    technique = build_technique(f"deepaugment(roots={roots!r})+augmix")
    assert [card.name for card in technique.cards] == ["deepaugment", "augmix"]
    assert len(technique.extend_dataset(clean, 0)) == 15
    choice = build_technique(f"deepaugment(roots={roots!r}, combine='choice')").extend_dataset(
        clean, 3
    )
    assert choice.info == MultiRootDataset(clean, roots, "choice", seed=3).info
    assert technique.views == 3
    assert technique.augment_image is not None
    for spec, words in (
        ("deepaugment", "Expected folders"),
        ("deepaugment(roots=('a',), combine='concatt')", "Did you mean: concat"),
        ("deepaugment(roots='a')", "roots of deepaugment got 'a'"),
    ):
        with pytest.raises(UserError) as caught:
            build_technique(spec)
        assert words in str(caught.value)
    with pytest.raises(UserError, match="Expected a changed image for each"):
        technique.extend_dataset(technique.extend_dataset(clean, 0), 0)
