"""Finds what sandboxes left behind, from outside the node: processes, containers, control groups, mounts, folders."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.run_id import PUBLIC_TMP

GROUPS = Path("/sys/fs/cgroup")
MOUNTS = Path("/proc/mounts")


def left_behind(instance: str, state: Path, *, but: frozenset[int] = frozenset()) -> list[str]:
    """Return everything that is left of the sandboxes of one node; empty when nothing is.

    `instance`: the node's label; `state`: its state folder; `but`: processes that may still run, for example the node's own.
    """
    return [
        *(f"process {pid}: {line}" for pid, line in processes(state).items() if pid not in but),
        *(f"container {name}" for name in containers(instance)),
        *(f"control group {group}" for group in control_groups(instance)),
        *(f"mount {line}" for line in mounts(state)),
        *(f"folder {folder}" for pattern in ("**/boxes/*", "**/self-test-*", "**/*.new") for folder in state.glob(pattern)),
    ]


def left_by(run: str, roots: Sequence[Path], *, groups: Path = GROUPS, mounted: Path = MOUNTS) -> list[str]:
    """Return everything on this machine that a run of the tests has left of a node, and nothing that others have made meanwhile.

    `run`: the word in the labels of nodes that tests name; `roots`: the folders that contain everything else of the run. A node in a
    process of its own is labelled with the digest of its state folder, so it belongs to the run when that folder does.
    """
    roots = [root.resolve() for root in roots]
    own = frozenset(_labels(roots))

    def ours(label: str) -> bool:
        return run in label or label in own

    return [
        *(f"process {pid}: {line}" for root in roots for pid, line in processes(root).items() if pid not in _ancestors()),
        *(f"container {name}" for name, label in _labelled_containers().items() if ours(label)),
        *(f"control group {group}" for group in _groups("pandacea-*", groups) if ours(group.name.removeprefix("pandacea-"))),
        *(f"mount {line}" for root in roots for line in mounts(root, mounted)),
        *(f"folder {folder}" for root in roots for folder in root.glob("pandacea-*")),
        *(f"folder {folder}" for folder in PUBLIC_TMP.glob(f"pandacea-{run}-*")),
    ]


def _labels(roots: Sequence[Path]) -> set[str]:
    """Return the labels of all nodes whose state folder is, or was, one of the folders beneath (see `app.parts.sandbox_settings`)."""
    folders = {Path(folder, name) for root in roots for folder, names, _ in os.walk(root) for name in ("", *names)}
    folders |= {folder / name for folder in folders for name in ("state", "doctor", "tools")}
    return {hashlib.sha256(str(folder).encode()).hexdigest()[:16] for folder in folders}


def _ancestors() -> set[int]:
    """Return this process and those it was started by."""
    found, pid = set(), os.getpid()
    while pid > 0:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def mounts(folder: Path, mounted: Path = MOUNTS) -> list[str]:
    """Return the lines of the kernel's table of mounts that name a folder."""
    return [line for line in _unescaped(mounted.read_text()).splitlines() if str(folder) in line]


def _unescaped(table: str) -> str:
    """Return a table of mounts with its spaces as they are in paths (proc(5): octal escapes)."""
    return re.sub(r"\\(040|011|134)", lambda match: chr(int(match[1], 8)), table)


def processes(state: Path) -> dict[int, str]:
    """Return the processes of a node and of its sandboxes.

    Those that name the state folder in their command line or have something of it mounted, those in a control group of the node (a
    sandbox shows nothing of the state folder), and whatever any of these started.
    """
    found, parents = {}, {}
    here = Path("/proc/self/ns/mnt").readlink()
    group = f"/pandacea-{hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:16]}/"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile
            pid, line = int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parents[pid] = (int((entry / "stat").read_text().rpartition(")")[2].split()[1]), line)
            boxed = (entry / "ns" / "mnt").readlink() != here
            grouped = group in (entry / "cgroup").read_text()
            if str(state) in line or grouped or (boxed and mounts(state, entry / "mountinfo")):
                found[pid] = line[:100]
    while more := {pid: line[:100] for pid, (parent, line) in parents.items() if pid not in found and parent in found}:
        found |= more
    return found


def containers(instance: str) -> list[str]:
    """Return the containers, running or not, that carry a node's label; none where there is no engine."""
    return [name for name, label in _labelled_containers().items() if label == instance]


def _labelled_containers() -> dict[str, str]:
    """Return the label of each container that some node made, by its name and state."""
    if shutil.which("docker") is None:
        return {}
    label = "org.pandacea.instance"
    line = ["docker", "ps", "-a", "--filter", f"label={label}", "--format", '{{.Names}} {{.Status}}\t{{.Label "' + label + '"}}']
    lines = subprocess.run(line, capture_output=True, text=True, check=False).stdout.splitlines()
    return {name: label for name, _, label in (line.partition("\t") for line in lines)}


def control_groups(instance: str) -> list[Path]:
    """Return a node's control groups and those of its sandboxes, in every hierarchy."""
    corners = _groups(f"pandacea-{instance}")
    return corners + [path for corner in corners for path in corner.iterdir() if path.is_dir()]


def _groups(pattern: str, root: Path = GROUPS) -> list[Path]:
    """Return the control groups of that name, without those that others remove meanwhile."""
    return [Path(folder, name) for folder, names, _ in os.walk(root) for name in fnmatch.filter(names, pattern)]
