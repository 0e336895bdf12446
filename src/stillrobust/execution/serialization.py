"""Dataclasses as JSON, so that processes and machines exchange data and never code.

A text names the class and the values of its fields. Reading it imports the module of that class and
accepts only a subclass of what the reader expects.
"""

import importlib
import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Value = TypeVar("Value")


def to_json(value: Any) -> str:
    """Serialise a dataclass.

    Args:
        value: An instance of a dataclass defined at the top level of a module. Its fields hold
            plain values, paths, sequences, mappings with string keys, or other dataclasses.

    Returns:
        One line of ASCII.

    Raises:
        TypeError: If a field holds anything else.
    """
    kind = type(value)
    content = {"type": f"{kind.__module__}:{kind.__qualname__}", "values": _encode(value)}
    return json.dumps(content, allow_nan=False)


def from_json(text: str | bytes, expected: type[Value]) -> Value:
    """Read what :func:`to_json` wrote.

    Args:
        text: The JSON.
        expected: The class, or a base class, of the value.

    Returns:
        A value equal to the one that was serialised.

    Raises:
        TypeError: If the text holds another class than ``expected``.
        ValueError: If the text is not such JSON.
    """
    content = json.loads(text)
    module, _, name = content["type"].partition(":")
    kind = getattr(importlib.import_module(module), name)
    if not (isinstance(kind, type) and issubclass(kind, expected) and is_dataclass(kind)):
        raise TypeError(f"Expected a {expected.__name__}, but the JSON holds {content['type']}")
    decoded: Value = _decode(content["values"], kind)
    return decoded


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.init]
        return {name: _encode(getattr(value, name)) for name in names}
    raise TypeError(f"Expected a plain value or a dataclass, but got {type(value).__name__}")


def _decode(value: Any, kind: Any) -> Any:
    """The value as its annotation says; JSON has neither tuples nor paths nor classes."""
    origin, arguments = get_origin(kind), get_args(kind)
    if value is None:
        return None
    if origin in (Union, types.UnionType):
        return _decode(value, next(one for one in arguments if one is not type(None)))
    if origin is tuple:
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return tuple(_decode(item, one) for item, one in zip(value, kinds, strict=True))
    if isinstance(value, dict) and arguments:
        return {key: _decode(item, arguments[1]) for key, item in value.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _decode(item, hints[name]) for name, item in value.items()})
    return Path(value) if kind is Path else value
