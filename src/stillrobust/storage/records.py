"""The records of a store: how they are sealed, and what must be true of them.

A record is ``{"format": 1, "sha256": ..., "body": {...}}``. The body is compared with the path of
its file. Unknown keys, which later versions may write, are ignored. Everything else that is wrong
makes a record damaged. JSON of another shape is not a record of this library.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, Cell, Place
from stillrobust.storage.files import bytes_sha256, canonical_json
from stillrobust.untrusted import JsonError, parse_json

FORMAT = 1  # of the records; raised when an older reader would misread them
LATEST_FORMAT = 1000  # a larger one is damage, not a later version
LARGEST = 1 << 28  # bytes of a record; a run that left out 100,000 images has 20 MB
SAFE_NAME = re.compile(r"[^\W_][\w.-]*")  # becomes a file name: no separators, nothing hidden
CELL_FILE = re.compile(rf"(?P<corruption>{SAFE_NAME.pattern})_(?P<severity>[0-5])\.json")
RUN_FILE = re.compile(rf"(?P<run>{SAFE_NAME.pattern})\.json")
HEAD = b'{\n "format": '  # of every record; a file cut off earlier is recognised as well
DIGEST = re.compile("[0-9a-f]{64}")
ARRAY_SUFFIXES = (".npz", ".examples.npz")
MOST_IMAGES = 10**9
MOST_SECONDS = 1e9
DEEPEST = 20  # nested values of a protocol; those of this library have five


class DamagedRecordError(ValueError):
    """A record that cannot be believed. The message states what is wrong in a few words."""


class NotARecordError(ValueError):
    """A file that this library did not write. It is left alone."""


@dataclass(frozen=True)
class CellRecord:
    """The record of one cell."""

    cell: Cell
    key: str
    """Hash of everything that determines the scores."""
    metrics: dict[str, float]
    """Finite scores 0..1 by metric."""
    protocol: dict[str, Any]
    images: int
    seconds: float
    arrays: dict[str, str]
    """SHA-256 of each file of arrays by its name."""

    def body(self) -> dict[str, Any]:
        """Return the body of the record: run, corruption and severity beside the other fields."""
        values = {key: value for key, value in vars(self).items() if key != "cell"}
        return {**asdict(self.cell), **values}

    @classmethod
    def from_body(
        cls, body: Mapping[str, Any], cell: Cell, protocol: dict[str, Any] | None = None
    ) -> "CellRecord":
        """Make a record from its body.

        Args:
            body: The parsed JSON. Unknown keys are ignored.
            cell: Run, corruption and severity, from the path of the file.
            protocol: A checked protocol. The index has it beside a body without ``arrays``.

        Raises:
            DamagedRecordError: If a value is missing, of a wrong type or out of its range, or
                belongs to another cell.
        """
        given = body.get("run"), body.get("corruption"), body.get("severity")
        if given != (cell.run, cell.corruption, cell.severity) or type(given[2]) is not int:
            raise DamagedRecordError(
                f"it is the record of run {given[0]!r:.80}, {given[1]!r:.40} {given[2]!r:.20}"
            )
        key, images, seconds = body.get("key"), body.get("images"), body.get("seconds")
        _require(type(key) is str, "key is not text")
        metrics, arrays = body.get("metrics"), body.get("arrays") if protocol is None else {}
        if type(metrics) is not dict or not metrics:
            raise DamagedRecordError("it has no scores")
        for value in metrics.values():
            _require(_is_number(value, 1), "a score is not a number from 0 to 1")
        _require(type(images) is int and 0 <= images <= MOST_IMAGES, "images is no count")
        _require(_is_number(seconds, MOST_SECONDS), "seconds is no duration")
        if protocol is None:
            check_protocol(body.get("protocol"))
            _check_arrays(arrays, cell)
        assert isinstance(arrays, dict)
        return cls(
            cell,
            body["key"],
            {name: float(value) for name, value in metrics.items()},
            body["protocol"] if protocol is None else protocol,
            body["images"],
            float(body["seconds"]),
            dict(arrays),
        )


def check_run(
    body: Mapping[str, Any], name: str, kinds: Sequence[str], transfers: Sequence[str]
) -> None:
    """Check the body of the record of a run.

    Args:
        body: The parsed JSON.
        name: Name of the run, from the name of the file.
        kinds: Known kinds of runs.
        transfers: Known transfers.

    Raises:
        DamagedRecordError: If a value is missing, of a wrong type, or belongs to another run.
    """
    _require(body.get("name") == name, f"it is the record of run {body.get('name')!r:.80}")
    for key in ("task", "backbone", "dataset"):
        _require(isinstance(body.get(key), str), f"{key} is not text")
    transfer, kind = body.get("transfer"), body.get("kind")
    _require("transfer" in body, "transfer is missing")
    _require(transfer is None or _is_one_of(transfer, transfers), "transfer is wrong")
    _require(_is_one_of(kind, kinds), "kind is wrong")
    _require(_is_list_of(body.get("classes"), str), "classes is not a list of names")
    check_protocol(body.get("protocol"))
    training = body["protocol"].get("training", {})
    if kind == "robustify" and "seed" in training.get("recipe", {}):
        _check_maker(training)


def safe_name(name: str) -> str:
    """Return ``name`` if it can be a file name.

    Raises:
        UserError: Otherwise.
    """
    if not SAFE_NAME.fullmatch(name):
        raise UserError(
            f"Expected a name of letters, digits, '.', '_' and '-', but got {name!r}: choose"
            " another name"
        )
    return name


def array_file(cell: Cell, suffix: str) -> str:
    """Return the name of a cell's file with this suffix."""
    return f"{safe_name(cell.corruption)}_{int(cell.severity)}{suffix}"


