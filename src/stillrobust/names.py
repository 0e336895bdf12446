"""Look-up of components by name, and specs such as ``resnet50(weights='ant')``, parsed and never
evaluated.
"""

import ast
import difflib
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from stillrobust.errors import UserError

T = TypeVar("T")

# names listed in full in an error; above that the list is cut, so that the sentence stays readable
SHOWN = 24


def unknown_name_error(kind: str, name: object, available: Iterable[str]) -> UserError:
    """The error for a wrong name: the nearest names, then what there is."""
    names = sorted(available)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f" Did you mean: {', '.join(near)}?" if near else ""
    listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return UserError(
        f"Unknown {kind} {str(name)!r}.{hint} Available: {listed} ({len(names)} in all)"
    )


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """``table[name]``, or a ``UserError`` that says what was probably meant.

    ``kind`` is the word for the message.
    """
    if name not in table:
        raise unknown_name_error(kind, name, table)
    return table[name]


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """``"lite0"`` -> ``("lite0", {})``; ``"resnet50(weights='ant')"`` -> ``("resnet50", {"weights":
    "ant"})``.

    Only literals are accepted as values; nothing is evaluated. Raises ``UserError`` for anything
    else.
    """
    text = spec.strip()
    head, bracket, _ = text.partition("(")
    if not bracket:
        return text, {}
    try:
        call = ast.parse(f"_{text[len(head) :]}", mode="eval").body
        # f(x=1)(y=2) is a call of a call
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        keys = [keyword.arg for keyword in call.keywords]
        if call.args or None in keys or len(set(keys)) < len(keys):
            raise ValueError
        return head.strip(), {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise UserError(
            'Expected a spec like "name" or "name(key=\'value\')" with literal values, each key'
            f" once, but got {spec!r}; correct it"
        ) from None


def format_spec(name: str, arguments: Mapping[str, Any]) -> str:
    """The canonical text of a spec: keys sorted, values as literals; the inverse of
    :func:`parse_spec`.
    """
    if not arguments:
        return name
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in sorted(arguments.items()))})"


def slug(text: str) -> str:
    """A folder's name for anything with a name; where characters had to go, a digest keeps two of
    them apart.
    """
    kept = "".join(
        character if character.isalnum() or character in "-_." else "-" for character in text
    ).strip("-._")
    return kept if kept == text else f"{kept}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def split_technique_spec(spec: str) -> list[str]:
    """``"a(x='+')+b"`` -> ``["a(x='+')", "b"]``: a plus sign within brackets stays where it is."""
    found, depth, quote, escaped = [""], 0, "", False
    for letter in spec:
        if letter == "+" and not depth:
            found.append("")
            continue
        found[-1] += letter
        if escaped or (quote and letter == "\\"):
            escaped = not escaped
        elif quote or (depth and letter in "'\""):
            quote = "" if letter == quote else quote or letter
        else:
            depth += (letter == "(") - (letter == ")")
    found = [part.strip() for part in found]
    if depth or not all(found):
        raise UserError(
            f'Expected a technique like "augmix", "ant(kernel=3)" or "a+b", but got {spec!r};'
            " correct it"
        )
    return found
