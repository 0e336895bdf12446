"""CSV files of other tools."""

import csv
import io
from pathlib import Path

from stillrobust.errors import UserError
from stillrobust.untrusted import read_user_text


def read_csv_rows(path: Path) -> list[list[str]]:
    """Read a CSV file with headings.

    Raises:
        UserError: If the file cannot be read, has no lines, or lines of different length.
    """
    try:
        text = read_user_text(path, "CSV")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise UserError(f"Expected CSV in {path}, but {error}; get the file again") from None
    if len(rows) < 2:
        raise UserError(
            f"Expected headings and at least one line in {path}, but it has {len(rows)} lines; get"
            " the file again"
        )
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise UserError(
                f"Expected {len(rows[0])} columns in line {number} of {path}, but got {len(row)};"
                " get the file again"
            )
    return rows
