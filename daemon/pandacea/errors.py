"""Errors, cut by what the caller should do next.

`Refused`: change the request. `Unavailable`: try again later, nothing was decided. `Broken`: the operator must mend something.
Every error has a stable `code` (it becomes the RFC 9457 `code` member over HTTP, and the exit status of the command line).
"""

from __future__ import annotations

from typing import ClassVar


class DaemonError(Exception):
    """Base of every error this project raises on purpose."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str = "", **context: object) -> None:
        """Take one sentence that says what is wrong, on what value, and what to do now; `context` goes to the log."""
        self.detail = detail or (type(self).__doc__ or "").strip().splitlines()[0]
        self.context = context
        super().__init__(self.detail)


class Refused(DaemonError):
    """The request cannot be granted as it stands."""

    code = "refused"


class Unavailable(DaemonError):
    """The node cannot know or act right now; ask again later."""

    code = "unavailable"

    def __init__(self, detail: str = "", *, retry_after: int = 5, **context: object) -> None:
        """`retry_after`: seconds until asking again makes sense."""
        super().__init__(detail, **context)
        self.retry_after = retry_after


class Broken(DaemonError):
    """Something on this machine must be mended by its operator."""

    code = "broken"

    def __init__(self, detail: str = "", *, remedy: str = "", **context: object) -> None:
        """`remedy`: what to run or change, where it can be said apart; the whole sentence says both."""
        super().__init__(f"{detail}; {remedy}" if remedy else detail, **context)
        self.problem, self.remedy = detail or self.detail, remedy


class BadConfig(Broken):
    """The configuration cannot be used."""

    code = "bad-config"
