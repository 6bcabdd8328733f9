"""The process that becomes the script: it loads the tables, then executes the code. Nothing it reports afterwards is trusted."""

from __future__ import annotations

import atexit
import builtins
import errno
import io
import json
import linecache
import os
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from . import collect_artifacts, figures, hardening, hints, load_frame, one_process, packets, seeds, syft_datasite

SCRIPT: Final = "script.py"
# script process -> supervisor
LOADED: Final = b"L"  # LOAD_SECONDS; from here on this process is not trusted
UNREADABLE: Final = b"D"  # JSON: the asset that is not a table
PROGRESS: Final = b"P"  # packets.PROGRESS_PAIR
FAILED: Final = b"E"  # JSON: class, line and message of an exception
LOAD_SECONDS: Final = struct.Struct(">d")
_MESSAGE_CHARACTERS: Final = 2000
_PROGRESS_SECONDS: Final = 0.05
"""The shortest time between two reports of progress."""
_WATCHED_NICENESS: Final = 10
"""Niceness of a script whose memory its supervisor watches, so that the supervisor runs on time however busy the script is."""


class StatusChannel(Protocol):
    """Where the script's process reports to: the supervisor's socket, or whatever a rehearsal at home reads."""

    def send(self, message: bytes, /) -> object:
        """Send one message, a tag byte and its body."""


class _UnreadableAssetError(Exception):
    def __init__(self, asset_id: str, message: str) -> None:
        self.asset_id = asset_id
        super().__init__(message)


def become_script(job: dict[str, Any], inputs: list[tuple[dict[str, Any], int]], status: socket.socket, code_from: int) -> None:
    """Run in the forked child and never return: load the tables, wait for the code, execute it, exit.

    `status`: this end of a socket pair with the supervisor. `code_from`: a pipe that yields params and script once the tables are loaded.
    """
    exit_status = 1
    try:
        _prepare_process(job)
        started = time.monotonic()
        frames = _load_frames(inputs, names_files=job["names_files"])
        status.send(LOADED + LOAD_SECONDS.pack(time.monotonic() - started))
        params, code = _read_code(code_from)
        exit_status = execute_script(code, params, frames, status, job)
    except _UnreadableAssetError as error:
        status.send(UNREADABLE + json.dumps({"asset_id": error.asset_id, "message": str(error)[:_MESSAGE_CHARACTERS]}).encode())
    finally:
        os._exit(exit_status)


def _prepare_process(job: dict[str, Any]) -> None:
    os.setsid()
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")  # when memory ends, the script goes first
    hardening.set_rlimits(job["rlimits"])
    if job["caps"].get("watched_memory_bytes"):
        os.nice(_WATCHED_NICENESS)
    os.umask(0o022)
    os.chdir("/workspace")


def _load_frames(inputs: list[tuple[dict[str, Any], int]], *, names_files: bool) -> dict[str, Any]:
    frames: dict[str, Any] = {}
    for entry, descriptor in inputs:
        if names_files:
            syft_datasite.keep_descriptor(entry, descriptor)
        try:
            frames[entry["variable_name"]] = load_frame.load_frame(descriptor, entry["format"])
        except load_frame.FrameError as error:
            raise _UnreadableAssetError(entry["asset_id"], str(error)) from error
    return frames


def _read_code(code_from: int) -> tuple[Any, str]:
    with os.fdopen(code_from, "rb") as pipe:
        size = int.from_bytes(pipe.read(8), "big")
        params = json.loads(pipe.read(size) or b"null")
        return params, pipe.read().decode("utf-8")


