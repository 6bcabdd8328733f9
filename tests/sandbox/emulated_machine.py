"""A machine of the test's own, emulated by QEMU with Debian's kernel: what it shows depends on nothing of the machine around it.

Its processor is emulated too, always: hardware virtualisation would hand the test a processor, and a hypervisor, of this machine.
Its root is this machine's file system, read-only; only control groups of version 2 are mounted.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.prerequisites import find_program

_FILES = "trans=virtio,version=9p2000.L,msize=512000"

_START = f"""#!/bin/busybox sh
# In the memory file system the kernel starts with: reach this machine's files, then start from them.
/bin/busybox --install -s /bin
mkdir /host
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod "$module" || exit; done
mount -t 9p -o ro,cache=loose,{_FILES} host /host || exit
mount -t tmpfs tmpfs /host/run
mkdir /host/run/shared
mount -t 9p -o {_FILES} shared /host/run/shared || exit
exec switch_root /host /bin/sh /run/shared/init
"""

_INIT = """
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs devtmpfs /dev
mkdir /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
echo "+memory +pids +cpu" > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/service
cd /run/shared
# As a service manager with Delegate=yes: a group of the command's own, with controllers, and the command alone in it.
sh -c 'echo $$ > /sys/fs/cgroup/service/cgroup.procs; exec sh command' < in > out 2> errors
echo $? > status
find /sys/fs/cgroup/service -type d > groups
echo o > /proc/sysrq-trigger
sleep 60
"""


@dataclass(frozen=True)
class _Architecture:
    emulator: str
    package: str
    machine: str
    processor: str
    console: str


_ARCHITECTURES = {
    "x86_64": _Architecture("qemu-system-x86_64", "qemu-system-x86", "q35", "Nehalem", "ttyS0"),  # x86-64-v2, what numpy wants
    "aarch64": _Architecture("qemu-system-aarch64", "qemu-system-arm", "virt", "cortex-a72", "ttyAMA0"),
}


def run(command: Sequence[str], given: str, kernel: Path, shared: Path, seconds: float) -> tuple[str, list[str]]:
    """Run a command in a delegated control group of an emulated machine; its output, and the groups left beneath its own.

    `given`: its standard input. `kernel`: a folder that `tests.engine.prepare.kernel` made.
    `shared`: an empty folder of the test's own. The command may write beneath /run only.
    """
    line = shlex.join(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=/run", *command])
    for name, text in {"init": _INIT, "command": f"exec {line}\n", "in": given}.items():
        (shared / name).write_text(text)
    (shared / "initrd").write_bytes(_initial_files(kernel))
    with (shared / "console").open("wb") as console:
        booted = subprocess.Popen(
            _emulator(kernel, shared), stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
        )
        try:
            booted.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has powered off
                os.killpg(booted.pid, signal.SIGKILL)
            booted.wait()
    status = shared / "status"
    assert status.exists(), (shared / "console").read_text(errors="replace")[-3000:]
    assert status.read_text() == "0\n", (shared / "errors").read_text()[-3000:]
    return (shared / "out").read_text(), (shared / "groups").read_text().split()


def _emulator(kernel: Path, shared: Path) -> list[str]:
    here = _ARCHITECTURES[platform.machine()]
    line = [find_program(here.emulator, here.package), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    line += ["-machine", here.machine, "-accel", "tcg", "-cpu", here.processor, "-smp", "2", "-m", "1536", "-serial", "stdio"]
    for name, folder, options in (("host", Path("/"), ",readonly=on,multidevs=remap"), ("shared", shared, "")):
        path = str(folder).replace(",", ",,")
        line += ["-fsdev", f"local,id={name},path={path},security_model=none{options}"]
        line += ["-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}"]
    line += ["-kernel", str(kernel / "vmlinuz"), "-initrd", str(shared / "initrd")]
    return [*line, "-append", f"console={here.console} quiet panic=-1"]


def _initial_files(kernel: Path) -> bytes:
    """Return the archive the kernel unpacks into memory and starts from: busybox, the modules in their order, a script."""
    files = [("bin/busybox", (kernel / "busybox").read_bytes()), ("init", _START.encode())]
    files += [(f"modules/{module.name}", module.read_bytes()) for module in sorted((kernel / "modules").iterdir())]
    entries = [(name, 0o040755, b"") for name in ("bin", "dev", "modules")]
    entries += [(name, 0o100755, content) for name, content in files]
    archive = b"".join(_entry(*entry) for entry in entries)
    return archive + _entry("TRAILER!!!", 0, b"")


def _entry(name: str, mode: int, content: bytes) -> bytes:
    """Return one entry of a cpio archive, in the kernel's format (Documentation/driver-api/early-userspace/buffer-format)."""
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
