"""Start of a guest: connect, leave root, become untouchable, import what jobs will want, lock the door, wait for one job."""

from __future__ import annotations

import importlib
import json
import os
import signal
import site
import socket
import sys
import time
from pathlib import Path
from typing import Any

from . import box, convert, supervise, wire


def main(argument: str) -> None:
    """Run one guest. `argument`: JSON with `socket` (a path) or `fd`, `uid`, `filter`, `environment`, `preload`, `rlimits`."""
    started = time.monotonic()
    settings: dict[str, Any] = json.loads(argument)
    sock = _connect(settings)
    try:
        _settle(settings)
        preload(settings["preload"])
        box.install_filter(Path(settings["filter"]))
    except BaseException as error:
        wire.send_json(sock, wire.UNFIT, {"message": f"{type(error).__name__}: {error}"[:2000]})
        raise
    hello = {
        "version": wire.VERSION,
        "uid": os.getuid(),
        "pid": os.getpid(),
        "threads": box.thread_count(),
        "python": sys.version.split()[0],
        "ready_ms": round((time.monotonic() - started) * 1000),
    }
    wire.send_json(sock, wire.HELLO, hello)
    job = supervise.receive_job(sock)
    if job is not None and job.header["kind"] == "convert":
        convert.run(sock, json.loads(job.params), job.inputs[0][1], job.outputs)
    elif job is not None:
        supervise.Supervisor(sock, job).run()


def _settle(settings: dict[str, Any]) -> None:
    if settings["uid"] is not None and os.getuid() == 0:
        box.become(settings["uid"])
    box.forbid_new_privileges()
    box.set_dumpable(False)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # PID 1 is deaf to signals it does not handle: the script cannot interrupt it
    box.limit(settings["rlimits"])
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site.addsitedir(f"{settings['environment']}/lib/{version}/site-packages")
    site.setquit()  # type: ignore[attr-defined,unused-ignore]
    site.setcopyright()  # type: ignore[attr-defined,unused-ignore]
    site.sethelper()  # type: ignore[attr-defined,unused-ignore]


def _connect(settings: dict[str, Any]) -> socket.socket:
    if settings.get("fd") is not None:
        return socket.socket(fileno=settings["fd"])
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(settings["socket"])
    return sock


def preload(modules: list[str]) -> None:
    """Import ahead of the job. The first torch optimizer imports another second's worth of modules, so one is built and stepped."""
    for name in modules:
        importlib.import_module(name)
    if "torch" in modules:
        import torch

        torch.set_num_threads(1)
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        (weight * 1.0).sum().backward()
        optimizer.step()
    if "pandas" in modules:
        import io

        import pandas as pd

        pd.read_csv(io.BytesIO(b"a,b\n1,2\n")).describe()
