"""Errors a user can act on."""


class UserError(ValueError):
    """A mistake in the user's input, told in one sentence: what was expected, what came, what to do next.

    The command line prints the sentence alone and exits with status 2; from Python it is an ordinary ``ValueError``.
    """


class HoleError(UserError):
    """A number was asked for that needs measurements which do not exist; the message names them."""


def from_worker(error: UserError) -> UserError:
    """The sentence alone of an error from a loader's worker, which torch hands on within the worker's stack trace."""
    return UserError(str(error).rstrip().rpartition("\n")[2].partition("UserError: ")[2] or str(error))