def cell_of_file(run: str, name: str) -> Cell | None:
    """Return the cell whose record has this file name, or ``None`` if no record has."""
    place = _place_of_file(name)
    return None if place is None else Cell(run, *place)


@lru_cache(maxsize=1024)  # all runs have the same places
def _place_of_file(name: str) -> Place | None:
    match = CELL_FILE.fullmatch(name)
    if match is None:
        return None
    place = match["corruption"], int(match["severity"])
    return place if (place[0] == CLEAN[0]) == (place[1] == CLEAN[1]) else None


def run_of_file(name: str) -> str | None:
    """Return the run whose record has this file name, or ``None`` if no record has."""
    match = RUN_FILE.fullmatch(name)
    return match and match["run"]


def seal_record(body: Mapping[str, Any]) -> bytes:
    """Return the content of the file of a record.

    Raises:
        UserError: If the body holds anything but plain values.
    """
    digest = bytes_sha256(canonical_json(body))
    sealed = {"format": FORMAT, "sha256": digest, "body": body}
    return json.dumps(sealed, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def unseal_record(content: bytes, where: object) -> dict[str, Any]:
    """Return the body of a record whose hash is right. Its values are not checked yet.

    Args:
        content: Content of the file.
        where: Path of the file, for the error.

    Raises:
        DamagedRecordError: If the record is incomplete or altered.
        NotARecordError: If the content is something else.
        UserError: If a later version wrote the record.
    """
    try:
        sealed = parse_json(content)
    except JsonError as error:
        if content.strip(b"\0") and not (content.startswith(HEAD) or HEAD.startswith(content)):
            raise NotARecordError(f"it is no record: {error}") from None
        raise DamagedRecordError("it is incomplete or altered") from None
    if type(sealed) is not dict or not sealed.keys() >= {"format", "sha256", "body"}:
        raise NotARecordError("it is no record")
    made_by, body = sealed["format"], sealed["body"]
    if type(made_by) is int and FORMAT < made_by <= LATEST_FORMAT:
        raise UserError(
            f"Expected records of format {FORMAT}, but {where} has {made_by}: use a newer"
            " stillrobust"
        )
    try:
        whole = bytes_sha256(canonical_json(body)) == sealed["sha256"]
    except UserError:  # a number that is not finite, or text that is not Unicode
        whole = False
    _require(whole and type(body) is dict and made_by == FORMAT, "it is incomplete or altered")
    return dict(body)


def _check_arrays(arrays: object, cell: Cell) -> None:
    names = {array_file(cell, suffix) for suffix in ARRAY_SUFFIXES}
    if type(arrays) is not dict or not arrays.keys() <= names:
        raise DamagedRecordError("arrays has other files")
    for digest in arrays.values():
        _require(type(digest) is str and bool(DIGEST.fullmatch(digest)), "arrays has no digests")


def check_protocol(protocol: object) -> None:
    """Check the parts of a protocol that reports read.

    Args:
        protocol: Protocol of a run or a cell. Unknown keys may have any plain values.

    Raises:
        DamagedRecordError: If it is no mapping, is nested too deeply, or a part has a wrong type.
    """
    if type(protocol) is not dict:
        raise DamagedRecordError("protocol is no mapping")
    _require(_is_shallow(protocol, DEEPEST), "protocol is nested too deeply")
    left_out = protocol.get("left_out", {})
    _require(
        type(left_out) is dict
        and all(type(one) is int and 0 <= one <= MOST_IMAGES for one in left_out.values()),
        "left_out has no counts",
    )
    _require(type(protocol.get("evaluation", {})) is dict, "evaluation is no mapping")
    _require(type(protocol.get("imported", {})) is dict, "imported is no mapping")
    _require(_is_list_of(protocol.get("overlaps_test", []), str), "overlaps_test is no list")
    _check_plausibility(protocol.get("plausibility", {}))
    if "training" in protocol:
        _check_training(protocol["training"])
    _check_maker(protocol.get("made_by"))


def _check_plausibility(found: object) -> None:
    if type(found) is not dict:
        raise DamagedRecordError("plausibility is no mapping")
    _require(_is_list_of(found.get("warnings", []), str), "warnings of plausibility are no list")
    chance = found.get("chance", 0.0)
    _require(type(chance) in (int, float) and 0 <= chance <= 1, "chance is not within 0..1")


def _check_maker(maker: object) -> None:
    """Check ``made_by``: the training of a backbone, which may have another maker in it."""
    if maker is not None:
        _check_training(maker)
        assert isinstance(maker, dict)
        for key in ("backbone", "technique"):
            _require(isinstance(maker.get(key), str), f"{key} of made_by is not text")
        _check_maker(maker.get("made_by"))


def _check_training(training: object) -> None:
    if type(training) is not dict:
        raise DamagedRecordError("training is no mapping")
    recipe = training.get("recipe", {})
    if type(recipe) is not dict:
        raise DamagedRecordError("recipe is no mapping")
    _require(type(recipe.get("seed")) in (int, type(None)), "seed of the recipe is no integer")
    _require(isinstance(training.get("technique") or "", str), "technique is not text")


def _require(condition: bool, fault: str) -> None:
    if not condition:
        raise DamagedRecordError(fault)


def _is_number(value: Any, largest: float) -> bool:
    """Whether a value is a number from 0 to ``largest``, and so finite."""
    return type(value) in (float, int) and 0 <= value <= largest


def _is_one_of(value: object, choices: Sequence[str]) -> bool:
    return isinstance(value, str) and value in choices


def _is_list_of(value: object, kind: type) -> bool:
    return type(value) is list and all(type(one) is kind for one in value)


def _is_shallow(value: object, depth: int) -> bool:
    if type(value) is dict:
        return depth > 0 and all(_is_shallow(one, depth - 1) for one in value.values())
    if type(value) is list:
        return depth > 0 and all(_is_shallow(one, depth - 1) for one in value)
    return True
