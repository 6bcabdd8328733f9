"""Reports the self-test as findings, for `pandacea doctor`."""

from __future__ import annotations

from typing import Final

from pandacea.domain.finding import Finding, FindingState
from pandacea.errors import DaemonError
from pandacea.sandbox.select_backend import select_backend
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings

GROUP: Final = "sandbox"
_FAILED_PROBE_REMEDY: Final = (
    "do not serve from this sandbox: set privacy.sandbox to the other kind (docker, bubblewrap), or update the kernel"
)


async def diagnose_sandbox(kind: str, docker: DockerSettings, bubblewrap: BubblewrapSettings) -> list[Finding]:
    """Return which sandbox is used and why, the result of each probe in a real instance, and what is weaker on this machine.

    Beside a running node the settings must name a label and state folders of their own.
    """
    sandbox, reason = await select_backend(kind, docker, bubblewrap)
    found = [Finding(GROUP, "sandbox", FindingState.OK, reason)]
    try:
        identity = await sandbox.start()
    except DaemonError as error:
        # Each failed probe has a row of its own below; the error's sentence would list them all a second time.
        failed = sum(not probe.passed for probe in sandbox.probes)
        detail = (
            f"{failed} of the probes below failed, so nothing would be served"
            if failed
            else getattr(error, "problem", error.detail)
        )
        remedy = _FAILED_PROBE_REMEDY if failed else getattr(error, "remedy", "")
        found.append(Finding(GROUP, "sandbox environment", FindingState.FAIL, detail, remedy))
    else:
        await sandbox.stop()
        found.append(Finding(GROUP, "sandbox environment", FindingState.OK, f"{identity.kind} {identity.environment}"))
    for probe in sandbox.probes:
        state, remedy = (FindingState.OK, "") if probe.passed else (FindingState.FAIL, _FAILED_PROBE_REMEDY)
        found.append(Finding(GROUP, f"sandbox {probe.name}", state, probe.detail, remedy))
    found.extend(Finding(GROUP, "sandbox, weaker here", FindingState.WEAKER, warning) for warning in sandbox.warnings)
    return found
