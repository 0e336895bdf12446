"""Strict YAML: duplicate keys, cycles and unbounded aliases are errors with a line number."""

from collections.abc import Iterable
from typing import Any

import yaml

LARGEST_INTEGER = 2**63
LONGEST = 1 << 19  # characters: the parser takes seconds for them; the longest study has 5,000
DEEPEST = 100  # brackets: the parser's time grows with the square of their number
LARGEST = 100_000  # nodes with all aliases expanded; the largest study has 2,000


class YamlError(ValueError):
    """Invalid YAML. The message has the fault and its line."""


def load_yaml(text: str) -> Any:
    """Parse YAML to plain values.

    Raises:
        YamlError: If the text is not valid, too long or too deep, or has duplicate keys or cycles.
    """
    if len(text) > LONGEST:
        raise YamlError(f"it has more than {LONGEST:,} characters")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count_nodes(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        message = ", ".join(filter(None, [error.context, error.problem]))
        raise YamlError(f"{message}{_line(error.problem_mark or error.context_mark)}") from None
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from None
    except RecursionError:
        raise YamlError("it is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """Adds the line number of an invalid value, such as the 30th of February or a huge integer."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= DEEPEST:
            raise YamlError("it is nested too deeply")
        super().fetch_flow_collection_start(TokenClass)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, str(error), node.start_mark
            ) from None
        fault = ""
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            fault = "an integer is too large"
        if isinstance(value, str) and any("\ud800" <= one <= "\udfff" for one in value):
            fault = "a text is not valid Unicode"
        if fault:
            raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark)
        return value


def _line(mark: Any) -> str:
    return f" in line {mark.line + 1}" if mark else ""


def _count_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the nodes of ``node`` with all aliases expanded; 0 in ``known`` marks open nodes."""
    if id(node) not in known:
        known[id(node)] = 0
        known[id(node)] = 1 + sum(_count_nodes(child, known) for child in _children(node))
    if not 0 < known[id(node)] <= LARGEST:
        fault = (
            "its nested aliases expand to too many values"
            if known[id(node)]
            else "a value contains itself"
        )
        raise YamlError(f"{fault}{_line(node.start_mark)}")
    return known[id(node)]


def _children(node: yaml.Node) -> Iterable[yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return node.value if isinstance(node, yaml.SequenceNode) else ()
    first: dict[str, yaml.Node] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and first.setdefault(key.value, key) is not key:
            raise YamlError(
                f"the key {key.value!r} is given twice{_line(first[key.value].start_mark)}"
                f" and{_line(key.start_mark)}"
            )
    return [child for pair in node.value for child in pair]
