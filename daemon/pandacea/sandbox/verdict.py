"""From what was seen of a run to one typed outcome."""

from __future__ import annotations

import signal
from typing import Final

from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Artifact, Failure, Outcome
from pandacea.sandbox.conversation import Account
from pandacea.sandbox.guest_messages import DISK_ERRORS, ScriptEnded, ScriptWord
from pandacea.sandbox.results import ArtifactRefusedError

_SILENCE: Final = ScriptEnded(None, ScriptWord(), too_much_output=False, out_of_memory=False, disk_full=False, usage={})
"""What is known of an end that the guest never told."""


def outcome_of(account: Account, seconds: float, ending: tuple[Failure, str] | None) -> Outcome:
    """Judge a run. `ending`: a cause seen from outside (time, memory, guest died ...), which outranks the guest's own account."""
    limits = account.limits
    ended = account.ended or _SILENCE
    artifacts: tuple[Artifact, ...] = ()
    failure: Failure | None = None
    detail = "The script ended by itself."
    error = ended.word.error
    if ending is not None:
        failure, detail = ending
    elif account.unreadable is not None:
        failure = Failure.DATA_UNREADABLE
        detail = f"Asset '{account.unreadable.asset_id}' cannot be read as a table: {account.unreadable.message}"
    elif account.output_overflow or ended.too_much_output:
        failure = Failure.OUTPUT_TOO_LARGE
        detail = (
            f"The script wrote more than output_bytes={limits.output_bytes} to stdout and stderr; print less, or save an artifact."
        )
    else:
        failure, detail = _script_failure(ended, limits)
        artifacts, failure, detail = _artifacts(account, failure, detail)
    if failure is not None and not artifacts:
        account.results.discard()
    return Outcome(
        failure=failure,
        detail=detail,
        output=bytes(account.output),
        artifacts=artifacts,
        script_error=error if failure is not None and ending is None else None,
        exit_status=ended.exit_status,
        code_started=account.code_started,
        truncated=account.output_overflow or ended.too_much_output,
        seconds=seconds,
        usage=dict(ended.usage),
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


def _script_failure(ended: ScriptEnded, limits: Limits) -> tuple[Failure | None, str]:
    status, word, error = ended.exit_status, ended.word, ended.word.error
    where = f" at line {error.line}" if error is not None and error.line is not None else ""
    if ended.out_of_memory or word.out_of_memory:
        return Failure.MEMORY_LIMIT, memory_detail(limits)
    if status == 0:
        return None, "The script ended by itself."
    if word.errno in DISK_ERRORS or status == -signal.SIGXFSZ or ended.disk_full:
        return Failure.DISK_LIMIT, (
            f"The script filled its disk{where}: workspace_bytes={limits.workspace_bytes}, "
            f"workspace_inodes={limits.workspace_inodes}, tmp_bytes={limits.tmp_bytes}."
        )
    if word.errno == "EAGAIN" or (error is not None and error.message == "can't start new thread"):
        return Failure.PROCESS_LIMIT, f"The script started more processes or threads than pids={limits.pids} allows{where}."
    if status is not None and status < 0:
        return Failure.SCRIPT_ERROR, f"The script was ended by {_signal_name(-status)}."
    if error is None:
        return Failure.SCRIPT_ERROR, f"The script ended with exit status {status}."
    return Failure.SCRIPT_ERROR, f"The script raised {error.type}{where}."


def memory_detail(limits: Limits) -> str:
    """The sentence for a broken memory limit."""
    return f"The script needed more memory than memory_bytes={limits.memory_bytes} allows (its files in /workspace and /tmp count)."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
