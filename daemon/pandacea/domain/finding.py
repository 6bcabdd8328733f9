"""The result of one check of this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from pandacea_sdk.protocol.json_types import JsonObject


class FindingState(StrEnum):
    """How a check ended."""

    OK = "ok"
    WEAKER = "weaker"
    """It works, with less than was meant: another protection stands in, or what is delivered is not paid."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of `pandacea doctor`. `detail`: plain words. `remedy`: what to run or change, where the state is not ok."""

    group: str
    check: str
    state: FindingState
    detail: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether the node may start with it."""
        return self.state is not FindingState.FAIL

    def as_json(self) -> JsonObject:
        """Return the row as JSON; a script reads `ok`."""
        return {**asdict(self), "state": self.state.value, "ok": self.ok}
