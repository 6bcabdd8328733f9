"""Artifacts on the Spender's machine: a hostile Earner's names and bytes do no harm."""

from __future__ import annotations

import base64
import io
import pickle
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandacea_sdk.artifacts import check_artifact_name, decode_artifact, load_weights, save_artifacts
from pandacea_sdk.errors import UntrustedResult, UsageError

BAD_NAMES = [
    "",
    "/etc/passwd",
    "../x",
    "a/../b",
    "a//b",
    "./a",
    ".",
    "a/",
    "a\\b",
    "C:x",
    "con",
    "CON.txt",
    "sub/aux",
    "lpt1.pth",
    "com¹",
    "x\0y",
    "x\ny",
    "x\x1b[31m",
    "a\u202egnp.exe",
    "a\u200bb",
    "name.",
    "name ",
    " name",
    "a*b",
    "a?b",
    "x" * 201,
    "/".join("a" * 9),
    "\ud800",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_unsafe_name_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    """Absolute, upward, device, control, bidirectional, too long or too deep: the whole answer is refused."""
    with pytest.raises(UntrustedResult) as caught:
        save_artifacts({"good.txt": b"x", name: b"y"}, tmp_path / "out")
    assert caught.value.code == "unsafe-artifact"
    assert str(caught.value).isascii()
    assert not (tmp_path / "out").exists()


def test_good_artifacts_are_written_as_named(tmp_path: Path) -> None:
    """Bytes or base64; folders are made as needed; the files are returned."""
    written = save_artifacts({"model.pth": b"\0\1", "logs/a/ü.txt": base64.b64encode(b"hi").decode()}, tmp_path / "out")
    assert [path.read_bytes() for path in written] == [b"\0\1", b"hi"]
    assert written[1] == tmp_path / "out" / "logs" / "a" / "ü.txt"


def test_nothing_is_overwritten_and_no_link_followed(tmp_path: Path) -> None:
    """An existing file, a link in its place or a link on the way: refused, what it points to is untouched."""
    out, victim = tmp_path / "out", tmp_path / "victim"
    out.mkdir()
    victim.mkdir()
    (victim / "x").write_text("old")
    (out / "file").write_text("old")
    (out / "link").symlink_to(victim / "new")
    (out / "folder").symlink_to(victim)
    for name in ("file", "link", "folder/x"):
        with pytest.raises(UsageError):
            save_artifacts({name: b"new"}, out)
    with pytest.raises(OSError):  # ELOOP or ENOTDIR, by system
        save_artifacts({"folder/y": b"new"}, out)
    assert sorted(path.name for path in victim.iterdir()) == ["x"]
    assert (victim / "x").read_text() == (out / "file").read_text() == "old"


def test_names_that_are_one_file_elsewhere_are_refused(tmp_path: Path) -> None:
    """Case or normal form alone do not tell two files apart on every system."""
    for pair in ({"A": b"", "a": b""}, {"é": b"", "e\u0301": b""}):
        with pytest.raises(UntrustedResult):
            save_artifacts(pair, tmp_path / "out")


@given(st.text(min_size=1, max_size=40))
def test_a_name_taken_as_safe_stays_below_its_folder(name: str) -> None:
    """Whatever the name: refused, or inside."""
    try:
        segments = check_artifact_name(name)
    except UntrustedResult:
        return
    base = Path("/base/out")
    assert base.joinpath(*segments).resolve().is_relative_to(base)


@pytest.mark.parametrize("text", ["*", "abc", "YQ", "YQ==\n", "Y Q==", "ä"])
def test_only_strict_base64_is_decoded(text: str) -> None:
    """Anything else is a typed error."""
    with pytest.raises(UntrustedResult):
        decode_artifact(text)
    assert decode_artifact("YQ==") == b"a"


def fake_torch(version: str, calls: list[dict[str, Any]]) -> types.ModuleType:
    module = types.ModuleType("torch")
    vars(module)["__version__"] = version

    def load(source: io.BytesIO, **options: Any) -> str:
        calls.append(options)
        return "weights"

    vars(module)["load"] = load
    return module


@pytest.mark.parametrize("version", ["2.5.1", "1.13.0+cpu", "nightly"])
def test_old_torch_is_refused_for_untrusted_weights(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Before 2.6 weights_only could be got round (CVE-2025-32434): nothing is loaded."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setitem(__import__("sys").modules, "torch", fake_torch(version, calls))
    with pytest.raises(UsageError, match=r"torch>=2\.6"):
        load_weights(pickle.dumps({}))
    assert calls == []


def test_weights_only_cannot_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """`weights_only=False` would run the Earner's code; it is refused, and True is always passed on."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setitem(__import__("sys").modules, "torch", fake_torch("2.13.0+cpu", calls))
    with pytest.raises(UsageError):
        load_weights(b"", weights_only=False)
    assert load_weights(b"") == "weights"
    assert calls == [{"map_location": "cpu", "weights_only": True}]
