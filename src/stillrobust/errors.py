"""Errors a user can act on."""


class UserError(ValueError):
    """A mistake in the user's input, told in one sentence: what was expected, what came, what to do
    next.

    The command line prints the sentence alone and exits with status 2; from Python it is an
    ordinary ``ValueError``.
    """


class BadImageError(UserError):
    """An image, or what is said of it, that cannot be used: refused, or left out and counted where
    the data is opened so.
    """

    def __init__(self, sentence: str, fault: str = "cannot be used") -> None:
        super().__init__(sentence)
        self.fault = fault
        """What it is counted under: a few words without a path."""

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (str(self), self.fault)


class MissingCellsError(UserError):
    """A number was asked for that needs measurements which do not exist; the message names them."""


def unwrap_worker_error(error: UserError) -> UserError:
    """The sentence alone of an error from a loader's worker, which torch hands on within the
    worker's stack trace.
    """
    _, newline, last = str(error).rstrip().rpartition("\n")
    return UserError(last.partition(": ")[2] if newline else last)
