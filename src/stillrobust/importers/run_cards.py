"""Cards: the results of a run in one small JSON file, which others read without your images.

``RunCard`` is the schema. A card holds every score, so what it states about P, mPC, rPC and drop is
computed again when it is read, and a card that contradicts itself is refused.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stillrobust.analysis.robustness import robustness
from stillrobust.errors import UserError
from stillrobust.grid import CLEAN, SEVERITIES, Place
from stillrobust.importers.tables import ImportedTable
from stillrobust.metrics import METRICS
from stillrobust.samples import TaskName
from stillrobust.storage.files import canonical_json
from stillrobust.storage.records import SAFE_NAME, DamagedRecordError, check_protocol
from stillrobust.storage.store import CORRUPTION_FILE, Measurement
from stillrobust.untrusted import JsonError, parse_json, read_user_text

FORMAT = 1
LARGEST = 1 << 22  # bytes of a card; one of three scores and 1,000 classes has 30 kB
LONGEST_PROTOCOL = 20_000  # characters; every cell of the store repeats it
MOST_CARDS = 10_000  # in a folder
TOLERANCE = 1e-6  # between a stated value and the one that its scores give

Name = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Estimate(_Strict):
    """A value as a fraction, with its 95 % interval."""

    value: Number
    interval: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    """Lower and upper bound; ``null`` without statistics of every image."""


class CardMetric(_Strict):
    """The robustness of the run in one score."""

    severities: Annotated[list[int], Field(min_length=1, max_length=5)]
    """Severities that mPC covers."""
    p: Estimate
    """P, the clean score."""
    mpc: Estimate
    """mPC, the mean over the 15 common corruptions and the severities."""
    rpc: Estimate
    """mPC / P."""
    drop: Estimate
    """1 - rPC."""
    groups: dict[Literal["noise", "blur", "weather", "digital"], Estimate]
    """Drop over the corruptions of each group."""
    scores: dict[Name, dict[Annotated[str, Field(pattern="^[0-5]$")], Fraction]]
    """Corruption -> severity -> score; ``clean`` has severity 0."""


class RunCard(_Strict):
    """The results of one run."""

    card: Literal[1]
    """Version of this schema."""
    stillrobust: Name
    """Version that wrote the card."""
    cite: Annotated[str, Field(max_length=2000)]
    """The protocol in one sentence, for a paper."""
    run: Annotated[str, Field(max_length=200, pattern=f"^{SAFE_NAME.pattern}$")]
    """Name of the run."""
    task: TaskName
    model: Name
    """Spec of the backbone, or name of the model."""
    setting: Name
    """The transfer, or how the model was made."""
    dataset: Name
    classes: Annotated[list[Name], Field(max_length=100_000)]
    images: Annotated[int, Field(ge=1, le=10**9)]
    weights: Annotated[str, Field(max_length=200)]
    """Hash of the weights, or what identifies them."""
    data: Annotated[str, Field(max_length=200)]
    """Fingerprint of the dataset."""
    resampled: Annotated[str, Field(max_length=300)]
    """What the intervals resample: ``images``, or groups and their rule."""
    protocol: dict[str, Any]
    """All circumstances of the scores, as in the results store."""
    metrics: Annotated[dict[Name, CardMetric], Field(min_length=1)]
    """By name of the score, such as ``box_ap``."""


def parse_card(text: str, path: Path) -> RunCard:
    """Parse and check a card.

    Args:
        text: Content of the file.
        path: The file, for errors.

    Returns:
        The card; its stated values are those that its scores give.

    Raises:
        UserError: If the card is not valid, or contradicts itself.
    """
    wrong = f"Expected a card of stillrobust in {path}, but"
    ask = "ask its author for the file that `stillrobust runs export --card` wrote"
    try:
        card = RunCard.model_validate(parse_json(text))
        check_protocol(card.protocol)
        fault = _contradiction(card)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{wrong} {where:.200}: {first['msg']:.200}; {ask}") from None
    except (JsonError, DamagedRecordError, RecursionError) as error:
        raise UserError(f"{wrong} {error}; {ask}") from None
    if fault:
        raise UserError(f"{wrong} {fault}; {ask}")
    return card


def _contradiction(card: RunCard) -> str:
    """Return what in a card contradicts its scores or its protocol; empty if nothing does."""
    stated = {"task": card.task, "images": card.images, "weights": card.weights, "data": card.data}
    for key, given in stated.items():
        if card.protocol.get(key) != given:
            return f"its {key} is not that of its protocol"
    if len(canonical_json(card.protocol)) > LONGEST_PROTOCOL:
        return f"its protocol has more than {LONGEST_PROTOCOL:,} characters"
    if CORRUPTION_FILE in card.protocol:
        return "its corruptions are a user's own"
    for name, metric in card.metrics.items():
        if name not in METRICS[card.task].names:
            return f"{card.task} has no score {name!r:.40}"
        if not set(metric.severities) <= set(SEVERITIES):
            return f"{name} has severities other than 1 to 5"
        for corruption, levels in metric.scores.items():
            if not SAFE_NAME.fullmatch(corruption) or not levels:
                return f"{corruption!r:.40} is not a corruption with scores"
            if ("0" in levels) != (corruption == CLEAN[0]) or (
                corruption == CLEAN[0] and len(levels) > 1
            ):
                return f"{corruption} has another severity than its own"
        try:
            found = robustness(card_measurements(card, name), tuple(metric.severities))
        except UserError as error:
            return f"its scores are not complete: {error}"
        if metric.groups.keys() != found.by_group.keys():
            return f"{name} lacks the drop of a group"
        values = {"p": found.clean, "mpc": found.mpc, "rpc": found.rpc, "drop": found.drop}
        values |= {group: part.drop for group, part in found.by_group.items()}
        estimates: dict[str, Estimate] = {str(key): one for key, one in metric.groups.items()}
        estimates |= {"p": metric.p, "mpc": metric.mpc, "rpc": metric.rpc, "drop": metric.drop}
        for key, value in values.items():
            estimate = estimates[key]
            if not math.isclose(estimate.value, value, abs_tol=TOLERANCE):
                return f"its {key} of {name} is {estimate.value:g}, and its scores give {value:g}"
            low, high = estimate.interval or (value, value)
            if low > high:
                return f"the interval of its {key} of {name} ends before it starts"
    return ""


def card_measurements(card: RunCard, metric: str) -> list[Measurement]:
    """Return the scores of a card as measurements.

    Args:
        card: The card.
        metric: Name of a score.
    """
    return [
        Measurement(
            card.run, metric, corruption, int(level), value, card.protocol, card.images, 0.0
        )
        for corruption, levels in card.metrics[metric].scores.items()
        for level, value in levels.items()
    ]


def read(path: Path, model: str, dataset: str) -> list[ImportedTable]:
    """Read a card, or every card in a folder.

    Args:
        path: A JSON file, or a folder of such files.
        model: Name of the run of the only card to read (default: all).
        dataset: Dataset of the only cards to read (default: all).

    Raises:
        UserError: If a card is not valid, or there is no such card.
    """
    files = sorted(path.glob("[!.]*.json")) if path.is_dir() else [path]
    if len(files) > MOST_CARDS:
        raise UserError(f"Expected at most {MOST_CARDS:,} cards in {path}; import parts of it")
    cards = [(file, parse_card(read_user_text(file, "a card", LARGEST), file)) for file in files]
    tables = [
        _table(card, file)
        for file, card in cards
        if (not model or card.run == model) and (not dataset or card.dataset == dataset)
    ]
    if not tables:
        raise UserError(
            f"Expected a card of {model or 'any run'} on {dataset or 'any data'} in {path}, but"
            " there is none; check the path, --model and --dataset"
        )
    return tables


def _table(card: RunCard, file: Path) -> ImportedTable:
    cells: dict[Place, dict[str, float]] = {}
    for name in card.metrics:
        for one in card_measurements(card, name):
            cells.setdefault((one.corruption, one.severity), {})[name] = one.value
    intervals = {
        name: {"severities": metric.severities, "drop": metric.drop.interval}
        for name, metric in card.metrics.items()
        if metric.drop.interval
    }
    facts = {
        "cite": card.cite,
        "intervals": intervals,
        "resampled": card.resampled,
        "setting": card.setting,
        "stillrobust": card.stillrobust,
    }
    digest = card.weights[:8] if card.weights[:8].isalnum() else ""
    return ImportedTable(
        "-".join(filter(None, (card.run, digest))),
        card.task,
        card.dataset,
        card.model,
        "external",
        card.images,
        cells,
        card.protocol,
        (f"cite it so: {card.cite}",),
        tuple(card.classes),
        file,
        facts,
    )
