"""Guest entry point: connect to the node, drop privileges, preload modules, install the seccomp filter, wait for one job.

Order matters: the process is undumpable before the first import, and no job reaches it before the filter is in force.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import signal
import site
import socket
import sys
import weakref
from pathlib import Path
from typing import Any

from . import hardening, packets, supervisor, zygote


def main(argument: str) -> None:
    """Run one guest, or a zygote that forks guests.

    `argument`: JSON with `socket` (a path) or `fd`, `uid`, `filter`, `environment`, `preload`, `rlimits`, `template`, `masks`.
    """
    settings: dict[str, Any] = json.loads(argument)
    sock = _connect_to_node(settings)
    try:
        if settings["template"]:
            _prepare_imports(settings)
            preload_modules(settings["preload"])
            zygote.serve_forks(sock, settings)
            return
        _harden(settings)
        _prepare_imports(settings)
        preload_modules(settings["preload"])
        hardening.install_filter(Path(settings["filter"]))
    except BaseException as error:
        packets.send_json(sock, packets.UNFIT, {"message": f"{type(error).__name__}: {error}"[:2000]})
        raise
    packets.send_json(sock, packets.HELLO, packets.hello_message(hardening.thread_count(), os.getuid()))
    supervisor.run_job(sock)


def _harden(settings: dict[str, Any]) -> None:
    if settings["uid"] is not None and os.getuid() == 0:
        hardening.drop_to_uid(settings["uid"])
    hardening.forbid_new_privileges()
    hardening.set_dumpable(False)
    hardening.set_rlimits(settings["rlimits"])


def _prepare_imports(settings: dict[str, Any]) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # the kernel drops signals that PID 1 does not handle: the script cannot interrupt it
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site.addsitedir(f"{settings['environment']}/lib/{version}/site-packages")
    for builtin in ("setquit", "setcopyright", "sethelper"):  # python -S leaves these builtins out
        vars(site)[builtin]()


def _connect_to_node(settings: dict[str, Any]) -> socket.socket:
    if settings.get("fd") is not None:
        return socket.socket(fileno=settings["fd"])
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(settings["socket"])
    return sock


def preload_modules(modules: list[str]) -> None:
    """Import modules before the job comes. The first torch optimizer imports for another second, so one is used and a model saved."""
    for name in modules:
        importlib.import_module(name)
    if "torch" in modules:
        import torch

        torch.set_num_threads(1)
        layer = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        torch.nn.functional.mse_loss(layer(torch.ones(4, 2)), torch.ones(4, 1)).backward()
        optimizer.step()
        torch.save(layer.state_dict(), io.BytesIO())
    if "pandas" in modules:
        import pandas as pd

        pd.read_csv(io.BytesIO(b"a,b\n1,2\n")).describe()
    for left in Path("/tmp").iterdir():  # imports leave caches there, and every job starts with empty folders
        shutil.rmtree(left, ignore_errors=True)
    # torch registers some 170 finalizers that take its operators apart when the interpreter ends: 45 ms per script for nothing, since
    # the process ends anyway. What the script itself registers still runs.
    for finalizer in list(vars(weakref.finalize)["_registry"]):  # there is no public list of them
        finalizer.atexit = False
