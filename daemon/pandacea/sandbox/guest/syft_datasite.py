"""Make a SyftBox datasite of this computation's tables when the script imports syft.

A syft script asks for a data set's file by name instead of taking a variable. It finds a folder in which each of its tables is a data
set whose private file is the table itself (the descriptor it was given; nothing is copied). The same line at home gives the mock that
the SDK put there. A script that never imports syft pays nothing, because the import makes the folder.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from .packets import JsonObject

OWNER: Final = "earner@pandacea.invalid"
FOLDER: Final = "/tmp/syftbox"
_ENVIRONMENT: Final = {"SYFTBOX_FOLDER": FOLDER, "SYFTBOX_EMAIL": OWNER, "SYFT_IS_IN_JOB": "true"}
_SUFFIX: Final = {"arrow": ".feather", "csv": ".csv", "parquet": ".parquet"}

MARKER: Final = b"syft"
"""Only a script whose text holds this can ask for a file by name."""

_tables: dict[str, tuple[int, str]] = {}


def keep_descriptor(entry: JsonObject, descriptor: int) -> None:
    """Duplicate a table's descriptor and keep it for the datasite."""
    name = entry["asset_id"]
    if name not in _tables:
        _tables[name] = (os.dup(descriptor), _SUFFIX.get(entry["format"], ""))


def install_import_hook() -> dict[str, int]:
    """Have the first import of syft make the datasite. Returns descriptors by asset id (empty when none was kept)."""
    if _tables:
        sys.meta_path.insert(0, _Finder())
    return {name: descriptor for name, (descriptor, _) in _tables.items()}


class _Finder(importlib.abc.MetaPathFinder):
    """Makes the datasite at the first import of syft, then removes itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname in {"syft", "syft_datasets"}:
            sys.meta_path.remove(self)
            _make_datasite()
        return None


def _make_datasite() -> None:
    os.environ.update(_ENVIRONMENT)
    from syft_datasets.dataset_manager import SyftDatasetManager

    folder = Path(FOLDER)
    (folder / OWNER).mkdir(parents=True)
    manager = SyftDatasetManager(folder, OWNER)
    for name, (descriptor, suffix) in _tables.items():
        # syft copies the file that it is given. It is given an empty one, and the copy is then replaced by a link to the table.
        empty = folder / f"{name}{suffix}"
        empty.write_bytes(b"")
        made = manager.create(name=name, mock_path=empty, private_path=empty, summary="The table of this computation")
        for private in made.private_files:
            private.unlink()
            private.symlink_to(f"/proc/self/fd/{descriptor}")
        empty.unlink()
