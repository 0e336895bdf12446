"""Several versions of the same training images: the originals and folders of changed ones.

Images are matched by class and file stem.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from stillrobust.data.reading import derived_fingerprint, fingerprint, image_files, read_image
from stillrobust.errors import UserError
from stillrobust.samples import Dataset, DatasetInfo, Sample, Target

COMBINATIONS = ("concat", "choice")
MAX_NAMED = 3  # missing images that an error names


@dataclass(frozen=True)
class MultiRootDataset:
    """The images of ``clean``, and of each of them one version in every root.

    A version is ``<root>/<class>/<stem>.<any suffix>``. Raises ``UserError`` with the number of
    missing images.
    """

    clean: Dataset
    roots: tuple[str, ...]
    combine: str = "concat"
    """How versions are combined.

    ``concat``: all of ``clean``, then all of each root, (1 + roots) · N images. ``choice``: N
    images, each in a version that is drawn again in every epoch.
    """
    seed: int = 0
    epoch: int = 0
    names: tuple[str, ...] = field(default=(), repr=False)
    """``<class>/<file>`` of the images of ``clean``, in its order. Derived if it is empty."""
    files: tuple[tuple[Path, ...], ...] = field(default=(), repr=False)
    """The matching files of every root. Derived if ``names`` is empty."""

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", _names(self.clean))
            object.__setattr__(
                self, "files", _match(self.names, [Path(root).expanduser() for root in self.roots])
            )

    def at_epoch(self, epoch: int) -> "MultiRootDataset":
        """Return the dataset of an epoch. It shares all files that were found.

        Args:
            epoch: From 0. It changes what ``choice`` draws.
        """
        return replace(self, epoch=epoch)

    @cached_property
    def info(self) -> DatasetInfo:
        """Facts of the dataset: those of ``clean``, with the number of all images.

        The fingerprint covers the images of the roots too.
        """
        base = self.clean.info
        digests = [fingerprint((), self.names, files, b"") for files in self.files]
        changes = (self.combine, self.seed if self.combine == "choice" else 0, *digests)
        return replace(
            base,
            size=len(self),
            fingerprint=derived_fingerprint(base.fingerprint, "roots", *changes),
        )

    def __len__(self) -> int:
        return len(self.clean) * (1 + len(self.roots) if self.combine == "concat" else 1)

    def _version_and_place(self, index: int) -> tuple[int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        version, place = divmod(index % len(self), len(self.clean))
        if self.combine == "choice":
            version = int(
                np.random.default_rng([self.seed, self.epoch, place]).integers(1 + len(self.roots))
            )
        return version, place

    def __getitem__(self, index: int, /) -> Sample:
        version, place = self._version_and_place(index)
        if version == 0:
            return self.clean[place]
        image = read_image(self.files[version - 1][place])
        image_id = self.names[place]
        label = self.clean.info.classes.index(image_id.partition("/")[0])
        size = (image.shape[0], image.shape[1])
        return Sample(image, Target(f"{self.roots[version - 1]}:{image_id}", size, label=label))

    def image_id(self, index: int) -> str:
        """Return the id of an image, with its root unless it is the clean one."""
        version, place = self._version_and_place(index)
        name = self.names[place]
        return name if version == 0 else f"{self.roots[version - 1]}:{name}"


def _names(dataset: Dataset) -> tuple[str, ...]:
    """Return ``<class>/<file>`` of every image."""
    names = tuple(dataset.image_id(index) for index in range(len(dataset)))
    if all("/" in name for name in names):
        return names
    raise UserError(
        f"Expected a dataset with a folder for each class to extend by DeepAugment, but got"
        f" {dataset.info.name}; use folders: or imagenet:"
    )


def image_stem(image_id: str) -> str:
    """Return an image id without its suffix: ``cat/a.JPEG`` -> ``cat/a``.

    Args:
        image_id: ``<class>/<file>``.
    """
    folder, slash, name = image_id.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def _match(names: Sequence[str], roots: Sequence[Path]) -> tuple[tuple[Path, ...], ...]:
    """Return the file of each name in every root. A ``UserError`` counts what is missing in all
    roots.
    """
    found, complaints = [], []
    for root in roots:
        if not root.is_dir():
            raise UserError(
                f"Expected a folder of changed images at {root}, but there is none; make it or"
                " check the path"
            )
        there = {image_stem(path.relative_to(root).as_posix()): path for path in image_files(root)}
        missing = [name for name in names if image_stem(name) not in there]
        if missing:
            named = ", ".join(missing[:MAX_NAMED]) + (", ..." if len(missing) > MAX_NAMED else "")
            complaints.append(f"{len(missing)} are missing in {root} ({named})")
        else:
            found.append(tuple(there[image_stem(name)] for name in names))
    if complaints:
        raise UserError(
            f"Expected a changed image for each of the {len(names)} in the training set, but"
            f" {'; '.join(complaints)}; 'stillrobust techniques deepaugment' makes what is missing"
        )
    return tuple(found)
