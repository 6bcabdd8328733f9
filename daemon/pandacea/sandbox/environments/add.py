"""Builds a new environment with more packages beside an old one, which stays: leases and replays may still need it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pandacea.errors import Broken, Refused
from pandacea.sandbox.environments.build import Environment, build_environment, public_pins, read_environment


def add_packages(current: Path, names: Sequence[str], progress: Callable[[str], None] = print) -> Environment:
    """Build `<current>-N`, the first free N: every package of `current` at its version, and `names` (PEP 508, for example `polars==1.2`).

    Point `privacy.environment` at the folder it returns. `environments.image.add_to_image` builds an image of the same packages.

    Raises:
        Refused: a name is an option or a path.
        Broken: pip finds no versions that keep the old packages as they are; the message names the unfinished folder that is left.
    """
    for name in names:
        if name.startswith(("-", ".")) or "/" in name or "\n" in name:
            raise Refused(f"{name!r} is not a package name; write NAME or NAME==VERSION")
    old = read_environment(current)
    folder = _next_free_folder(current)
    with tempfile.TemporaryDirectory(prefix="pandacea-environment-") as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text("\n".join([*public_pins(old.packages), *names]) + "\n", encoding="utf-8")
        try:
            made = build_environment(folder, requirements, progress, old.interpreter)
        except Broken as error:
            raise Broken(f"{error.detail}; the unfinished folder is {folder}") from error
    (folder / "requirements.txt").write_text("\n".join(public_pins(made.packages)) + "\n", encoding="utf-8")
    return made


def _next_free_folder(current: Path) -> Path:
    number = 2
    while (folder := current.with_name(f"{current.name}-{number}")).exists():
        number += 1
    return folder
