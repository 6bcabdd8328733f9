"""The self-test as a table, for `pandacea doctor`: on boxes of its own, so that a running node is left alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

from pandacea.errors import PandaceaError
from pandacea.sandbox.choose import choose
from pandacea.sandbox.runner import BoxSandbox
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings, PoolSettings


async def examine(kind: str, docker: DockerSettings, bubblewrap: BubblewrapSettings) -> list[dict[str, Any]]:
    """Return rows `{"check", "ok", "detail"}`: which sandbox and why, each promise tried in a real box, what is weaker here."""
    docker = replace(docker, instance=f"{docker.instance}-doctor", state_dir=docker.state_dir / "doctor", pool=_cold(docker.pool))
    bubblewrap = replace(
        bubblewrap,
        instance=f"{bubblewrap.instance}-doctor",
        state_dir=bubblewrap.state_dir / "doctor",
        pool=_cold(bubblewrap.pool),
    )
    rows: list[dict[str, Any]] = []
    try:
        sandbox, reason = await choose(kind, docker, bubblewrap)
        rows.append({"check": "sandbox", "ok": True, "detail": reason})
        await _try(sandbox, rows)
    except PandaceaError as error:
        rows.append({"check": "sandbox", "ok": False, "detail": error.detail})
    for state in (docker.state_dir, bubblewrap.state_dir):
        shutil.rmtree(state, ignore_errors=True)  # a leftover here disturbs nobody
    return rows


async def _try(sandbox: BoxSandbox, rows: list[dict[str, Any]]) -> None:
    try:
        identity = await sandbox.open()
        rows.append({"check": "sandbox environment", "ok": True, "detail": f"{identity.kind} {identity.environment}"})
    finally:
        rows.extend({"check": f"sandbox {probe.name}", "ok": probe.held, "detail": probe.detail} for probe in sandbox.probes)
        rows.extend({"check": "sandbox, weaker here", "ok": True, "detail": warning} for warning in sandbox.warnings)
        await sandbox.close()


def _cold(pool: PoolSettings) -> PoolSettings:
    return replace(pool, size=0)
