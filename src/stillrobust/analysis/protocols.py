"""Which parts of two protocols must agree before their scores are compared."""

from collections.abc import Mapping
from typing import Any

from stillrobust.errors import UserError

MODEL_KEYS = {"weights", "data_name", "imported", "predictions"}
"""Keys of a protocol that may differ between comparable scores: the models, the name of the same
data, the source of a number or of predictions.
"""
LONGEST_VALUE = 20  # characters in a sentence; a hash is recognised by its beginning


def comparable_protocol(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a protocol that comparable measurements have in common."""
    return {key: value for key, value in protocol.items() if key not in MODEL_KEYS}


def require_same_protocol(protocols: Mapping[str, Mapping[str, Any]]) -> None:
    """Require that the scores of two runs may be compared.

    Args:
        protocols: Run -> protocol of its cells, of two runs.

    Raises:
        UserError: If the protocols differ; the message names the keys.
    """
    (first, one), (second, other) = (
        (run, comparable_protocol(protocol)) for run, protocol in protocols.items()
    )
    differ = [
        f"{key} ({short_value(one.get(key))} and {short_value(other.get(key))})"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]
    if differ:
        raise UserError(
            f"Expected two runs under one protocol, but {first} and {second} differ in"
            f" {', '.join(differ)}: measure one of them again"
        )


def short_value(value: object) -> str:
    """Abbreviate a value of a protocol."""
    text = "nothing" if value is None else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:12]}…"
