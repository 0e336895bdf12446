"""CSV files of other tools."""

import csv
from pathlib import Path

from stillrobust.errors import UserError


def read_csv_rows(path: Path) -> list[list[str]]:
    """Read a CSV file with headings.

    Raises:
        UserError: If the file cannot be read, has no lines, or lines of different length.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Expected CSV in {path}, but {error}; get the file again") from None
    except OSError as error:
        raise UserError(
            f"Expected to read {path}, but {error.strerror or error}; check the path"
        ) from None
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
