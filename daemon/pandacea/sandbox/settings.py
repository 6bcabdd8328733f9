"""What the operator may choose about boxes. Frozen; checked when a sandbox opens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pandacea.domain.limits import MIB, Limits

GUEST_UID: Final = 10_001
"""The first of the uids boxes run as (`uids.py`), unless the operator names another; a plain user's boxes all see themselves as it."""
SHM_BYTES: Final = 16 * MIB
"""Shared memory of a box: room for semaphores, counted like its other tmpfs."""

PRELOAD: Final = ("numpy", "pandas", "pyarrow", "torch")


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Warm boxes kept ready. `size` 0: every job starts cold."""

    size: int = 2
    preload: tuple[str, ...] = PRELOAD
    limits: Limits = field(default_factory=Limits)
    """What warm boxes are made with; a job with other limits starts cold."""
    boot_seconds: float = 120.0
    """A box that is not ready by then has failed."""


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """The Docker sandbox. `state_dir`: a folder of this node's own; engine and node must see the same files there."""

    image: str
    state_dir: Path
    node_label: str = "default"
    """Label of this node's containers: what another node made is left alone."""
    engine_url: str | None = None
    """None: DOCKER_HOST's or the usual local socket."""
    runtime: str | None = None
    """None: the engine's default; for example `runsc`."""
    environment: Path | None = None
    """A folder with packages to mount read-only instead of the image's own; for development and tests."""
    pool: PoolSettings = field(default_factory=PoolSettings)
    self_test: bool = True
    """False only where another test proves the box: every start then trusts the last one."""
    uid_base: int = GUEST_UID
    """The first of the uids that boxes run as, one for each."""


@dataclass(frozen=True, slots=True)
class BubblewrapSettings:
    """The bubblewrap sandbox. `environment`: a folder made by `build_environment`."""

    environment: Path
    state_dir: Path
    node_label: str = "default"
    cgroups: bool = True
    """True: refuse to open where none may be made. False: resource limits and a watch instead, which hold less."""
    pool: PoolSettings = field(default_factory=PoolSettings)
    self_test: bool = True
    uid_base: int = GUEST_UID
    """As root: the first of the uids that boxes run as, one for each."""
