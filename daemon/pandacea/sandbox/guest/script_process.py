"""The process that becomes the script: it loads the tables, then hands itself over. Nothing it says afterwards is believed."""

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
from pathlib import Path
from typing import Any, Final

from . import hardening, load_frame, seeds, syft_datasite

SCRIPT: Final = "script.py"
LOADED: Final = b"L"
PROGRESS: Final = b"P"
FAILED: Final = b"E"
PROGRESS_FORMAT: Final = struct.Struct(">dd")
SECONDS_FORMAT: Final = struct.Struct(">d")
_MESSAGE_CHARACTERS: Final = 2000
_WATCHED_NICENESS: Final = 10
"""Niceness of a script whose memory its supervisor watches: the watch must get its turn however many processes want theirs."""


class _UnreadableError(Exception):
    def __init__(self, asset: str, message: str) -> None:
        self.asset = asset
        super().__init__(message)


def become_script(job: dict[str, Any], inputs: list[tuple[dict[str, Any], int]], status: socket.socket, code_from: int) -> None:
    """Run in the forked child and never return: load, wait for the code, execute, exit.

    `status`: our end of a socket pair to the supervisor. `code_from`: a pipe that yields params and script when the tables are loaded.
    """
    exit_status = 1
    try:
        _prepare_process(job)
        started = time.monotonic()
        frames = _load_frames(inputs, names_files=job["names_files"])
        status.send(LOADED + SECONDS_FORMAT.pack(time.monotonic() - started))
        params, code = _read_code(code_from)
        seeds.seed_generators(int(job["seed"]), int(job["threads"]))
        exit_status = _execute(code, params, frames, status)
    except _UnreadableError as error:
        status.send(b"D" + json.dumps({"asset_id": error.asset, "message": str(error)[:_MESSAGE_CHARACTERS]}).encode())
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
            raise _UnreadableError(entry["asset_id"], str(error)) from error
    return frames


def _read_code(code_from: int) -> tuple[Any, str]:
    with os.fdopen(code_from, "rb") as pipe:
        size = int.from_bytes(pipe.read(8), "big")
        params = json.loads(pipe.read(size) or b"null")
        return params, pipe.read().decode("utf-8")


def _execute(code: str, params: Any, frames: dict[str, Any], status: socket.socket) -> int:
    """Execute the script as `__main__`; return the exit status a shell would see."""
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
        exec(compile(code, SCRIPT, "exec"), module.__dict__)  # noqa: S102 - running it is what this process is for
    except SystemExit as leaving:
        exit_status = _handle_system_exit(leaving, status)
    except BaseException as error:  # noqa: BLE001 - whatever the script raised is its result
        exit_status = 1
        _report_exception(error, status)
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - what the interpreter does at its end
        atexit._run_exitfuncs()  # noqa: SLF001
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - a closed stdout or an odd atexit hook: the script's own doing
        exit_status = exit_status or 120  # CPython's status for a failed flush at exit
    return exit_status


def _handle_system_exit(leaving: SystemExit, status: socket.socket) -> int:
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        if leaving.code:
            _report_exception(leaving, status, quiet=True)
        return leaving.code & 0xFF
    sys.stderr.write(f"{leaving.code}\n")
    _report_exception(leaving, status, quiet=True)
    return 1


def _report_exception(error: BaseException, status: socket.socket, *, quiet: bool = False) -> None:
    """Print the traceback as Python would, without our own frames, and tell the supervisor class, line and message."""
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == SCRIPT), None)
    if isinstance(error, SyntaxError) and error.filename == SCRIPT:
        line = error.lineno
    number = error.errno if isinstance(error, OSError) else None
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001 - the script's own __str__
        message = "(its message could not be made)"
    told = {
        "type": type(error).__name__[:200],
        "line": line,
        "message": message[:_MESSAGE_CHARACTERS],
        "errno": errno.errorcode.get(number or 0),
        "memory": isinstance(error, MemoryError),
    }
    try:
        status.send(FAILED + json.dumps(told).encode("utf-8", "backslashreplace"))
        if not quiet:
            trace = error.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename != SCRIPT:
                trace = trace.tb_next
            traceback.print_exception(type(error), error, trace)
    except (OSError, ValueError, RecursionError, MemoryError):
        return  # the script closed the descriptors or left no room: its exit status still says that it failed


def _progress_function(status: socket.socket) -> Any:
    last = 0.0

    def pandacea_progress(done: float, total: float) -> None:
        """Tell whoever waits how far the script is; at most twenty reports a second leave, the last always does."""
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < 0.05:
            return
        last = now
        status.send(PROGRESS + PROGRESS_FORMAT.pack(float(done), float(total)))

    return pandacea_progress
