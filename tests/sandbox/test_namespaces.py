"""Where bubblewrap may not make its box, the operator reads what to run."""

from __future__ import annotations

import pytest

from pandacea.errors import Broken
from pandacea.sandbox import namespaces


def test_on_ubuntu_the_fix_is_an_apparmor_profile_for_bubblewrap_alone() -> None:
    """Not the switch that would allow it to every program."""
    said = namespaces.explain("setting up uid map: Permission denied", restricted=True, off=False)
    assert "/etc/apparmor.d/bwrap" in said
    assert "apparmor_restrict_unprivileged_userns=0" not in said


def test_where_the_kernel_has_them_off_the_sysctl_is_named() -> None:
    """One command."""
    assert "sudo sysctl kernel.unprivileged_userns_clone=1" in namespaces.explain("x", restricted=False, off=True)


async def test_a_bubblewrap_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words, then what to do instead."""
    monkeypatch.setattr(namespaces, "PROBE", ("sh", "-c", "echo 'No permissions to create new namespace' >&2; exit 1"))
    with pytest.raises(Broken, match="No permissions to create new namespace"):
        await namespaces.probe_namespaces()
