"""What boxes could leave behind, looked for from outside the node: processes, containers, control groups, mounts, folders."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def left_behind(instance: str, state: Path, *, but: frozenset[int] = frozenset()) -> list[str]:
    """Name everything that is still there of the boxes of one node; empty when nothing is.

    `instance`: the node's label; `state`: its state folder; `but`: processes that may live, as the node's own.
    """
    return [
        *(f"process {pid}: {line}" for pid, line in processes(state).items() if pid not in but),
        *(f"container {name}" for name in containers(instance)),
        *(f"control group {group}" for group in control_groups(instance)),
        *(f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if str(state) in line),
        *(f"folder {folder}" for pattern in ("**/boxes/*", "**/self-test-*", "**/*.new") for folder in state.glob(pattern)),
    ]


def of_any_node() -> list[str]:
    """Name everything on this machine that looks like a part of some node: what nodes run now is in it, too."""
    return [
        *(f"container {name}" for name in containers(None)),
        *(f"control group {group}" for group in _groups("pandacea-*")),
        *(f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if "pandacea" in line),
        *(f"folder {folder}" for folder in Path(tempfile.gettempdir()).glob("pandacea-*")),
    ]


def processes(state: Path) -> dict[int, str]:
    """Processes that name the state folder in their command line, or live in a box with something of it mounted."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(state) in line or str(state) in (entry / "mountinfo").read_text():
                found[int(entry.name)] = line[:100]
    return found


def containers(instance: str | None) -> list[str]:
    """Containers, running or not, that carry a node's label (None: any node's); none where there is no engine."""
    if shutil.which("docker") is None:
        return []
    label = "label=org.pandacea.instance" + ("" if instance is None else f"={instance}")
    line = ["docker", "ps", "-a", "--format", "{{.Names}} {{.Status}}", "--filter", label]
    return subprocess.run(line, capture_output=True, text=True, check=False).stdout.splitlines()


def control_groups(instance: str) -> list[Path]:
    """A node's control groups and those of its boxes, anywhere."""
    corners = _groups(f"pandacea-{instance}")
    return corners + [path for corner in corners for path in corner.iterdir() if path.is_dir()]


def _groups(pattern: str) -> list[Path]:
    """Control groups of that name, passing over those that others remove meanwhile."""
    return [Path(folder, name) for folder, names, _ in os.walk("/sys/fs/cgroup") for name in fnmatch.filter(names, pattern)]
