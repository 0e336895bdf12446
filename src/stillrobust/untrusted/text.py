"""Text of unknown origin, such as names of files and classes, as a terminal may show it."""

import re

# C0, DEL and C1; Arabic letter, left-to-right and right-to-left marks; line and paragraph
# separators, bidirectional embeddings, overrides and isolates; surrogates, which are what is left
# of bytes that are no UTF-8
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
UNPRINTABLE_IN_LINES = re.compile(f"(?!\n){UNPRINTABLE.pattern}")
SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}


def printable(text: str, lines: bool = False) -> str:
    r"""Escape control characters, bidirectional marks and unpaired surrogates.

    Args:
        text: Any text. A text without such characters is returned unchanged.
        lines: Whether line breaks stay.

    Returns:
        The text with escapes as in Python, such as ``\x1b`` and ``\u202e``.
    """
    pattern = UNPRINTABLE_IN_LINES if lines else UNPRINTABLE
    return pattern.sub(lambda match: _escape(match[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return SHORT.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
