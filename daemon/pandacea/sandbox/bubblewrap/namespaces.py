"""Checks by a trial that bubblewrap may create its namespaces here; where the system forbids it, the error says what to run."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from pandacea.errors import Broken

PROBE_COMMAND: Final = ("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true")
RESTRICTED_BY_APPARMOR: Final = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
SWITCHED_OFF: Final = Path("/proc/sys/kernel/unprivileged_userns_clone")
MAX_NAMESPACES: Final = Path("/proc/sys/user/max_user_namespaces")
PROBE_SECONDS: Final = 20.0

APPARMOR_FIX: Final = """\
AppArmor prevents programs from creating user namespaces on this machine (kernel.apparmor_restrict_unprivileged_userns is 1).
Allow it for bubblewrap alone:

    sudo tee /etc/apparmor.d/bwrap >/dev/null <<'END'
    abi <abi/4.0>,
    include <tunables/global>
    profile bwrap /usr/bin/bwrap flags=(unconfined) {
      userns,
      include if exists <local/bwrap>
    }
    END
    sudo systemctl reload apparmor
"""
CLONE_FIX: Final = """\
User namespaces are switched off on this machine (kernel.unprivileged_userns_clone is 0). Allow them, now and after a restart:

    echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/60-user-namespaces.conf
    sudo sysctl --system
"""
MAX_NAMESPACES_FIX: Final = """\
No user namespace may be created on this machine (user.max_user_namespaces is 0). Allow them, now and after a restart:

    echo user.max_user_namespaces=15000 | sudo tee /etc/sysctl.d/60-user-namespaces.conf
    sudo sysctl --system
"""
CONTAINER_ADVICE: Final = "in a container, bubblewrap needs the right to create namespaces"
DOCKER_ADVICE: Final = "use Docker: sudo apt-get install docker.io, build the image, and set privacy.sandbox: docker"


async def probe_namespaces() -> None:
    """Run bubblewrap once.

    Raises:
        Broken: it cannot create a sandbox here; the message says why and what to run.
    """
    process = await asyncio.create_subprocess_exec(
        *PROBE_COMMAND,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath)},  # the node's own may hold a passphrase
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), PROBE_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Broken(
            f"bubblewrap does not end within {PROBE_SECONDS:g} s here; try it by hand: {' '.join(PROBE_COMMAND)}"
        ) from None
    if process.returncode != 0:
        raise Broken(
            f"bubblewrap cannot create a sandbox here ({said.decode(errors='replace').strip()})",
            remedy=namespace_remedy(
                restricted_by_apparmor=_has_value(RESTRICTED_BY_APPARMOR, "1"),
                switched_off=_has_value(SWITCHED_OFF, "0"),
                none_allowed=_has_value(MAX_NAMESPACES, "0"),
            ),
        )


def namespace_remedy(*, restricted_by_apparmor: bool, switched_off: bool, none_allowed: bool) -> str:
    """Return what to run where AppArmor restricts user namespaces, the kernel has them switched off, or none may be created."""
    fixes = [
        fix
        for fix, wanted in ((APPARMOR_FIX, restricted_by_apparmor), (CLONE_FIX, switched_off), (MAX_NAMESPACES_FIX, none_allowed))
        if wanted
    ]
    return "\n".join([*fixes, f"Or {DOCKER_ADVICE}"]) if fixes else f"{CONTAINER_ADVICE}; or {DOCKER_ADVICE}"


def _has_value(path: Path, value: str) -> bool:
    try:
        return path.read_text(encoding="ascii").strip() == value
    except OSError:
        return False
