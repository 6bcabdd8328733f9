"""What a computation left: its output, its artifacts in files, manifest and receipt; verified, saved as one file, cited."""

from __future__ import annotations

import hashlib
import html
import json
import os
import shutil
import tempfile
import weakref
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pandacea_sdk.artifacts import check_artifact_name, load_weights_named
from pandacea_sdk.errors import UntrustedResult, usage_error
from pandacea_sdk.protocol.json_types import JsonMapping
from pandacea_sdk.protocol.verify import VerifiedResult
from pandacea_sdk.scripts import Script

FIGURE_TYPES: Final = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "svg": "image/svg+xml"}
READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class RunFailure:
    """Why a run failed. `type`: the node's word; `exception`, `file` and `line`: of the script's own exception, in the Spender's file."""

    type: str
    message: str
    exception: str | None = None
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        """The place first, as a traceback's last lines have it."""
        place = "" if self.line is None else f"{self.file or 'the script'}, line {self.line}: "
        return place + (f"{self.exception}: {self.message}" if self.exception else self.message)


class ArtifactFiles(Mapping[str, bytes]):
    """Artifacts by name; each is read from its file when it is asked for."""

    def __init__(self, folder: Path, files: Mapping[str, Path]) -> None:
        """`folder`: deleted with this object, as nobody else knows of it."""
        self._files = dict(files)
        self._finalizer = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def __getitem__(self, name: str) -> bytes:
        """Read one artifact's bytes."""
        return self.path(name).read_bytes()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._files)

    def __len__(self) -> int:
        """Return the number of artifacts."""
        return len(self._files)

    def path(self, name: str) -> Path:
        """Return the file of an artifact, for libraries that read files; it goes with the result."""
        if name not in self._files:
            raise KeyError(f"{name!a}; this result has {', '.join(map(ascii, self._files)) or 'no artifacts'}")
        return self._files[name]

    def __repr__(self) -> str:
        """Show names and sizes."""
        shown = ", ".join(f"{name!a}: {path.stat().st_size:,} bytes" for name, path in self._files.items())
        return f"<artifacts {{{shown}}}>"


