"""Stages the guest program: copied once to a folder that sandboxes mount read-only, named by its digest."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.sandbox import guest, proc_masks
from pandacea.sandbox.backend import TMP_DIR
from pandacea.sandbox.seccomp.bpf import assemble_filter

GUEST_FOLDER: Final = "/opt/pandacea/guest"
"""Where a sandbox finds the staged program."""
ENVIRONMENT_FOLDER: Final = "/opt/pandacea/env"
"""Where a sandbox finds the packages."""
INNER_FILTER_FILE: Final = GUEST_FOLDER + "/inner.bpf"
_FONTS_FILE: Final = "fonts.conf"
_FONTS: Final = b'<?xml version="1.0"?>\n<fontconfig/>\n'
"""A configuration without a font of the machine's: matplotlib asks fontconfig, which prints an error where it finds none."""
PYTHON_FLAGS: Final = ("-P", "-s", "-S", "-B", "-X", "utf8", "-c")
START_CODE: Final = (
    f"import sys; sys.path.insert(0, {GUEST_FOLDER!r}); from guest.boot import main; sys.path.pop(0); main(sys.argv[1])"
)

GUEST_ENVIRON: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": TMP_DIR,
    "USER": "sandbox",  # no file names an instance's uid
    "LOGNAME": "sandbox",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OMP_THREAD_LIMIT": "32",  # n_jobs=-1 means all of the machine's processors, which may be more than pids allows
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",  # there is no screen
    "FONTCONFIG_FILE": f"{GUEST_FOLDER}/{_FONTS_FILE}",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's jemalloc starts a thread at import; who forks must have none
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # a fork copies, and its end frees, half the page tables; imports fault less, too
}
"""All environment variables of a guest: the same on every machine, none of the node's own."""


@dataclass(frozen=True, slots=True)
class GuestProgram:
    """`folder`: the package `guest`, inner filter, font configuration, masks of /proc; `digest`: SHA-256 (hex) of all but the masks."""

    folder: Path
    digest: str


def stage_guest(state_dir: Path, memory_bytes: int) -> GuestProgram:
    """Copy the guest program beneath `state_dir` unless it is there already, and remove other versions.

    `memory_bytes`: what /proc/meminfo shows inside a sandbox (see `proc_masks`).
    """
    source = Path(guest.__file__).parent
    files = {f"guest/{path.name}": path.read_bytes() for path in sorted(source.glob("*.py"))}
    files["inner.bpf"] = assemble_filter(boot=False)
    files[_FONTS_FILE] = _FONTS
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    folder = state_dir / f"guest-{digest.hexdigest()[:16]}"
    for old in state_dir.glob("guest-*"):
        if old != folder:
            shutil.rmtree(old)
    if not folder.exists():
        _write(folder, files)
    proc_masks.write_masks(folder, memory_bytes)
    return GuestProgram(folder, digest.hexdigest())


def _write(folder: Path, files: dict[str, bytes]) -> None:
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "guest").mkdir(parents=True)
    for name, content in files.items():
        (fresh / name).write_bytes(content)
        (fresh / name).chmod(0o444)
    for path in (fresh, fresh / "guest"):
        path.chmod(0o755)
    fresh.replace(folder)  # atomic, so a crash leaves no incomplete program
