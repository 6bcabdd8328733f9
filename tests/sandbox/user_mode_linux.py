"""A second kernel as a plain process (User Mode Linux, Debian's user-mode-linux), for what the running one cannot show.

Its root is this machine's file system, read-only; only control groups of version 2 are mounted.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.parts import program

_INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t hostfs none /mnt -o {shared}
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
for place in {places}; do  # one beneath /tmp is gone with it
  [ -d "$place" ] || {{ mkdir -p "$place" && mount -r -t hostfs none "$place" -o "$place"; }}
done
mkdir /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
echo "+memory +pids +cpu" > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/service
# As a service manager with Delegate=yes: a group of the command's own, with controllers, and the command alone in it.
sh -c 'echo $$ > /sys/fs/cgroup/service/cgroup.procs; exec sh /mnt/command' < /mnt/in > /mnt/out 2> /mnt/errors
echo $? > /mnt/status
find /sys/fs/cgroup/service -type d > /mnt/groups
echo o > /proc/sysrq-trigger
sleep 60
"""


def run(command: Sequence[str], given: str, shared: Path, places: Sequence[Path], seconds: float) -> tuple[str, list[str]]:
    """Run a command in a delegated control group of a fresh kernel; its output, and the groups that are left beneath its own.

    `given` is its standard input, `shared` an empty folder of the test's own, `places` the folders it reads: the first it works in.
    """
    init = shared / "init"
    init.write_text(_INIT.format(shared=shared, places=shlex.join(map(str, places))))
    init.chmod(0o755)
    line = shlex.join(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *command])
    (shared / "command").write_text(f"cd {shlex.quote(str(places[0]))} && exec {line}\n")
    (shared / "in").write_text(given)
    kernel = [program("linux.uml", "user-mode-linux"), "mem=2G", "rootfstype=hostfs", "ro", f"init={init}", f"uml_dir={shared}"]
    kernel += ["con=null", "con0=null,fd:1", "panic=-1", "quiet"]
    with (shared / "console").open("wb") as console:
        booted = subprocess.Popen(kernel, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True)
        try:
            booted.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has powered off, with all its processes
                os.killpg(booted.pid, signal.SIGKILL)
            booted.wait()
    status = shared / "status"
    assert status.exists(), (shared / "console").read_text(errors="replace")[-3000:]
    assert status.read_text() == "0\n", (shared / "errors").read_text()[-3000:]
    return (shared / "out").read_text(), (shared / "groups").read_text().split()
