"""Errors of the operating system that a user can repair: the reason, and the remedy."""

import errno
import re

WRITE_ERRORS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or ask for a larger quota"),
    errno.EFBIG: (
        "a file exceeds the limit on file sizes",
        "raise the limit, such as by `ulimit -f unlimited`",
    ),
    errno.EMFILE: (
        "this process has too many open files",
        "raise the limit, such as by `ulimit -n 4096`",
    ),
    errno.ENFILE: ("the system has too many open files", "end other programs"),
}
TENSORSTORE_NUMBER = re.compile(r"\[os_error_code='(\d+)'\]")


def error_number(error: BaseException | None) -> int | None:
    """Return the number of the operating system's error, None for other errors.

    The errors that caused this one are searched as well. TensorStore, which writes the arrays of
    Orbax, raises ValueError with the number in its message.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if found := TENSORSTORE_NUMBER.search(str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None
