"""Writes the artifacts of a run: names are checked, sizes are counted while bytes arrive, nothing is interpreted, for all is hostile."""

from __future__ import annotations

import contextlib
import hashlib
import os
import unicodedata
from pathlib import Path
from typing import BinaryIO, Final

from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Artifact

_MAX_NAME_BYTES: Final = 1024
_MAX_PART_BYTES: Final = 255
_FORBIDDEN_CHARACTERS: Final = frozenset('\\:*?"<>|')


class ArtifactRefusedError(Exception):
    """A file may not leave the sandbox; the message names the file and the cap."""


def check_artifact_name(name: str, depth: int) -> str:
    """Return a name in NFC, relative and safe to join beneath a folder on any system. Raises ArtifactRefusedError."""
    safe = unicodedata.normalize("NFC", name)
    shown = ascii(name[:200])
    parts = safe.split("/")
    if len(safe.encode("utf-8", "replace")) > _MAX_NAME_BYTES or any(
        len(part.encode("utf-8", "replace")) > _MAX_PART_BYTES for part in parts
    ):
        raise ArtifactRefusedError(f"artifact {shown}: its name is too long")
    if len(parts) > depth:
        raise ArtifactRefusedError(f"artifact {shown}: folders nest deeper than artifact_depth={depth}")
    if any(part in {"", ".", ".."} for part in parts):
        raise ArtifactRefusedError(f"artifact {shown}: its name is not a plain relative path")
    for character in safe:
        if character in _FORBIDDEN_CHARACTERS or unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            raise ArtifactRefusedError(f"artifact {shown}: its name contains a character that is not allowed")
    return safe


class ResultsWriter:
    """Writes artifacts to a node-private folder as 0, 1, 2 ...; raises ArtifactRefusedError at the first cap exceeded.

    An OSError comes from this machine's own disk: full, out of inodes, over its quota or broken. The script is not responsible.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self._limits = folder, limits
        self._artifacts: list[Artifact] = []
        self._names: set[str] = set()
        self._total = 0
        self._file: BinaryIO | None = None
        self._name, self._size, self._left = "", 0, 0
        self._digest = hashlib.sha256()

    def begin_file(self, name: str, size: int) -> None:
        """Start the next file of `size` bytes; the previous one must be complete."""
        self._finish_file()
        limits = self._limits
        name = check_artifact_name(name, limits.artifact_depth)
        folded = name.casefold()
        if folded in self._names:
            raise ArtifactRefusedError(f"artifact {name!a}: another file has the same name on some systems")
        if len(self._artifacts) >= limits.artifact_count:
            raise ArtifactRefusedError(f"artifact {name!a}: more than artifact_count={limits.artifact_count} files")
        if not 0 <= size <= limits.artifact_bytes:
            raise ArtifactRefusedError(f"artifact {name!a}: {size} bytes exceed artifact_bytes={limits.artifact_bytes}")
        self._total += size
        if self._total > limits.artifacts_bytes:
            raise ArtifactRefusedError(f"artifact {name!a}: the files together exceed artifacts_bytes={limits.artifacts_bytes}")
        self._names.add(folded)
        self._name, self._size, self._left = name, size, size
        self._digest = hashlib.sha256()
        self._file = (self.folder / str(len(self._artifacts))).open("xb")

    def write_bytes(self, data: bytes) -> None:
        """Append bytes to the current file."""
        self._left -= len(data)
        if self._file is None or self._left < 0:
            raise ArtifactRefusedError(f"artifact {self._name!a}: more bytes arrived than were announced")
        self._digest.update(data)
        if data.count(0) == len(data):
            self._file.seek(
                len(data), os.SEEK_CUR
            )  # zeros stay a hole: what took no memory in the sandbox takes no disk of the node
        else:
            self._file.write(data)

    def finish(self) -> tuple[Artifact, ...]:
        """Return every artifact. Raises ArtifactRefusedError when the last one is incomplete."""
        self._finish_file()
        return tuple(self._artifacts)

    def discard(self) -> None:
        """Remove everything written so far."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # the disk does not take the rest, and all of it is deleted anyway
                file.close()
        for path in self.folder.iterdir():
            path.unlink()
        self._artifacts.clear()

    def _finish_file(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        file.truncate(self._size - self._left)
        file.close()
        path = Path(file.name)
        if self._left:
            raise ArtifactRefusedError(f"artifact {self._name!a}: {self._left} announced bytes did not arrive")
        self._artifacts.append(Artifact(self._name, path, self._size, self._digest.hexdigest()))