def execute_script(
    code: str,
    params: Any,
    frames: dict[str, Any],
    status: StatusChannel,
    job: dict[str, Any],
    folder: str = collect_artifacts.WORKSPACE,
) -> int:
    """Execute the script as `__main__` and return the exit status that a shell would show.

    `job`: `seed`, `threads` and `caps`. `folder`: the working folder, whose files are the script's artifacts.
    """
    seeds.seed_generators(int(job["seed"]), int(job["threads"]))
    one_process.keep_in_one_process(int(job["threads"]), int(job["caps"]["pids"]))
    figures.watch_figures()
    # A Python that the script starts finds the packages, too.
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    module = types.ModuleType("__main__")
    descriptors = syft_datasite.install_import_hook()
    if descriptors:
        module.__dict__["pandacea_descriptors"] = descriptors
    module.__dict__.update(frames, params=params, pandacea_progress=_progress_function(status), __builtins__=builtins)
    sys.modules["__main__"] = module
    sys.argv = [SCRIPT]
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", "backslashreplace", line_buffering=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
    linecache.cache[SCRIPT] = (len(code), None, code.splitlines(keepends=True), SCRIPT)
    exit_status = 0
    try:
        exec(compile(code, SCRIPT, "exec"), module.__dict__)  # noqa: S102 - running the script is what this process is for
        figures.save_open_figures(folder, job["caps"])
    except SystemExit as leaving:
        exit_status = _handle_system_exit(leaving, status)
    except BaseException as error:  # noqa: BLE001 - whatever the script raised is its result
        exit_status = 1
        _report_exception(error, status, hint=_find_hint(error, frames, folder))
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - what the interpreter does at its end
        atexit._run_exitfuncs()  # noqa: SLF001 - the same
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - a closed stdout or an odd atexit hook: the script's own doing
        exit_status = exit_status or 120  # CPython's status for a failed flush at exit
    return exit_status


def _find_hint(error: BaseException, frames: dict[str, Any], folder: str) -> str | None:
    try:
        uploads = os.path.join(folder, collect_artifacts.UPLOADS)
        return hints.find_hint(error, frames, os.listdir(uploads) if os.path.isdir(uploads) else ())
    except BaseException:  # noqa: BLE001 - the script's own exception class may do anything; it is reported without a hint
        return None


def _handle_system_exit(leaving: SystemExit, status: StatusChannel) -> int:
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        if leaving.code:
            _report_exception(leaving, status, quiet=True)
        return leaving.code & 0xFF
    sys.stderr.write(f"{leaving.code}\n")
    _report_exception(leaving, status, quiet=True)
    return 1


def _report_exception(error: BaseException, status: StatusChannel, *, quiet: bool = False, hint: str | None = None) -> None:
    """Print the traceback as Python would, without the guest's frames, and send class, line and message to the supervisor.

    The hint ends the message, and stands below the traceback.
    """
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == SCRIPT), None)
    if isinstance(error, SyntaxError) and error.filename == SCRIPT:
        line = error.lineno
    number = error.errno if isinstance(error, OSError) else None
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001 - the script's own __str__
        message = "(its message could not be made)"
    if hint is not None:
        message = f"{message[: _MESSAGE_CHARACTERS // 2]} (hint: {hint})"
    report = {
        "type": type(error).__name__[:200],
        "line": line,
        "message": message[:_MESSAGE_CHARACTERS],
        "errno": errno.errorcode.get(number or 0),
        "memory": isinstance(error, MemoryError),
    }
    try:
        status.send(FAILED + json.dumps(report).encode("utf-8", "backslashreplace"))
        if not quiet:
            trace = error.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename != SCRIPT:
                trace = trace.tb_next
            traceback.print_exception(type(error), error, trace)
            if hint is not None:
                sys.stderr.write(f"Hint: {hint}.\n")
    except (OSError, ValueError, RecursionError, MemoryError):
        return  # the script closed the descriptors or left no memory: its exit status still shows that it failed


def _progress_function(status: StatusChannel) -> Callable[[float, float], None]:
    """Return the function that the script calls to report its progress."""
    last_sent = 0.0

    def pandacea_progress(done: float, total: float) -> None:
        """Report how far the script is. At most twenty reports a second are sent; the last one always is."""
        nonlocal last_sent
        now = time.monotonic()
        if done < total and now - last_sent < _PROGRESS_SECONDS:
            return
        last_sent = now
        status.send(PROGRESS + packets.PROGRESS_PAIR.pack(float(done), float(total)))

    return pandacea_progress
