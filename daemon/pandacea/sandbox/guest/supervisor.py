"""PID 1 of a sandbox: take one job, fork the script, pass on its output, kill everything, stream the results out, exit."""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Final

from . import collect_artifacts, convert, hardening, memory_usage, packets, script_process, syft_datasite

_READ_BYTES: Final = 65_536
_WATCH_SECONDS: Final = 0.05
"""Between two looks at the memory in use, and between two reports of progress."""


@dataclass
class ReceivedJob:
    """What the node sent for one run."""

    header: dict[str, Any]
    inputs: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    uploads: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    params: bytearray = field(default_factory=bytearray)
    code: bytearray = field(default_factory=bytearray)


def receive_job(sock: socket.socket) -> ReceivedJob | None:
    """Block until a whole job has arrived; return None when the node went away."""
    job = ReceivedJob({})
    while True:
        tag, payload, descriptor = packets.receive(sock)
        if not tag:
            return None
        if tag == packets.JOB:
            job.header = json.loads(payload)
        elif tag == packets.INPUT and descriptor is not None:
            job.inputs.append((json.loads(payload), descriptor))
        elif tag == packets.UPLOAD and descriptor is not None:
            job.uploads.append((json.loads(payload), descriptor))
        elif tag == packets.OUTPUT_FILE and descriptor is not None:
            job.outputs.append(descriptor)
        elif tag == packets.PARAMS:
            job.params += payload
        elif tag == packets.CODE:
            job.code += payload
        elif tag == packets.GO:
            return job
        else:
            raise ValueError(f"the node sent an unknown packet {tag!r}")


def run_job(sock: socket.socket) -> None:
    """Receive the sandbox's only job and do it: run a script, or convert a file."""
    job = receive_job(sock)
    if job is None:
        return
    if job.header["kind"] == "convert":
        convert.run_conversion(sock, json.loads(job.params), job.inputs[0][1], job.outputs)
    else:
        Supervisor(sock, job).run()


