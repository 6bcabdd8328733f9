"""One script, two places: with `import syft`, `sy.resolve_dataset_file_path("asset")` gives the private file here and the mock at home.

Everything happens at the first `import syft`, so a script that never imports it pays nothing. The private half of each data set is a
link to the descriptor the node handed over: the descriptor is the boundary, never syft's permissions.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

WORD: Final = b"syft"
FOLDER: Final = "/tmp/syftbox"  # noqa: S108 - the box's own
EMAIL: Final = "earner@sandbox.invalid"

_KEPT: dict[str, tuple[int, str]] = {}


def keep(entry: dict[str, Any], descriptor: int) -> None:
    """Keep a copy of a table's descriptor, because the script's text mentions syft."""
    _KEPT[entry["asset_id"]] = (os.dup(descriptor), entry["format"])


def prepare() -> dict[str, int]:
    """Arrange the folder for the first import of syft; return descriptors by asset id (empty when none was kept)."""
    if _KEPT:
        home = {"SYFTBOX_FOLDER": FOLDER, "SYFTBOX_EMAIL": EMAIL, "SYFT_IS_IN_JOB": "true"}
        os.environ.update(home)
        sys.meta_path.insert(0, _AtImport())
    return {asset: descriptor for asset, (descriptor, _) in _KEPT.items()}


class _AtImport(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname.partition(".")[0] in {"syft", "syft_datasets"}:
            sys.meta_path.remove(self)
            _make_datasets()
        return None


def _make_datasets() -> None:
    from syft_datasets.dataset_manager import SyftDatasetManager  # type: ignore[import-not-found,unused-ignore]

    Path(FOLDER).mkdir()
    datasets = SyftDatasetManager(Path(FOLDER), EMAIL)
    for asset, (descriptor, form) in _KEPT.items():
        stand_in = Path("/tmp", f"{asset}.{form}")  # noqa: S108 - the box's own
        stand_in.write_text("stands in for the table\n", encoding="ascii")
        made = datasets.create(asset, mock_path=stand_in, private_path=stand_in)
        stand_in.unlink()
        private = Path(made.private_dir, stand_in.name)
        private.unlink()
        private.symlink_to(f"/proc/self/fd/{descriptor}")
