"""The self-test as a table, for `pandacea doctor`."""

from __future__ import annotations

from typing import Any

from pandacea.errors import PandaceaError
from pandacea.sandbox.choose import choose
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings


async def examine(kind: str, docker: DockerSettings, bubblewrap: BubblewrapSettings) -> list[dict[str, Any]]:
    """Return rows `{"check", "ok", "detail"}`: which sandbox and why, each promise tried in a real box, what is weaker here.

    Beside a running node the settings must name an instance and state folders of their own.
    """
    sandbox, reason = await choose(kind, docker, bubblewrap)
    rows: list[dict[str, Any]] = [{"check": "sandbox", "ok": True, "detail": reason}]
    try:
        identity = await sandbox.open()
    except PandaceaError as error:
        rows.append({"check": "sandbox environment", "ok": False, "detail": error.detail})
    else:
        await sandbox.close()
        rows.append({"check": "sandbox environment", "ok": True, "detail": f"{identity.kind} {identity.environment}"})
    rows.extend({"check": f"sandbox {probe.name}", "ok": probe.held, "detail": probe.detail} for probe in sandbox.probes)
    rows.extend({"check": "sandbox, weaker here", "ok": True, "detail": warning} for warning in sandbox.warnings)
    return rows
