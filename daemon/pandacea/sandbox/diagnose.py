"""The self-test as findings, for `pandacea doctor`."""

from __future__ import annotations

from typing import Final

from pandacea.domain.finding import Finding, FindingState
from pandacea.errors import DaemonError
from pandacea.sandbox.select_backend import select_backend
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings

GROUP: Final = "sandbox"
_HOLE: Final = "do not serve from this sandbox: set privacy.sandbox to the other kind (docker, bubblewrap), or update the kernel"


async def diagnose_sandbox(kind: str, docker: DockerSettings, bubblewrap: BubblewrapSettings) -> list[Finding]:
    """Find which sandbox is used and why, whether each promise holds in a real box, and what is weaker here.

    Beside a running node the settings must name an instance and state folders of their own.
    """
    sandbox, reason = await select_backend(kind, docker, bubblewrap)
    found = [Finding(GROUP, "sandbox", FindingState.OK, reason)]
    try:
        identity = await sandbox.start()
    except DaemonError as error:
        # A hole has a row of its own below; the sentence that lists them all would say it twice.
        holes = sum(not probe.passed for probe in sandbox.probes)
        detail = (
            f"{holes} of the promises below do not hold, so nothing would be served"
            if holes
            else getattr(error, "problem", error.detail)
        )
        found.append(
            Finding(GROUP, "sandbox environment", FindingState.FAIL, detail, _HOLE if holes else getattr(error, "remedy", ""))
        )
    else:
        await sandbox.stop()
        found.append(Finding(GROUP, "sandbox environment", FindingState.OK, f"{identity.kind} {identity.environment}"))
    for probe in sandbox.probes:
        state = FindingState.OK if probe.passed else FindingState.FAIL
        found.append(Finding(GROUP, f"sandbox {probe.name}", state, probe.detail, "" if probe.passed else _HOLE))
    found.extend(Finding(GROUP, "sandbox, weaker here", FindingState.WEAKER, warning) for warning in sandbox.warnings)
    return found
