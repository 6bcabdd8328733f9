"""Hides the machine's entries of /proc from a sandbox, and replaces those that libraries need by fixed contents.

Counters of the whole machine (interrupts, disks, pressure, locks, open files, load) change with what other sandboxes do: they are channels
between jobs, and tell a script about its host. So every entry of /proc is hidden that is not named here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

VISIBLE: Final = frozenset({"self", "thread-self", "mounts", "net", "filesystems", "version"})
"""Entries that stay: a process's own, or the same for everybody as long as the machine runs."""
FIXED: Final = ("cpuinfo", "loadavg", "meminfo", "stat", "uptime")
"""Entries that honest programs read: they stay, with fixed contents."""
MASKS_FOLDER: Final = "masks"
"""Folder of the fixed contents in the staged guest program."""

_PROC: Final = Path("/proc")
_EMPTY_FOLDER: Final = "empty"
_HIDDEN_ELSEWHERE: Final = (
    *(
        "acpi",
        "asound",
        "kcore",
        "key-users",
        "keys",
        "kallsyms",
        "latency_stats",
        "sched_debug",
        "schedstat",
        "scsi",
        "timer_stats",
    ),
    *(
        "diskstats",
        "interrupts",
        "locks",
        "pressure",
        "slabinfo",
        "softirqs",
        "swaps",
        "sys",
        "timer_list",
        "vmallocinfo",
        "vmstat",
    ),
)
"""Entries that are hidden although this kernel may lack them: a container engine on another machine has a kernel of its own."""


def write_masks(program: Path, memory_bytes: int) -> None:
    """Write the fixed contents beneath the staged guest program; `memory_bytes` is shown as the machine's memory."""
    folder = program / MASKS_FOLDER
    (folder / _EMPTY_FOLDER).mkdir(parents=True, exist_ok=True)
    for name, content in _fixed_contents(memory_bytes).items():
        path = folder / name
        fresh = folder / f"{name}.new"
        fresh.write_text(content, encoding="utf-8")
        fresh.chmod(0o444)
        fresh.replace(path)  # atomic: a sandbox that starts at this moment finds the old content or the new
    for path in (folder, folder / _EMPTY_FOLDER):
        path.chmod(0o755)


def mask_binds(program: str) -> list[tuple[str, str]]:
    """Return source and target of each mount that hides or replaces an entry; `program`: where the staged guest program is found."""
    found = []
    for name in _hidden():
        path = _PROC / name
        empty = f"{program}/{MASKS_FOLDER}/{_EMPTY_FOLDER}" if path.is_dir() else "/dev/null"
        found.append((empty, str(path)))
    return found + [(f"{program}/{MASKS_FOLDER}/{name}", f"{_PROC}/{name}") for name in FIXED]


def list_hidden_paths() -> list[str]:
    """Return the paths to hide, for an engine that masks the paths it is given and ignores those that do not exist."""
    return sorted({str(_PROC / name) for name in (*_hidden(), *_HIDDEN_ELSEWHERE)})


def _hidden() -> list[str]:
    return sorted(
        path.name
        for path in _PROC.iterdir()
        if not path.name.isdigit() and not path.is_symlink() and path.name not in VISIBLE and path.name not in FIXED
    )


def _fixed_contents(memory_bytes: int) -> dict[str, str]:
    processors, kilobytes, zeros = os.cpu_count() or 1, memory_bytes // 1024, " ".join("0" * 10)
    memory = {"MemTotal": kilobytes, "MemFree": kilobytes, "MemAvailable": kilobytes}
    memory |= dict.fromkeys(("Buffers", "Cached", "SwapCached", "Active", "Inactive", "SwapTotal", "SwapFree", "Shmem", "Slab"), 0)
    memory |= dict.fromkeys(("SReclaimable", "SUnreclaim"), 0)
    return {
        "cpuinfo": (_PROC / "cpuinfo").read_text(encoding="utf-8", errors="replace"),  # as it was at start: the clock rates change
        "loadavg": "0.00 0.00 0.00 1/1 1\n",
        "meminfo": "".join(f"{name + ':':<16}{value:>8} kB\n" for name, value in memory.items()),
        "stat": f"cpu  {zeros}\n"
        + "".join(f"cpu{number} {zeros}\n" for number in range(processors))
        + "intr 0\nctxt 0\nbtime 0\nprocesses 1\nprocs_running 1\nprocs_blocked 0\nsoftirq 0\n",
        "uptime": "0.00 0.00\n",
    }
