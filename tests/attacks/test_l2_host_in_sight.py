"""A script reads of its host: the node's folders in the mount table and its table's name, and counters that the next sandbox moves.

Pressure, interrupts, disks, locks, open files, load and the machine's boot id are the same for all sandboxes, so they are channels too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.attacks.boxes import environment, image, laboratory
from tests.sandbox.harness import Laboratory

__all__ = ["environment", "image", "laboratory"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

PLACES = """
import os
for descriptor in pandacea_descriptors.values():
    print(os.readlink(f"/proc/self/fd/{descriptor}"))
print(open("/proc/self/mountinfo").read())
print(open("/proc/self/mounts").read())
print(open("/proc/self/maps").read())
print(open("/proc/self/cgroup").read())  # syft
"""
COUNTERS = """
import json, os
shown = {}
for path in params:
    try:
        shown[path] = os.listdir(path) if os.path.isdir(path) else open(path).read()
    except OSError:
        continue
print(json.dumps(shown))
"""
CHANGING = (
    *("/proc/pressure", "/proc/interrupts", "/proc/softirqs", "/proc/vmstat", "/proc/zoneinfo", "/proc/diskstats", "/proc/locks"),
    *("/proc/sys/fs/file-nr", "/proc/sys/fs/inode-nr", "/proc/sys/fs/dentry-state", "/proc/sys/kernel/pty/nr", "/proc/swaps"),
    *("/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/random/entropy_avail", "/proc/schedstat", "/proc/slabinfo", "/proc/sys"),
    *(
        "/proc/buddyinfo",
        "/proc/pagetypeinfo",
        "/proc/partitions",
        "/proc/cmdline",
        "/proc/sysvipc",
        "/proc/fs",
        "/proc/timer_list",
    ),
    *("/sys", "/sys/block", "/sys/devices/system/node/node0/vmstat", "/sys/class/net"),
)
FIXED = ("/proc/stat", "/proc/loadavg", "/proc/uptime", "/proc/meminfo", "/proc/cpuinfo")
HONEST = """
import multiprocessing, os, psutil
memory = psutil.virtual_memory()
print(memory.total, memory.available, psutil.cpu_percent(), psutil.boot_time(), psutil.cpu_count(), os.cpu_count())
print(psutil.Process().memory_info().rss > 0, psutil.disk_usage("/workspace").total, len(psutil.pids()), multiprocessing.cpu_count())
import joblib, getpass
print(joblib.cpu_count() >= 1, joblib.Parallel(n_jobs=2, prefer="threads")(joblib.delayed(abs)(-n) for n in range(3)), getpass.getuser())
"""


async def test_the_nodes_folders_are_not_named(laboratory: Laboratory, tmp_path: Path) -> None:
    """Neither the state folder nor the table's: a container's mount table alone names the state folder, because its engine binds it."""
    table = tmp_path / "ward-7.csv"
    table.write_text("age\n1\n")
    outcome = await laboratory.run(PLACES, tables={"people": table})
    said = outcome.output.decode()
    assert outcome.failure is None, outcome
    assert said.splitlines()[0] == "/"
    assert "ward-7" not in said
    assert str(tmp_path) not in said
    if not laboratory.mode.startswith("docker"):
        assert str(laboratory.folder) not in said
        assert laboratory.folder.name not in said


async def test_a_mapped_tables_place_is_not_named(laboratory: Laboratory, environment: Path, tmp_path: Path) -> None:
    """An Arrow table stays mapped while the script runs, and the list of mappings names files."""
    from tests.sandbox.harness import write_converted_table

    table = tmp_path / "ward-7.csv"
    table.write_text("age\n1\n")
    outcome = await laboratory.run(
        "print(int(people.age.sum()))\nprint(open('/proc/self/maps').read())",
        tables={"people": write_converted_table(table, environment, "arrow")},
    )
    assert outcome.output.startswith(b"1\n"), outcome
    assert b"ward-7" not in outcome.output


async def test_what_counts_the_machine_is_hidden(laboratory: Laboratory) -> None:
    """Each is empty or not there; what honest programs read is the same at every time and for every sandbox."""
    first = json.loads((await laboratory.run(COUNTERS, params=json.dumps(CHANGING + FIXED))).output)
    assert {path: shown for path, shown in first.items() if shown and path in CHANGING} == {}
    assert set(FIXED) <= set(first)
    assert all(first[path] for path in FIXED)
    sum(n * n for n in range(2_000_000))  # the processors' time moves meanwhile
    again = json.loads((await laboratory.run(COUNTERS, params=json.dumps(FIXED))).output)
    assert again == {path: first[path] for path in FIXED}


async def test_honest_programs_find_what_they_need(laboratory: Laboratory) -> None:
    """Psutil and joblib work; the memory that a script is told of is its sandbox's, the processors are the machine's."""
    outcome = await laboratory.run(HONEST)
    assert outcome.failure is None, outcome
    words = outcome.output.decode().split()
    memory, count = str(laboratory.sandbox.pool._shape.memory_bytes), str(os.cpu_count())
    assert words[:2] == [memory, memory]
    assert words[2:6] == ["0.0", "0.0", count, count]
    assert outcome.output.endswith(b"True [0, 1, 2] sandbox\n")
