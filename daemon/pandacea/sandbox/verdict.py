"""From what was seen of a run to one typed outcome."""

from __future__ import annotations

import json
import signal
from typing import Any, Final

from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Artifact, Failure, Outcome, ScriptError
from pandacea.sandbox.conversation import Account
from pandacea.sandbox.results import ArtifactRefusedError

_NO_SPACE: Final = frozenset({"ENOSPC", "EDQUOT", "EFBIG"})


def outcome_of(account: Account, seconds: float, ending: tuple[Failure, str] | None) -> Outcome:
    """Judge a run. `ending`: a cause seen from outside (time, memory, guest died ...), which outranks the guest's own account."""
    limits = account.limits
    ended = account.ended or {}
    artifacts: tuple[Artifact, ...] = ()
    failure: Failure | None = None
    detail = "The script ended by itself."
    error = _script_error(ended)
    if ending is not None:
        failure, detail = ending
    elif account.unreadable is not None:
        failure = Failure.DATA_UNREADABLE
        detail = f"Asset {account.unreadable.get('asset_id')!r} cannot be read as a table: {account.unreadable.get('message')}"
    elif account.output_overflow or ended.get("output"):
        failure = Failure.OUTPUT_TOO_LARGE
        detail = (
            f"The script wrote more than output_bytes={limits.output_bytes} to stdout and stderr; print less, or save an artifact."
        )
    else:
        failure, detail = _script_failure(ended, error, limits)
        artifacts, failure, detail = _artifacts(account, failure, detail)
    if failure is not None and not artifacts:
        account.results.discard()
    status = ended.get("exit")
    return Outcome(
        failure=failure,
        detail=detail,
        output=bytes(account.output),
        artifacts=artifacts,
        script_error=error if failure is not None and ending is None else None,
        exit_status=status if isinstance(status, int) else None,
        code_started=account.code_started,
        truncated=account.output_overflow or bool(ended.get("output")),
        seconds=seconds,
        usage={
            name: value
            for name in ("cpu_seconds", "peak_bytes", "load_seconds")
            if isinstance(value := ended.get(name), int | float)
        },
    )


def _artifacts(account: Account, failure: Failure | None, detail: str) -> tuple[tuple[Artifact, ...], Failure | None, str]:
    """A result that breaks a cap is refused whole; a script that failed keeps its own failure."""
    refused = account.refused
    artifacts: tuple[Artifact, ...] = ()
    if refused is None:
        try:
            artifacts = account.results.finish()
        except ArtifactRefusedError as error:
            refused = str(error)
    if refused is None:
        return artifacts, failure, detail
    if failure is None:
        return (), Failure.ARTIFACT_REFUSED, f"No artifact was kept: {refused}."
    return (), failure, f"{detail} No artifact was kept: {refused}."


def _script_failure(ended: dict[str, Any], error: ScriptError | None, limits: Limits) -> tuple[Failure | None, str]:
    status = ended.get("exit")
    told = _told(ended)
    where = f" at line {error.line}" if error is not None and error.line is not None else ""
    if ended.get("memory") or told.get("memory"):
        return Failure.MEMORY_LIMIT, memory_detail(limits)
    if status == 0:
        return None, "The script ended by itself."
    if told.get("errno") in _NO_SPACE or status == -signal.SIGXFSZ or ended.get("disk_full"):
        return Failure.DISK_LIMIT, (
            f"The script filled its disk{where}: workspace_bytes={limits.workspace_bytes}, "
            f"workspace_inodes={limits.workspace_inodes}, tmp_bytes={limits.tmp_bytes}."
        )
    if told.get("errno") == "EAGAIN" or (error is not None and error.message == "can't start new thread"):
        return Failure.PROCESS_LIMIT, f"The script started more processes or threads than pids={limits.pids} allows{where}."
    if isinstance(status, int) and status < 0:
        return Failure.SCRIPT_ERROR, f"The script was ended by {_signal_name(-status)}."
    if error is None:
        return Failure.SCRIPT_ERROR, f"The script ended with exit status {status}."
    return Failure.SCRIPT_ERROR, f"The script raised {error.type}{where}."


def memory_detail(limits: Limits) -> str:
    """The sentence for a broken memory limit."""
    return f"The script needed more memory than memory_bytes={limits.memory_bytes} allows (its files in /workspace and /tmp count)."


def _told(ended: dict[str, Any]) -> dict[str, Any]:
    """The child's last word about its exception: hearsay, but only about itself."""
    text = ended.get("error")
    if not isinstance(text, str):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _script_error(ended: dict[str, Any]) -> ScriptError | None:
    told = _told(ended)
    kind, line, message = told.get("type"), told.get("line"), told.get("message")
    if not isinstance(kind, str) or not isinstance(message, str):
        return None
    return ScriptError(kind[:200], line if isinstance(line, int) else None, message[:2000])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
