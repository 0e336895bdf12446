"""Options of a dataset spec, such as ``coco(split='valid'):PATH``, and notes on what was assumed.

A format declares its options as ``Option`` values. ``open_dataset`` validates what a user gave and
passes it on in ``OpenOptions``. What a reader assumes or repairs goes into ``OpenOptions.notes``.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stillrobust.data.bad_images import Faults, exclude_bad_images
from stillrobust.data.decoding import DEFAULT_READING, ImageReading
from stillrobust.errors import UserError
from stillrobust.names import format_spec, unknown_name_error
from stillrobust.samples import Dataset


@dataclass(frozen=True)
class Option:
    """One option of a format.

    Attributes:
        name: Key in the spec.
        expected: The values it takes, for help and errors, such as ``True or False``.
        accepts: Whether a value is one of them.
        help: What the option does, as an imperative.
    """

    name: str
    expected: str
    accepts: Callable[[Any], bool]
    help: str


def flag_option(name: str, help_text: str) -> Option:
    """An option that is ``True`` or ``False``."""
    return Option(name, "True or False", lambda value: type(value) is bool, help_text)


def text_option(name: str, expected: str, help_text: str) -> Option:
    """An option that is a text."""
    return Option(name, expected, lambda value: isinstance(value, str) and value != "", help_text)


def _is_name_list(value: Any) -> bool:
    named = isinstance(value, list | tuple) and bool(value)
    return named and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


PART = flag_option("part", "Accept an official set with fewer images than published.")
SCALE = Option(
    "scale",
    "two numbers (low, high) with low < high",
    lambda value: isinstance(value, list | tuple) and len(value) == 2,
    "Map these values of images with more than 8 bits to 0 and 255.",
)
EXIF = flag_option("exif", "False: ignore the EXIF orientation, for boxes on images as stored.")
READING_OPTIONS = (SCALE, EXIF)
"""How image files are read; options of every format of users' own files."""
LEAVE_OUT_BAD = flag_option(
    "leave_out_bad", "Leave out images that cannot be used, and count them."
)
SPLIT = text_option("split", "the name of a split, such as 'valid'", "Read this split.")
CLASSES = Option(
    "classes",
    "a list of different class names, such as ['car', 'bus']",
    _is_name_list,
    "Use these classes, in this order. All others become background or are ignored.",
)
ANNOTATIONS = text_option("annotations", "a file below PATH", "Read this annotation file.")
IMAGES = text_option("images", "a folder below PATH", "Read images from this folder.")
LABELS = text_option("labels", "a folder below PATH", "Read labels from this folder.")
SUFFIX = text_option(
    "suffix", "an ending such as '_mask.png'", "End of label files after the image name."
)


class Notes:
    """What a reader assumed or repaired, as sentences, with counts of what was repaired."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._counts: Counter[str] = Counter()

    def say(self, sentence: str) -> None:
        """Add a sentence, without a period. It is kept once."""
        if sentence not in self._sentences:
            self._sentences.append(sentence)

    def count(self, repair: str, number: int = 1) -> None:
        """Count a repair, such as ``annotations without an id, which were numbered``."""
        if number:
            self._counts[repair] += number

    def sentences(self) -> tuple[str, ...]:
        """All sentences, then the repairs with their counts, in the order of their first use."""
        counts = (f"{repair}: {count:,}" for repair, count in self._counts.items())
        return (*self._sentences, *counts)


@dataclass(frozen=True)
class OpenOptions:
    """How a dataset is opened. A format ignores the options that do not apply to it.

    Attributes:
        training: Drop images without objects to learn from, as mmdetection does (detection).
        faults: Collects images that cannot be used. ``None`` makes the first of them an error.
        given: The options that apply, validated: name -> value.
        typed: The options as the user wrote them, for messages.
        format_name: Name of the format.
        path: PATH of the spec.
        notes: Collects what was assumed and repaired.
        reading: How image files are read.
    """

    training: bool = False
    faults: Faults | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    typed: Mapping[str, Any] = field(default_factory=dict)
    format_name: str = ""
    path: Path = Path()
    notes: Notes = field(default_factory=Notes, compare=False)
    reading: ImageReading = DEFAULT_READING

    def value(self, name: str, default: Any = None) -> Any:
        """The value of an option, or ``default`` if the spec does not have it."""
        return self.given.get(name, default)

    def renewed(self, **changes: Any) -> "OpenOptions":
        """The same with other options given, and with notes of its own."""
        return replace(self, given={**self.given, **changes}, notes=Notes())

    def spec(self, **changes: Any) -> str:
        """The spec with other options, to be shown in a message; ``None`` removes an option."""
        given = {
            key: value for key, value in {**self.typed, **changes}.items() if value is not None
        }
        return f"{format_spec(self.format_name, given)}:{self.path}"


def open_usable(open_with: Callable[[OpenOptions], Dataset], options: OpenOptions) -> Dataset:
    """Open a dataset with the options of all formats: ``scale``, ``exif``, ``leave_out_bad``.

    Args:
        open_with: Opens the dataset.
        options: The options as given.

    Returns:
        The dataset, without bad images if ``leave_out_bad`` is given.

    Raises:
        UserError: If the dataset or an option is wrong.
    """
    scale, exif = options.value("scale"), options.value("exif", True)
    reading = ImageReading(None if scale is None else tuple(scale), exif)
    options = replace(options, reading=reading)
    if not options.value("leave_out_bad", False):
        return open_with(options)
    faults: Faults = {}
    return exclude_bad_images(open_with(replace(options, faults=faults)), faults)


def require_options(
    name: str, options: Sequence[Option], given: Mapping[str, Any], spec: str
) -> None:
    """Check the options that a user gave.

    Args:
        name: Name of the format.
        options: Options of the format.
        given: Name -> value.
        spec: The whole spec, for messages.

    Raises:
        UserError: If an option is unknown or has a wrong value.
    """
    known = {option.name: option for option in options}
    for key, value in given.items():
        if key not in known:
            raise unknown_name_error(f"option in {spec!r}: the format {name} has no", key, known)
        if not known[key].accepts(value):
            raise UserError(
                f"Expected {known[key].expected} for {key} in {spec!r}, but got {value!r}; correct"
                " it"
            )
