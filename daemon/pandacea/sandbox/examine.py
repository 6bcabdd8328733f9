"""The self-test as findings, for `pandacea doctor`."""

from __future__ import annotations

from typing import Final

from pandacea.domain.finding import Finding, State
from pandacea.errors import PandaceaError
from pandacea.sandbox.choose import choose
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings

GROUP: Final = "sandbox"
_HOLE: Final = "do not serve from this sandbox: set privacy.sandbox to the other kind (docker, bubblewrap), or update the kernel"


async def examine(kind: str, docker: DockerSettings, bubblewrap: BubblewrapSettings) -> list[Finding]:
    """Find which sandbox is used and why, whether each promise holds in a real box, and what is weaker here.

    Beside a running node the settings must name an instance and state folders of their own.
    """
    sandbox, reason = await choose(kind, docker, bubblewrap)
    found = [Finding(GROUP, "sandbox", State.OK, reason)]
    try:
        identity = await sandbox.open()
    except PandaceaError as error:
        # A hole has a row of its own below; the sentence that lists them all would say it twice.
        holes = sum(not probe.held for probe in sandbox.probes)
        detail = (
            f"{holes} of the promises below do not hold, so nothing would be served"
            if holes
            else getattr(error, "problem", error.detail)
        )
        found.append(Finding(GROUP, "sandbox environment", State.FAIL, detail, _HOLE if holes else getattr(error, "remedy", "")))
    else:
        await sandbox.close()
        found.append(Finding(GROUP, "sandbox environment", State.OK, f"{identity.kind} {identity.environment}"))
    for probe in sandbox.probes:
        state = State.OK if probe.held else State.FAIL
        found.append(Finding(GROUP, f"sandbox {probe.name}", state, probe.detail, "" if probe.held else _HOLE))
    found.extend(Finding(GROUP, "sandbox, weaker here", State.WEAKER, warning) for warning in sandbox.warnings)
    return found
