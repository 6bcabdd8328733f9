"""Builds the typed outcome of a run from what the guest reported and what was observed from outside."""

from __future__ import annotations

import signal
from typing import Final, NamedTuple

from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Artifact, Failure, Outcome
from pandacea.sandbox.guest_messages import DISK_FULL_ERRNOS, ReportedError, ScriptEnded
from pandacea.sandbox.results import ArtifactRefusedError
from pandacea.sandbox.script_run import RunState

_UNREPORTED_END: Final = ScriptEnded(None, ReportedError(), too_much_output=False, out_of_memory=False, disk_full=False, usage={})
"""Stands in for the report of an end that the guest never sent."""


class ExternalCause(NamedTuple):
    """Why a run ended, as observed from outside the sandbox (time, memory, guest died ...)."""

    failure: Failure
    detail: str


def build_outcome(run_state: RunState, seconds: float, external_cause: ExternalCause | None) -> Outcome:
    """Return the outcome of a run that took `seconds`; `external_cause` outranks the guest's own report."""
    limits = run_state.limits
    ended = run_state.ended or _UNREPORTED_END
    artifacts: tuple[Artifact, ...] = ()
    failure: Failure | None
    if external_cause is not None:
        failure, detail = external_cause
    elif run_state.unreadable is not None:
        failure = Failure.DATA_UNREADABLE
        detail = f"Asset '{run_state.unreadable.asset_id}' cannot be read as a table: {run_state.unreadable.message}"
    elif run_state.output_overflow or ended.too_much_output:
        failure = Failure.OUTPUT_TOO_LARGE
        detail = (
            f"The script wrote more than output_bytes={limits.output_bytes} to stdout and stderr; print less, or save an artifact."
        )
    else:
        failure, detail = _classify_script_end(ended, limits)
        artifacts, refused = _finish_artifacts(run_state)
        if refused is not None:
            refusal = f"No artifact was kept: {refused}."
            # A script that failed keeps its own failure.
            failure, detail = (Failure.ARTIFACT_REFUSED, refusal) if failure is None else (failure, f"{detail} {refusal}")
    if failure is not None and not artifacts:
        run_state.results.discard()
    return Outcome(
        failure=failure,
        detail=detail,
        output=bytes(run_state.output),
        artifacts=artifacts,
        script_error=ended.reported_error.error if failure is not None and external_cause is None else None,
        exit_status=ended.exit_status,
        code_started=run_state.code_started,
        truncated=run_state.output_overflow or ended.too_much_output,
        seconds=seconds,
        usage=dict(ended.usage),
    )


def _finish_artifacts(run_state: RunState) -> tuple[tuple[Artifact, ...], str | None]:
    """Return the artifacts, or none and why: a result that exceeds a cap is refused whole."""
    if run_state.refused is not None:
        return (), run_state.refused
    try:
        return run_state.results.finish(), None
    except ArtifactRefusedError as error:
        return (), str(error)


def _classify_script_end(ended: ScriptEnded, limits: Limits) -> tuple[Failure | None, str]:
    status, reported, error = ended.exit_status, ended.reported_error, ended.reported_error.error
    where = f" at line {error.line}" if error is not None and error.line is not None else ""
    if ended.out_of_memory or reported.out_of_memory:
        return Failure.MEMORY_LIMIT, memory_limit_detail(limits)
    if status == 0:
        return None, "The script ended by itself."
    if reported.errno in DISK_FULL_ERRNOS or status == -signal.SIGXFSZ or ended.disk_full:
        return Failure.DISK_LIMIT, (
            f"The script filled its disk{where}: workspace_bytes={limits.workspace_bytes}, "
            f"workspace_inodes={limits.workspace_inodes}, tmp_bytes={limits.tmp_bytes}."
        )
    if reported.errno == "EAGAIN" or (error is not None and error.message == "can't start new thread"):
        return Failure.PROCESS_LIMIT, f"The script started more processes or threads than pids={limits.pids} allows{where}."
    if status is not None and status < 0:
        return Failure.SCRIPT_ERROR, f"The script was ended by {_signal_name(-status)}."
    if error is None:
        return Failure.SCRIPT_ERROR, f"The script ended with exit status {status}."
    return Failure.SCRIPT_ERROR, f"The script raised {error.type}{where}."


def memory_limit_detail(limits: Limits) -> str:
    """Return the sentence for a run that exceeded its memory limit."""
    return f"The script needed more memory than memory_bytes={limits.memory_bytes} allows (its files in /workspace and /tmp count)."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
