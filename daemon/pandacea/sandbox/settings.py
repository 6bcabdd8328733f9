"""What the operator may choose about sandboxes. Frozen; checked when a sandbox starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pandacea.domain.limits import Limits

GUEST_UID: Final = 10_001
"""The first of the uids that instances run as (`uids.py`), unless the operator names another; with bubblewrap as a plain user, the uid
that every script sees."""

PRELOAD: Final = ("numpy", "pandas", "pyarrow", "torch")
"""Modules that a warm guest imports before its job."""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The pool of warm instances. `size` 0: every job starts cold."""

    size: int = 2
    preload: tuple[str, ...] = PRELOAD
    limits: Limits = field(default_factory=Limits)
    """What warm instances are created with; a job with other limits starts cold."""
    boot_seconds: float = 120.0
    """How long a guest may take until its hello."""


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """The Docker sandbox. `state_dir`: a folder of this node's own; engine and node must see the same files there."""

    image: str
    state_dir: Path
    node_label: str = "default"
    """Label of this node's containers; those of other nodes are left alone."""
    engine_url: str | None = None
    """None: the Docker context's, DOCKER_HOST's or the usual local socket."""
    runtime: str | None = None
    """None: the engine's default; for example `runsc`."""
    environment: Path | None = None
    """A folder with packages to mount read-only instead of the image's own; for development and tests."""
    pool: PoolSettings = field(default_factory=PoolSettings)
    self_test: bool = True
    """False only where another test proves the sandbox: the start then relies on that."""
    uid_base: int = GUEST_UID
    """The first of the uids that instances run as, one for each."""


@dataclass(frozen=True, slots=True)
class BubblewrapSettings:
    """The bubblewrap sandbox. `environment`: a folder made by `build_environment`; `state_dir`: a folder of this node's own."""

    environment: Path
    state_dir: Path
    node_label: str = "default"
    """In the name of this node's control groups; those of other nodes are left alone."""
    cgroups: bool = True
    """True: refuse to start where no control group may be made. False: resource limits and polling instead, which are weaker."""
    pool: PoolSettings = field(default_factory=PoolSettings)
    self_test: bool = True
    """As for Docker."""
    uid_base: int = GUEST_UID
    """As root: the first of the uids that instances run as, one for each."""
