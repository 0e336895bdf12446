"""Errors a user can act on."""


class UserError(ValueError):
    """Invalid input. The message states what was found, what was expected, and what to do.

    The command line prints the message alone and exits with status 2.
    """


class BadImageError(UserError):
    """An image or annotation that cannot be used. Datasets may leave it out and count it.

    Args:
        sentence: The message.
        fault: Heading under which it is counted: a few words without a path.
    """

    def __init__(self, sentence: str, fault: str = "cannot be used") -> None:
        super().__init__(sentence)
        self.fault = fault
        """Heading under which it is counted."""

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (str(self), self.fault)


class MissingCellsError(UserError):
    """Cells that a result needs do not exist. The message names them."""


def unwrap_worker_error(error: UserError) -> UserError:
    """Return the original message of an error that torch raised with a worker's stack trace."""
    _, newline, last = str(error).rstrip().rpartition("\n")
    return UserError(last.partition(": ")[2] if newline else last)
