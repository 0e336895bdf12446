"""Every command of the command line, and whether a line that somebody wrote down fits it."""

from collections.abc import Iterator, Sequence

import typer

from stillrobust.cli import app


def walk(command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from walk(below, (*path, name))
    else:
        yield path, command


COMMANDS = dict(walk(typer.main.get_command(app)))


def parse(words: Sequence[str]) -> None:
    """Raises ``AssertionError`` where ``words``, which begin with ``stillrobust``, is no command or
    has a wrong option or value.
    """
    assert words[0] == "stillrobust", words
    if words[1].startswith("--"):
        assert words[1] in ("--help", "--install-completion", "--show-completion"), words
        return
    path = next((tuple(words[1:end]) for end in (2, 3) if tuple(words[1:end]) in COMMANDS), None)
    assert path, f"no such command: {' '.join(words)}"
    try:
        with COMMANDS[path].make_context(" ".join(path), list(words[len(path) + 1 :])):
            pass
    except Exception as error:
        raise AssertionError(f"{' '.join(words)}: {error}") from error
