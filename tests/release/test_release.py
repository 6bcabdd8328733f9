"""`make release`: what would be published builds, installs from nothing, and says one version everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pandacea import __version__
from tests.prerequisites import ROOT


def release(checkout: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the release script with this interpreter."""
    command = ["env", f"PYTHON={sys.executable}", "sh", str(checkout / ".ci" / "release"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.timeout(900)
def test_a_release_is_built_checked_and_installed_and_its_publishing_is_only_shown(tmp_path: Path) -> None:
    """Both packages are there; the commands to publish them are printed, with their names, for a person to run."""
    done = release(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    packages = {f"pandacea-{__version__}.tar.gz", f"pandacea-{__version__}-py3-none-any.whl"}
    assert packages <= {path.name for path in tmp_path.iterdir()}
    shown = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    assert f"git push origin v{__version__}" in shown
    assert all(any(str(tmp_path / name) in line for line in shown if "upload" in line) for name in packages)


def test_a_version_that_the_changelog_does_not_head_is_refused(tmp_path: Path) -> None:
    """Nothing is built, and both versions are named."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "release").write_bytes((ROOT / ".ci" / "release").read_bytes())
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "9.9.9"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [9.9.8] - 2026-01-01\n\n## [9.9.9] - 2025-01-01\n")
    done = release(tmp_path, tmp_path / "dist")
    assert done.returncode == 1
    assert "9.9.9" in done.stderr
    assert "[9.9.8]" in done.stderr
    assert list((tmp_path / "dist").iterdir()) == []
