"""Decode, check and save artifacts. The Earner may be hostile, so names and bytes are checked before anything is written."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import json
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pandacea_sdk.errors import UntrustedResult, usage_error

MAX_DEPTH: Final = 8
"""Segments of an artifact's name."""
MAX_SEGMENT_BYTES: Final = 200
"""Of UTF-8."""
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"|?*\\\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]')
# Names that Windows opens as devices, whatever their ending.
_DEVICES: Final = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)


def decode_artifact(text: str) -> bytes:
    """Decode an artifact from the base64 that an answer carries.

    Raises:
        UntrustedResult: it is not standard base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise UntrustedResult("bad-answer", "The artifact is not base64.") from None


def check_artifact_name(name: str) -> tuple[str, ...]:
    """Check that an artifact's name is safe on every common system; returns its path segments.

    Raises:
        UntrustedResult: `unsafe-artifact`: absolute, `..`, a device name, control or bidirectional characters, or too deep.
    """
    segments = tuple(name.split("/"))
    bad = len(segments) > MAX_DEPTH or any(
        not segment
        or len(segment.encode("utf-8", "surrogatepass")) > MAX_SEGMENT_BYTES
        or segment in {".", ".."}
        or segment[-1] in ". "
        or segment[0] == " "
        or _FORBIDDEN.search(segment)
        or _DEVICES.fullmatch(segment)
        or any("\ud800" <= char <= "\udfff" for char in segment)
        for segment in segments
    )
    if bad:
        raise UntrustedResult("unsafe-artifact", f"The artifact name {name[:80]!a} is not safe to write; nothing was written.")
    return segments


def save_artifacts(artifacts: Mapping[str, bytes | str], folder: str | os.PathLike[str]) -> list[Path]:
    """Write artifacts (bytes, or base64 as an answer carries them) below `folder`; returns the files.

    Every name is checked before the first file is written. Nothing is overwritten and no link is followed below `folder`.

    Raises:
        UntrustedResult: a name is unsafe, or two names are one file on some systems.
        UsageError: a file exists.
        OSError: the disk did not take them.
    """
    planned: dict[str, tuple[tuple[str, ...], bytes]] = {}
    for name, content in artifacts.items():
        segments = check_artifact_name(name)
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in planned:
            raise UntrustedResult("unsafe-artifact", f"Two artifacts are named like {name!a}; nothing was written.")
        planned[folded] = segments, decode_artifact(content) if isinstance(content, str) else content
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    for segments, _ in planned.values():
        if os.path.lexists(root.joinpath(*segments)):
            raise usage_error(f"{root.joinpath(*segments)} exists; nothing was written. Name an empty folder.")
    return [_write(root, segments, content) for segments, content in planned.values()]


def load_weights(content: bytes, **options: Any) -> Any:
    """Load a PyTorch checkpoint without running code from it: `torch.load` with weights_only, on the CPU unless `options` say otherwise.

    Raises:
        UsageError: torch is missing, or older than 2.6, whose weights_only can be bypassed (CVE-2025-32434).
    """
    try:
        import torch
    except ImportError:
        raise usage_error("load_weights needs PyTorch: pip install 'torch>=2.6'.") from None
    found = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if found is None or (int(found[1]), int(found[2])) < (2, 6):
        raise usage_error(f"torch {torch.__version__} cannot load untrusted weights safely: pip install 'torch>=2.6'.")
    if options.pop("weights_only", True) is not True:
        raise usage_error("load_weights is for weights only; a pickle from somebody else runs their code.")
    return torch.load(io.BytesIO(content), **({"map_location": "cpu"} | options), weights_only=True)


def load_weights_named(name: str, content: bytes, **options: Any) -> Any:
    """Load weights by their file's ending without running code: `.safetensors`, `.npz`, `.npy`, `.json`; others as `load_weights`.

    Arrays come as numpy's, by their names.

    Raises:
        UsageError: the library that reads this ending is missing, or the bytes are not what the ending says.
    """
    ending = name.rpartition(".")[2].lower()
    try:
        if ending == "safetensors":
            from safetensors.numpy import load

            return load(content)
        if ending in {"npz", "npy"}:
            import numpy as np

            found = np.load(io.BytesIO(content), allow_pickle=False)
            return dict(found) if ending == "npz" else found
        if ending == "json":
            return json.loads(content)
    except ImportError as error:
        raise usage_error(f"{name!a} needs {error.name}: pip install {str(error.name).partition('.')[0]}.") from None
    except Exception as error:  # each library has errors of its own
        raise usage_error(f"{name!a} cannot be read as .{ending}: {error}") from error
    return load_weights(content, **options)


def _write(root: Path, segments: tuple[str, ...], content: bytes) -> Path:
    """Create each folder and then the file relative to its parent's descriptor, so that a link placed there meanwhile is not followed."""
    parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for segment in segments[:-1]:
            with contextlib.suppress(FileExistsError):  # made for an earlier artifact; opened below only if it is a real folder
                os.mkdir(segment, dir_fd=parent)
            child = os.open(segment, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            os.close(parent)
            parent = child
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(segments[-1], flags, 0o666, dir_fd=parent), "wb") as out:
            out.write(content)
    finally:
        os.close(parent)
    return root.joinpath(*segments)
