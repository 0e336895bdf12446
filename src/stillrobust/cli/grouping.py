"""The option ``--group-by``: images that belong together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillrobust.cli.results import store_folder

if TYPE_CHECKING:
    from stillrobust.storage.store import Store

GroupBy = Annotated[
    str | None,
    typer.Option(
        help=(
            "Images that belong together, such as the frames of a video: folder, REGEX or"
            " field:NAME; image for none."
        )
    ),
]
RegroupBy = Annotated[
    str | None,
    typer.Option(help="Group images by folder or REGEX; image for no groups (default: as stored)."),
]


def open_store(results: Path, group_by: str | None) -> "Store":
    """Open a results store.

    Args:
        results: Folder that ``--out`` of a command made.
        group_by: Rule that replaces the stored groups, if given.
    """
    from stillrobust.analysis.groups import GroupedStore
    from stillrobust.storage.store import Store

    store = Store(store_folder(results))
    return store if group_by is None else GroupedStore(store, group_by)
