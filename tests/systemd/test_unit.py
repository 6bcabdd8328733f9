"""The service unit is valid and hardened."""

from __future__ import annotations

import configparser
import shlex
import subprocess
from pathlib import Path

from pandacea.sandbox.bubblewrap.namespaces import PROBE_COMMAND
from tests.prerequisites import ROOT, find_program

UNIT = ROOT / "systemd" / "pandacea.service"


class UnitFile(configparser.ConfigParser):
    """A unit file: the names of its settings have upper and lower case."""

    def optionxform(self, optionstr: str) -> str:
        """Keep the case of names."""
        return optionstr


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, once the command it names exists."""
    command = tmp_path / "pandacea"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    text = UNIT.read_text().replace("/opt/pandacea/.venv/bin/pandacea", str(command))
    copy = tmp_path / "pandacea.service"
    copy.write_text(text)
    done = subprocess.run(
        [find_program("systemd-analyze", "systemd"), "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")


BELOW_PROC = {
    "ProtectKernelTunables": "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro,nosuid,nodev,noexec /proc/sys",
    "ProtectKernelLogs": "mount --bind /dev/null /proc/kmsg",
}
"""What systemd mounts below /proc for a setting (systemd.exec(5), namespace.c)."""


def test_bubblewrap_makes_its_sandbox_under_the_unit() -> None:
    """With the mounts that the unit's settings make below /proc, a user namespace gets a /proc of its own."""
    unit = UnitFile(strict=False, interpolation=None)
    unit.read_string(UNIT.read_text())
    mounts = [command for setting, command in BELOW_PROC.items() if unit["Service"].get(setting, "no") == "yes"]
    inside = " && ".join([*mounts, f"exec {shlex.join(PROBE_COMMAND)}"])
    find_program("bwrap", "bubblewrap")
    view = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run([*view, "sh", "-c", inside], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_hardened_and_gives_up_on_a_bad_configuration() -> None:
    """Exit status 2 means a bad configuration: a restart would not help."""
    unit = UnitFile(strict=False, interpolation=None)
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["RestartPreventExitStatus"] == "2"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
