"""The zygote in a sandbox of its own: wait for requests, fork, and turn each fork into PID 1 of a fresh sandbox before a job can reach it."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from . import hardening, packets, supervisor

_CLONE_NEWNS: Final = 0x0002_0000
_CLONE_NEWCGROUP: Final = 0x0200_0000
_CLONE_NEWUTS: Final = 0x0400_0000
_CLONE_NEWIPC: Final = 0x0800_0000
_CLONE_NEWPID: Final = 0x2000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_NEW_NAMESPACES: Final = _CLONE_NEWNS | _CLONE_NEWCGROUP | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET
_MS_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8
_MS_REC_PRIVATE: Final = 0x4000 | 0x4_0000
_MS_BIND: Final = 0x1000
_MAX_DESCRIPTORS: Final = 8

_libc = ctypes.CDLL(None, use_errno=True)


def serve_forks(sock: socket.socket, settings: dict[str, Any]) -> None:
    """Fork a sandbox for every request until the node goes away."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps what ends
    gc.freeze()
    packets.send_json(sock, packets.HELLO, packets.hello_message(hardening.thread_count(), 0))
    while True:
        ancillary_bytes = socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS)
        data, ancillary, _, _ = sock.recvmsg(packets.MAX_PAYLOAD + 1, ancillary_bytes, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return
        descriptors = packets.received_descriptors(ancillary)
        if os.fork() == 0:
            sock.close()
            _run_and_exit(lambda: _enter_namespaces(json.loads(data[1:]), descriptors, settings))
        for descriptor in descriptors:
            os.close(descriptor)


def _run_and_exit(task: Callable[[], None]) -> None:
    """Run the task and end this process without the zygote's clean-up."""
    status = 1
    try:
        task()
        status = 0
    finally:
        sys.stdout.flush()
        os._exit(status)


def _enter_namespaces(request: dict[str, Any], descriptors: list[int], settings: dict[str, Any]) -> None:
    """Enter the sandbox's control groups and fresh namespaces; the next fork is their PID 1."""
    sock = socket.socket(fileno=descriptors[0])
    try:
        for descriptor in descriptors[1:]:
            os.write(descriptor, b"0")
            os.close(descriptor)
        _check(_libc.unshare(_NEW_NAMESPACES), "unshare")
    except OSError as error:
        packets.send_json(sock, packets.UNFIT, {"message": str(error)})
        return
    if os.fork() == 0:
        _run_and_exit(lambda: _start_guest(sock, request, settings))


def _start_guest(sock: socket.socket, request: dict[str, Any], settings: dict[str, Any]) -> None:
    """Mount what belongs to this sandbox, drop every privilege, and wait for the job as PID 1."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _mount(None, "/", None, _MS_REC_PRIVATE, None)
        _mount("proc", "/proc", "proc", _MS_NOSUID_NODEV_NOEXEC, None)
        for source, path in settings["masks"]:
            _mount(source, path, None, _MS_BIND, None)
        for target, options in request["mounts"]:
            _mount("tmpfs", target, "tmpfs", _MS_NOSUID_NODEV_NOEXEC, options)
        hardening.drop_to_uid(request["uid"])
        hardening.set_dumpable(False)
        hardening.set_rlimits(request["rlimits"])
        hardening.install_filter(Path(settings["filter"]))
    except BaseException as error:
        packets.send_json(sock, packets.UNFIT, {"message": f"{type(error).__name__}: {error}"[:2000]})
        raise
    packets.send_json(sock, packets.HELLO, packets.hello_message(hardening.thread_count(), os.getuid()))
    supervisor.run_job(sock)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None) -> None:
    encoded = [None if value is None else value.encode() for value in (source, target, kind, options)]
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
