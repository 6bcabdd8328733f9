"""Errors, cut by what the caller should do next.

`Refused`: change the request. `Unavailable`: try again later, nothing was decided. `Broken`: the operator must mend something.
Every error has a stable `code` (it becomes the RFC 9457 `code` member over HTTP, and the exit status of the command line).
"""

from __future__ import annotations


class DaemonError(Exception):
    """Base of every error that the node raises on purpose."""

    code: str = "error"
    """Stable kebab-case word; one a class, but for `ProblemError`, whose instances bring theirs."""

    def __init__(self, detail: str = "", **context: object) -> None:
        """State in one sentence what is wrong, on what value, and what to do now; `context` goes to the log."""
        self.detail = detail or (type(self).__doc__ or "").strip().splitlines()[0]
        self.context = context
        super().__init__(self.detail)


class Refused(DaemonError):
    """The request cannot be granted as it stands."""

    code = "refused"


class ProblemError(Refused):
    """The request is refused with a problem code of its own (RFC 9457): the lease, the product or the node's rules do not allow it."""

    def __init__(self, code: str, detail: str, **context: object) -> None:
        """Take the stable problem code that the caller sees, and the sentence."""
        super().__init__(detail, **context)
        self.code = code


class Unavailable(DaemonError):
    """The node cannot know or act right now; ask again later."""

    code = "unavailable"

    def __init__(self, detail: str = "", *, retry_after: int = 5, **context: object) -> None:
        """Take the seconds until asking again makes sense as `retry_after`."""
        super().__init__(detail, **context)
        self.retry_after = retry_after


class Broken(DaemonError):
    """Something on this machine must be mended by its operator."""

    code = "broken"

    def __init__(self, detail: str = "", *, remedy: str = "", **context: object) -> None:
        """Take what to run or change as `remedy`, where it can be stated apart; the whole sentence states both."""
        super().__init__(f"{detail}; {remedy}" if remedy else detail, **context)
        self.problem, self.remedy = detail or self.detail, remedy


class BadConfig(Broken):
    """The configuration cannot be used."""

    code = "bad-config"
