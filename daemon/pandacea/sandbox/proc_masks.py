"""What a box sees of /proc: itself, and of the machine only what libraries need, with contents that say nothing of other boxes.

Counters of the whole machine (interrupts, disks, pressure, locks, open files, load) change with what the next box does: they are channels
between jobs, and tell a script about its host. So everything in /proc is hidden that is not named here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

VISIBLE: Final = frozenset({"self", "thread-self", "mounts", "net", "filesystems", "version"})
"""A process's own, or the same for everybody as long as the machine runs."""
FIXED: Final = ("cpuinfo", "loadavg", "meminfo", "stat", "uptime")
"""Read by honest programs: there, with fixed contents."""
MASKS_FOLDER: Final = "masks"
"""Where in the staged guest program the fixed contents lie."""

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
"""Entries that the kernel of a container engine on another machine may have and this one not."""


def write_masks(program: Path, memory_bytes: int) -> None:
    """Write the fixed contents beneath the staged guest program. `memory_bytes`: what a box may use, shown as the machine's memory."""
    folder = program / MASKS_FOLDER
    (folder / _EMPTY_FOLDER).mkdir(parents=True, exist_ok=True)
    for name, content in _fixed_contents(memory_bytes).items():
        path = folder / name
        fresh = folder / f"{name}.new"
        fresh.write_text(content, encoding="utf-8")
        fresh.chmod(0o444)
        os.replace(fresh, path)  # noqa: PTH105 - atomic: a box of this moment finds one or the other
    for path in (folder, folder / _EMPTY_FOLDER):
        path.chmod(0o755)


def mask_binds(program: str) -> list[tuple[str, str]]:
    """Source and target of each mount that hides something, where the staged guest program is found at `program`."""
    found = []
    for name in _hidden():
        path = _PROC / name
        empty = f"{program}/{MASKS_FOLDER}/{_EMPTY_FOLDER}" if path.is_dir() else "/dev/null"
        found.append((empty, str(path)))
    return found + [(f"{program}/{MASKS_FOLDER}/{name}", f"{_PROC}/{name}") for name in FIXED]


def list_hidden_paths() -> list[str]:
    """Paths for an engine that empties what it is named and passes over what is not there."""
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
        "cpuinfo": (_PROC / "cpuinfo").read_text(encoding="utf-8", errors="replace"),  # as it was at start: the clock rates move
        "loadavg": "0.00 0.00 0.00 1/1 1\n",
        "meminfo": "".join(f"{name + ':':<16}{value:>8} kB\n" for name, value in memory.items()),
        "stat": f"cpu  {zeros}\n"
        + "".join(f"cpu{number} {zeros}\n" for number in range(processors))
        + "intr 0\nctxt 0\nbtime 0\nprocesses 1\nprocs_running 1\nprocs_blocked 0\nsoftirq 0\n",
        "uptime": "0.00 0.00\n",
    }