def place_uploads(uploads: list[tuple[dict[str, Any], int]]) -> None:
    """Copy each upload to /workspace/in/NAME, mode 0444."""
    if not uploads:
        return
    folder = os.path.join(collect_artifacts.WORKSPACE, collect_artifacts.UPLOADS)
    os.mkdir(folder, 0o755)
    for entry, source in uploads:
        target = os.open(os.path.join(folder, entry["name"]), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        while os.sendfile(target, source, None, 1 << 24):
            pass
        os.close(target)
        os.close(source)


class Supervisor:
    """Runs one script and reports on it, as PID 1."""

    def __init__(self, sock: socket.socket, job: ReceivedJob) -> None:
        self._sock, self._job = sock, job
        self._caps: dict[str, int] = job.header["caps"]
        self._sent_bytes = 0
        self._outcome: dict[str, Any] = {}
        self._exit_status: int | None = None
        self._progress_sent_at = 0.0
        self._progress: bytes | None = None
        """The newest report of progress that has not been sent yet."""

    def run(self) -> None:
        """Run the job to its end and send the node its output, how it ended, and its artifacts."""
        place_uploads(self._job.uploads)
        self._wake_pipe, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(self._wake_pipe, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._output_pipe, output_write = os.pipe()
        self._status_socket, status_child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code_read, self._code_pipe = os.pipe()
        gc.freeze()
        self._script_pid = os.fork()
        if self._script_pid == 0:
            self._become_child(output_write, status_child, code_read)
        for descriptor in (output_write, code_read, *(number for _, number in self._job.inputs)):
            os.close(descriptor)
        status_child.close()
        self._supervise()
        self._finish()

    def _become_child(self, output: int, status: socket.socket, code: int) -> None:
        try:
            hardening.set_dumpable(True)  # the script may open its own /proc entries; the supervisor's stay closed
            null = os.open("/dev/null", os.O_RDWR)
            # Tracebacks, warnings and what a library prints of a row go to stderr: where messages must not leave, none of it leaves.
            errors = output if self._job.header["stderr"] else null
            for source, target in ((null, 0), (output, 1), (errors, 2)):
                os.dup2(source, target)
            keep = {0, 1, 2, status.fileno(), code, *(number for _, number in self._job.inputs)}
            for name in os.listdir("/proc/self/fd"):
                if int(name) not in keep:
                    _close_quietly(int(name))
            header = self._job.header | {"names_files": syft_datasite.MARKER in self._job.code}
            script_process.become_script(header, self._job.inputs, status, code)
        finally:
            os._exit(1)

    def _supervise(self) -> None:
        poll = select.poll()
        for descriptor in (self._sock.fileno(), self._output_pipe, self._status_socket.fileno(), self._wake_pipe):
            poll.register(descriptor, select.POLLIN)
        limit = self._caps.get("watched_memory_bytes", 0)
        while self._exit_status is None:
            waits = bool(limit) or self._progress is not None
            for descriptor, events in poll.poll(_WATCH_SECONDS * 1000 if waits else None):
                if descriptor == self._sock.fileno():
                    _kill_all_and_exit()  # the node closed the connection or sent something unexpected: this run is not wanted any more
                elif descriptor == self._output_pipe:
                    if not self._pass_output():
                        poll.unregister(descriptor)
                elif descriptor == self._status_socket.fileno():
                    if events & select.POLLIN:
                        self._handle_status(self._status_socket.recv(packets.MAX_PAYLOAD))
                    else:
                        poll.unregister(descriptor)
                elif descriptor == self._wake_pipe:
                    os.read(self._wake_pipe, 512)
            self._pass_progress()
            self._reap()
            if limit and memory_usage.memory_exceeds(limit):
                self._outcome["memory"] = True
                break
            if self._outcome.get("output"):
                break

    def _pass_output(self) -> bool:
        data = os.read(self._output_pipe, _READ_BYTES)
        left = self._caps["output_bytes"] - self._sent_bytes
        if len(data) > left:
            self._outcome["output"] = True
            data = data[:left]
        self._sent_bytes += len(data)
        if data:
            packets.send(self._sock, packets.WRITTEN, data)
        return bool(data) or self._outcome.get("output", False)

    def _handle_status(self, message: bytes) -> None:
        """Handle a message of the script process. Once it holds the script, its messages are the script's own and are not trusted."""
        tag, body = message[:1], message[1:]
        if self._code_pipe >= 0:
            if tag == script_process.LOADED and self._exit_status is None:
                self._outcome["load_seconds"] = script_process.LOAD_SECONDS.unpack(body)[0]
                self._send_script()
            elif tag == script_process.UNREADABLE:
                packets.send(self._sock, packets.UNREADABLE, body)
        elif tag == script_process.PROGRESS and len(body) == packets.PROGRESS_PAIR.size:
            self._progress = body
        elif tag == script_process.FAILED:
            self._outcome["error"] = body.decode("utf-8", "replace")[:16_384]

    def _pass_progress(self, *, last: bool = False) -> None:
        """Send the newest report of progress, at most twenty times a second; the last one is always sent."""
        now = time.monotonic()
        if self._progress is not None and (last or now - self._progress_sent_at >= _WATCH_SECONDS):
            packets.send(self._sock, packets.PROGRESS, self._progress)
            self._progress, self._progress_sent_at = None, now

    def _send_script(self) -> None:
        packets.send(self._sock, packets.STARTED)
        params, code = bytes(self._job.params), bytes(self._job.code)
        descriptor, self._code_pipe = self._code_pipe, -1
        try:
            with os.fdopen(descriptor, "wb") as pipe:
                pipe.write(len(params).to_bytes(8, "big") + params + code)
        except BrokenPipeError:
            return  # the child has ended already; its exit status shows why

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._script_pid:
                self._exit_status = os.waitstatus_to_exitcode(status)

    def _finish(self) -> None:
        self._kill_all()
        self._drain()
        self._pass_progress(last=True)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._outcome["disk_full"] = collect_artifacts.is_disk_full()
        self._outcome |= {
            "exit": self._exit_status,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_bytes": usage.ru_maxrss * 1024,
        }
        packets.send_json(self._sock, packets.ENDED, self._outcome)
        if not self._outcome.get("output") and not self._outcome.get("memory"):
            collect_artifacts.stream_artifacts(self._sock, self._caps)
        packets.send(self._sock, packets.DONE)

    def _kill_all(self) -> None:
        """Kill every process of the sandbox but this one. A fork bomb needs more than one round."""
        while True:
            try:
                os.kill(-1, signal.SIGKILL)
            except ProcessLookupError:
                pass
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                return
            if pid == self._script_pid and self._exit_status is None:
                self._exit_status = os.waitstatus_to_exitcode(status)

    def _drain(self) -> None:
        os.set_blocking(self._output_pipe, False)
        self._status_socket.setblocking(False)
        while not self._outcome.get("output"):
            try:
                if not self._pass_output():
                    break
            except BlockingIOError:
                break
        while True:
            try:
                message = self._status_socket.recv(packets.MAX_PAYLOAD)
            except (BlockingIOError, ConnectionError):
                break
            if not message:
                break
            self._handle_status(message)


def _close_quietly(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        return  # it was the listing's own descriptor, or was never open


def _kill_all_and_exit() -> None:
    try:
        os.kill(-1, signal.SIGKILL)
    finally:
        os._exit(0)
