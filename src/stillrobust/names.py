"""Look-up of components by name, specs such as ``resnet50(weights='ant')``, and counts with nouns.

Specs are parsed, never evaluated.
"""

import ast
import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, TypeVar

from stillrobust.errors import UserError

T = TypeVar("T")

LONGEST_SLUG = 150  # bytes; files have up to 255, and names of temporary files are longer
MAX_LISTED = 24  # names in an error message


class LazyTable(MutableMapping[str, T]):
    """Components by name, each imported on first use. Names are known without importing anything.

    Args:
        places: Name -> ``"module:attribute"`` of the component.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self.components: dict[str, T | str] = dict(places)

    def __getitem__(self, name: str) -> T:
        found = self.components[name]
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = self.components[name] = getattr(import_module(module), attribute)
        return found

    def __setitem__(self, name: str, component: T) -> None:
        self.components[name] = component

    def __delitem__(self, name: str) -> None:
        del self.components[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.components)

    def __len__(self) -> int:
        return len(self.components)

    def __contains__(self, name: object) -> bool:
        return name in self.components


def unknown_name_error(kind: str, name: object, available: Iterable[str]) -> UserError:
    """The error for an unknown name, with the most similar names first.

    Args:
        kind: Word for the component, such as ``corruption``.
        name: The unknown name.
        available: All known names.

    Returns:
        The error to raise.
    """
    names = sorted(set(available))
    near = similar_names(str(name), names)
    hint = f" Did you mean: {near}?" if near else ""
    listed = ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
    return UserError(
        f"Unknown {kind} {str(name)!r}.{hint} Available: {listed} ({len(names)} in all)"
    )


def similar_names(name: str, available: Iterable[str]) -> str:
    """Return up to three similar names with commas; empty if no name is similar."""
    near = difflib.get_close_matches(name, sorted(set(available)), n=3, cutoff=0.5)
    return ", ".join(near)


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Look up a component by name.

    Args:
        kind: Word for the component in the error message, such as ``corruption``.
        name: Name to look up.
        table: Name -> component.

    Returns:
        ``table[name]``.

    Raises:
        UserError: If the name is unknown; the message suggests similar names.
    """
    if name not in table:
        raise unknown_name_error(kind, name, table)
    return table[name]


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Parse ``"name"`` or ``"name(key='value')"``. Nothing is evaluated.

    Args:
        spec: Such as ``"lite0"`` or ``"resnet50(weights='ant')"``.

    Returns:
        The name and the arguments, such as ``("resnet50", {"weights": "ant"})``.

    Raises:
        UserError: If the spec has another form, or a value is not a literal.
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
    """Format a spec: keys sorted, values as literals. The inverse of :func:`parse_spec`.

    Args:
        name: Name of the component.
        arguments: Its arguments, literals only.

    Returns:
        The canonical text.
    """
    if not arguments:
        return name
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in sorted(arguments.items()))})"


def format_count(number: int, noun: str) -> str:
    """Format a number with its noun.

    Args:
        number: The number.
        noun: The noun in the singular, whose plural ends with ``s`` or ``es``.

    Returns:
        Such as ``1 image``, ``5,000 images`` or ``2 boxes``.
    """
    plural = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def slug(text: str) -> str:
    """A safe folder name for any text.

    Args:
        text: Any text.

    Returns:
        The text itself if it is safe. Otherwise special characters become ``-``, a long text is
        cut, and a hash is appended, so that different texts have different folders.
    """
    kept = "".join(
        character if character.isalnum() or character in "-_." else "-" for character in text
    ).strip("-._")
    while len(kept.encode()) > LONGEST_SLUG:
        kept = kept[:-1]
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return kept if kept == text else f"{kept}-{digest[:6]}"


def split_sum(spec: str, what: str, example: str) -> list[str]:
    """Split the spec of combined components at its plus signs.

    Args:
        spec: Such as ``"a(x='+')+b"``. Plus signs within brackets do not split.
        what: What the parts are, for the message, such as ``a technique``.
        example: A valid part.

    Returns:
        The specs of the parts, such as ``["a(x='+')", "b"]``.

    Raises:
        UserError: If brackets are not closed or a part is empty.
    """
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
            f'Expected {what} like "{example}", or a sum like "a+b", but got {spec!r}; correct it'
        )
    return found
