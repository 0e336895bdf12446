"""YAML that means one thing: no key twice, nothing that holds itself or grows without bound; each
fault is one line.
"""

from collections.abc import Iterable
from typing import Any

import yaml

LARGEST = 100_000  # nodes once every alias is written out; the largest study has 2,000


class YamlError(ValueError):
    """What is wrong with a text, and in which line."""


def load_yaml(text: str) -> Any:
    """What ``text`` holds, as plain values. Raises :class:`Fault`."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        said = ", ".join(filter(None, [error.context, error.problem]))
        raise YamlError(f"{said}{_line(error.problem_mark or error.context_mark)}") from None
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from None
    except RecursionError:
        raise YamlError("it is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """Says where a value stands that is none, such as the 30th of February."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(
                None, None, str(error), node.start_mark
            ) from None


def _line(mark: Any) -> str:
    return f" in line {mark.line + 1}" if mark else ""


def _weigh(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes ``node`` is, aliases written out; 0 in ``known`` for those that are being
    weighed.
    """
    if id(node) not in known:
        known[id(node)] = 0
        known[id(node)] = 1 + sum(_weigh(child, known) for child in _children(node))
    if not 0 < known[id(node)] <= LARGEST:
        fault = (
            "it holds more than can be meant, alias within alias"
            if known[id(node)]
            else "it holds itself"
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
                f"the key {key.value!r} stands twice{_line(first[key.value].start_mark)}"
                f" and{_line(key.start_mark)}"
            )
    return [child for pair in node.value for child in pair]
