"""Files and text from outside: reads are bounded, parsers strict, and terminals safe.

``read_user_file`` reads a regular file of bounded size: devices and pipes are refused, and nothing
blocks. ``parse_json`` refuses duplicate keys and values that are not JSON. ``printable`` escapes
what a terminal would interpret; everything that is printed or logged goes through it.
"""

from stillrobust.untrusted.files import (
    NotAFileError,
    open_regular_file,
    path_fault,
    read_regular_file,
    read_user_file,
    read_user_text,
)
from stillrobust.untrusted.strict_json import JsonError, parse_json
from stillrobust.untrusted.text import printable

__all__ = [
    "JsonError",
    "NotAFileError",
    "open_regular_file",
    "parse_json",
    "path_fault",
    "printable",
    "read_regular_file",
    "read_user_file",
    "read_user_text",
]
