"""May bubblewrap make its namespaces here? Tried by running it; where the system forbids it, the fix is printed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from pandacea.errors import Broken

PROBE: Final = ("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true")
RESTRICTED_BY_APPARMOR: Final = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
SWITCHED_OFF: Final = Path("/proc/sys/kernel/unprivileged_userns_clone")
SECONDS: Final = 20.0

APPARMOR_FIX: Final = """\
AppArmor keeps programs from making user namespaces on this machine. Allow it for bubblewrap alone:

    sudo tee /etc/apparmor.d/bwrap >/dev/null <<'END'
    abi <abi/4.0>,
    include <tunables/global>
    profile bwrap /usr/bin/bwrap flags=(unconfined) {
      userns,
      include if exists <local/bwrap>
    }
    END
    sudo systemctl reload apparmor"""
SYSCTL_FIX: Final = "User namespaces are switched off on this machine. Allow them: sudo sysctl kernel.unprivileged_userns_clone=1"


async def probe_namespaces() -> None:
    """Run bubblewrap once.

    Raises:
        Broken: it cannot make a box here; the message says why, and what to run.
    """
    process = await asyncio.create_subprocess_exec(
        *PROBE,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath)},  # the node's own may hold a passphrase
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Broken(f"bubblewrap does not end within {SECONDS:g} s here; try it by hand: {' '.join(PROBE)}") from None
    if process.returncode != 0:
        raise Broken(
            explain(said.decode(errors="replace").strip(), restricted=_is(RESTRICTED_BY_APPARMOR, "1"), off=_is(SWITCHED_OFF, "0"))
        )


def explain(said: str, *, restricted: bool, off: bool) -> str:
    """What to do about a bubblewrap that failed with `said`, where AppArmor restricts user namespaces or the kernel has them off."""
    if restricted:
        return f"bubblewrap cannot make a box here ({said}). {APPARMOR_FIX}"
    if off:
        return f"bubblewrap cannot make a box here ({said}). {SYSCTL_FIX}"
    return (
        f"bubblewrap cannot make a box here ({said}). In a container, it needs the right to make namespaces; "
        "else use a Docker engine: privacy.sandbox: docker."
    )


def _is(path: Path, value: str) -> bool:
    try:
        return path.read_text(encoding="ascii").strip() == value
    except OSError:
        return False
