"""The configuration of one container: every option of the Engine API that makes it a sandbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pandacea.domain.limits import SHM_BYTES
from pandacea.sandbox import guest_files, proc_masks
from pandacea.sandbox.backend import TMP_DIR, WORKSPACE_DIR, InstanceShape
from pandacea.sandbox.seccomp.docker_profile import docker_profile
from pandacea.sandbox.settings import DockerSettings
from pandacea_sdk.protocol.json_types import JsonObject

NODE_LABEL: Final = "org.pandacea.instance"
SANDBOX_LABEL: Final = "org.pandacea.box"
GUEST_SOCKET: Final = "/run/pandacea/guest"
_OOM_SCORE: Final = 500
_MASKED_PATHS: Final = (
    "/sys",  # counters of disks, memory nodes and devices; bubblewrap instances do not have it either
    "/dev/mqueue",  # a file system that a job could write to, with a budget that instances share
)


def container_config(
    settings: DockerSettings,
    image: str,
    shape: InstanceShape,
    preload: tuple[str, ...],
    staged: Path,
    socket_folder: Path,
    name: str,
    uid: int,
) -> JsonObject:
    """Return the body of POST /containers/create (Docker Engine API 1.40 and later)."""
    start = {
        "socket": GUEST_SOCKET,
        "uid": None,
        "filter": guest_files.INNER_FILTER_FILE,
        "environment": guest_files.ENVIRONMENT_FOLDER,
        "preload": preload,
        "rlimits": {"RLIMIT_CORE": 0},
        "template": False,
    }
    mounts = [_bind(staged, guest_files.GUEST_FOLDER), _bind(socket_folder, str(Path(GUEST_SOCKET).parent))]
    mounts += [_bind(staged / proc_masks.MASKS_FOLDER / name, f"/proc/{name}") for name in proc_masks.FIXED]
    if settings.environment is not None:
        mounts.append(_bind(settings.environment.resolve(), guest_files.ENVIRONMENT_FOLDER))
    host: JsonObject = {
        "NetworkMode": "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "ReadonlyRootfs": True,
        "MaskedPaths": [*_MASKED_PATHS, *proc_masks.list_hidden_paths()],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={docker_profile()}"],
        "Memory": shape.memory_bytes,
        "MemorySwap": shape.memory_bytes,
        "NanoCpus": int(shape.cpus * 1e9),
        "PidsLimit": shape.pids,
        "OomScoreAdj": _OOM_SCORE,
        "ShmSize": SHM_BYTES,
        "Tmpfs": {
            WORKSPACE_DIR: _tmpfs(shape.workspace_bytes, shape.workspace_inodes, uid),
            TMP_DIR: _tmpfs(shape.tmp_bytes, shape.workspace_inodes, uid),
        },
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "nofile", "Soft": 1024, "Hard": 1024},
            {"Name": "msgqueue", "Soft": 0, "Hard": 0},
            # No fsize here: a script's process gets the workspace's size from its job, a conversion the maximum of a table.
        ],
        "Mounts": mounts,
        "LogConfig": {"Type": "none"},
        "AutoRemove": True,  # if the node is killed, its guests see their connections close and exit
    }
    if settings.runtime is not None:
        host["Runtime"] = settings.runtime
    return {
        "Image": image,
        "Entrypoint": ["python3"],
        "Cmd": [*guest_files.PYTHON_FLAGS, guest_files.START_CODE, json.dumps(start)],
        "Env": [f"{name}={value}" for name, value in guest_files.GUEST_ENVIRON.items()],
        "User": f"{uid}:{uid}",
        "WorkingDir": "/",
        "Hostname": "sandbox",
        "NetworkDisabled": True,
        "Labels": {NODE_LABEL: settings.node_label, SANDBOX_LABEL: name},
        "HostConfig": host,
    }


def _bind(source: Path, target: str) -> JsonObject:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True, "BindOptions": {"Propagation": "rprivate"}}


def _tmpfs(size: int, inodes: int, uid: int) -> str:
    return f"rw,noexec,nosuid,nodev,mode=0700,uid={uid},gid={uid},size={size},nr_inodes={inodes}"