class RunResult:
    """The verified result of a computation. `success` False: the script failed; `error` says where, and the output is still there."""

    def __init__(
        self,
        answer: JsonMapping,
        artifacts: ArtifactFiles,
        script: Script | None,
        check: Callable[[JsonMapping], VerifiedResult] | None,
    ) -> None:
        """`answer`: the node's, without artifacts; `check`: verifies it again; None for a rehearsal, which nobody signs."""
        self.answer = answer
        self.artifacts = artifacts
        self._script = script
        self._check = check
        self.id: str = answer["computation_id"]
        self.success: bool = answer["success"]
        self.output: str = answer["results"]["output"]
        self.manifest: JsonMapping | None = answer.get("manifest")
        self.receipt: JsonMapping | None = answer.get("receipt")

    @property
    def error(self) -> RunFailure | None:
        """Why the script failed; None when it did not."""
        stated = self.answer.get("error")
        if not isinstance(stated, Mapping):
            return None
        line = stated.get("line")
        place = None if self._script is None or not isinstance(line, int) else self._script.locate(line)
        text = stated.get("exception_message") or stated.get("message") or ""
        file, own = (None, line) if place is None else place
        return RunFailure(str(stated.get("type")), str(text), stated.get("exception"), file, own)

    @property
    def figures(self) -> dict[str, bytes]:
        """The artifacts that are pictures (png, jpg, svg), by name."""
        return {name: self.artifacts[name] for name in self.artifacts if _ending(name) in FIGURE_TYPES}

    def verify(self) -> VerifiedResult:
        """Verify everything again, without asking anybody: answer, manifest and receipt, and each file's bytes.

        What the chain said when the result came is `on_chain` of the answer.

        Raises:
            UntrustedResult: its `code` says which parts contradict each other; `not-signed` for a rehearsal.
        """
        if self._check is None or self.manifest is None:
            raise UntrustedResult("not-signed", "Nobody signs a rehearsal, so there is nothing to verify.")
        verified = self._check(self.answer)
        for name in self.artifacts:
            if _sha256(self.artifacts.path(name)) != verified.manifest["artifacts"][name]["sha256"]:
                raise UntrustedResult("bytes-mismatch", f"The file of the artifact {name!a} was changed since it came.")
        return verified

    def load_weights(self, name: str, **options: Any) -> Any:
        """Load weights without running code from them: safetensors, npz, npy, JSON, or a PyTorch checkpoint with weights_only."""
        return load_weights_named(name, self.artifacts[name], **options)

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Write everything into one new zip file: answer, manifest, receipt, output, script, artifacts.

        Raises:
            UsageError: the file exists.
            UntrustedResult: an artifact's name is not safe to unpack.
        """
        path = Path(file)
        if path.exists():
            raise usage_error(f"{path} exists; nothing was written. Name another file.")
        for name in self.artifacts:
            check_artifact_name(name)
        handle, part = tempfile.mkstemp(dir=path.resolve().parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
                for name, value in (("answer", self.answer), ("manifest", self.manifest), ("receipt", self.receipt)):
                    if value is not None:
                        packed.writestr(f"{name}.json", json.dumps(value, indent=1))
                packed.writestr("output.txt", self.output)
                if self._script is not None:
                    packed.writestr("script.py", self._script.text)
                for name in self.artifacts:
                    packed.write(self.artifacts.path(name), f"artifacts/{name}")
            os.link(part, path) if hasattr(os, "link") else Path(part).rename(path)
        except FileExistsError:
            raise usage_error(f"{path} exists; nothing was written. Name another file.") from None
        finally:
            Path(part).unlink(missing_ok=True)
        return path

    def cite(self) -> str:
        """Write who ran what on which data, and how anybody can check it, for a paper's appendix.

        Raises:
            UntrustedResult: the manifest lacks what is cited.
        """
        if self.manifest is None or self.receipt is None:
            return f"Rehearsal {self.id} on mock rows, unsigned: there is nothing to cite."
        made = self.manifest
        try:
            ended = datetime.fromtimestamp(float(made["not_replayed"]["finished_at"]), UTC).strftime("%Y-%m-%d %H:%M UTC")
            tables = ", ".join(f"{one['asset_id']} (commitment {one['commitment']})" for one in made["inputs"])
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            raise UntrustedResult(
                "bad-manifest", "The manifest lacks its time or its inputs; keep it and ask the Earner."
            ) from None
        return (
            f"Computation {self.id}, ended {ended}.\n"
            f"Data: version {made['product_version']} of a product of the Earner {made['earner']}; tables: {tables or 'none'}.\n"
            f"Code: sha-256 {made['code_sha256']}; parameters: sha-256 {made['params_sha256']}.\n"
            f"Lease: {made['lease_id']} under the contract {made['contract']} on chain {made['chain_id']}.\n"
            f"Result: sha-256 of the manifest {self.answer['result_hash']}; receipt (EIP-712) signed by {self.receipt['signer']}."
        )

    def __repr__(self) -> str:
        """Show the end and the names, not the manifest."""
        state = "success" if self.success else f"failed: {self.error}"
        return f"<RunResult {self.id} {state}, {self.artifacts!r}>"

    def _repr_html_(self) -> str:
        """Show output and pictures in a notebook; whatever the node sent is text or picture, never markup."""
        parts = [f"<p><b>{html.escape(self.id)}</b>: {'success' if self.success else html.escape(f'failed: {self.error}')}</p>"]
        parts.append(f"<pre>{html.escape(self.output)}</pre>")
        for name, content in self.figures.items():
            kind = FIGURE_TYPES[_ending(name)]
            parts.append(f'<img alt="{html.escape(name)}" src="data:{kind};base64,{b64encode(content).decode()}">')
        return "\n".join(parts)


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
