"""Strict checks of settings against the declared types of their fields."""

from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError


def type_mismatch(value: Any, declared: Any) -> str:
    """The expected type of a value that does not have it; empty if it has.

    Elements and lengths are checked, and numbers must be finite.

    Args:
        value: The value to check.
        declared: The declared type, such as ``tuple[float, float]``.
    """
    try:
        TypeAdapter(declared, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(
            value
        )
    except ValidationError:
        return f"{declared if hasattr(declared, '__args__') else declared.__name__}, finite"
    return ""
