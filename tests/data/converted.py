"""Run a guest's conversion in this process, and read its table the way a script gets it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pandacea.sandbox.guest import convert, load_frame


class _NoNode:
    """A node that reads nothing."""

    def sendmsg(self, _parts: object) -> None:
        """Drop a report of progress."""


@dataclass(frozen=True)
class Converted:
    """`report`: of the conversion; `frame`: what a script gets, None when the file was refused."""

    report: dict[str, Any]
    frame: Any
    table: Path


def convert_file(source: Path, form: str, folder: Path, **header: Any) -> Converted:
    """Convert `source` into `folder`; `header` changes the request (`piece_bytes`, `keep`, `drop`, `table` ...)."""
    caps = {"table_bytes": 1 << 40, "columns": 10_000, "memory_bytes": 1 << 30} | header.pop("caps", {})
    asked = {
        "kind": "convert",
        "format": form,
        "separator": ",",
        "table": None,
        "keep": None,
        "drop": [],
        "types": None,
        "nan": False,
        "look": False,
        "piece_bytes": 1 << 24,
        "caps": caps,
    } | header
    number = len(list(folder.glob("*.arrow")))
    paths = [folder / f"{number}.scratch", folder / f"{number}.arrow"]
    outputs = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600) for path in paths]
    descriptor = os.open(source, os.O_RDONLY)
    try:
        report = convert._convert(cast("socket.socket", _NoNode()), asked, descriptor, outputs)
    finally:
        for one in (descriptor, *outputs):
            os.close(one)
    refused = "refused" in report or asked["look"]
    frame = None if refused else load_frame.load_frame(os.open(paths[1], os.O_RDONLY), "arrow")
    return Converted(report, frame, paths[1])
