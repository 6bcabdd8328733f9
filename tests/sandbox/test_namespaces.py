"""Where bubblewrap may not create its sandbox, the operator reads what to run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pandacea.errors import Broken
from pandacea.sandbox.bubblewrap import namespaces
from tests.prerequisites import ROOT

DOCKER = "set privacy.sandbox: docker"


def advice(restricted: bool = False, off: bool = False, none_allowed: bool = False) -> str:
    """What is said for one state of the switches."""
    return namespaces.namespace_remedy(restricted_by_apparmor=restricted, switched_off=off, none_allowed=none_allowed)


def test_on_ubuntu_the_fix_is_an_apparmor_profile_for_bubblewrap_alone() -> None:
    """Not the switch that would allow it to every program."""
    said = advice(restricted=True)
    assert "/etc/apparmor.d/bwrap" in said
    assert "kernel.apparmor_restrict_unprivileged_userns is 1" in said
    assert "apparmor_restrict_unprivileged_userns=0" not in said
    assert DOCKER in said


@pytest.mark.parametrize(
    ("switch", "setting"), [("off", "kernel.unprivileged_userns_clone=1"), ("none_allowed", "user.max_user_namespaces=15000")]
)
def test_where_the_kernel_has_them_off_the_setting_is_named(switch: str, setting: str) -> None:
    """With the command that sets it for good, and Docker as the other way."""
    said = advice(**{switch: True})
    assert f"echo {setting} | sudo tee /etc/sysctl.d/" in said
    assert "sudo sysctl --system" in said
    assert DOCKER in said


def test_with_no_switch_to_blame_docker_is_named() -> None:
    """In a container, for example."""
    assert DOCKER in advice()


def test_on_a_machine_that_allows_no_user_namespaces() -> None:
    """A real one, as far as a process can tell: the limit is of a user namespace, and this test makes one where it is 0."""
    program = (
        "import asyncio\nfrom pandacea.sandbox.bubblewrap.namespaces import probe_namespaces\nfrom pandacea.errors import Broken\n"
        "try:\n    asyncio.run(probe_namespaces())\nexcept Broken as error:\n    print(error)\n"
    )
    script = 'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"'
    line = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "bubblewrap cannot create a sandbox here" in done.stdout, done.stdout + done.stderr
    assert "user.max_user_namespaces is 0" in done.stdout
    assert "echo user.max_user_namespaces=15000" in done.stdout
    assert DOCKER in done.stdout


@pytest.mark.parametrize(
    ("switch", "value", "said"),
    [
        ("RESTRICTED_BY_APPARMOR", "1", "/etc/apparmor.d/bwrap"),
        ("SWITCHED_OFF", "0", "kernel.unprivileged_userns_clone=1"),
        ("MAX_NAMESPACES", "0", "user.max_user_namespaces=15000"),
    ],
)
async def test_the_switches_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, switch: str, value: str, said: str) -> None:
    """Each where its system keeps it."""
    monkeypatch.setattr(namespaces, "PROBE_COMMAND", ("false",))
    for name in ("RESTRICTED_BY_APPARMOR", "SWITCHED_OFF", "MAX_NAMESPACES"):
        monkeypatch.setattr(namespaces, name, tmp_path / name)
    (tmp_path / switch).write_text(f"{value}\n")
    with pytest.raises(Broken) as caught:
        await namespaces.probe_namespaces()
    assert said in caught.value.remedy


async def test_a_bubblewrap_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words, then what to do instead."""
    monkeypatch.setattr(namespaces, "PROBE_COMMAND", ("sh", "-c", "echo 'No permissions to create new namespace' >&2; exit 1"))
    with pytest.raises(Broken, match="No permissions to create new namespace"):
        await namespaces.probe_namespaces()
