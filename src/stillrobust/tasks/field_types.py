"""Whether a value that somebody wrote down is of its field's type: elements, lengths, and numbers
that are finite.
"""

from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError


def type_mismatch(value: Any, declared: Any) -> str:
    """What the type would have, such as ``tuple[float, float] of finite numbers``; empty where
    ``value`` is of it.
    """
    try:
        TypeAdapter(declared, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(
            value
        )
    except ValidationError:
        return f"{declared if hasattr(declared, '__args__') else declared.__name__}, finite"
    return ""
