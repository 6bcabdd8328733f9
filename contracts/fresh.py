"""Are the checked-in artifacts what the sources compile to?

    python contracts/fresh.py

Everywhere: the sources' digests against those the artifacts carry. With Node: a fresh compile by the pinned compiler, which must change
nothing. Exit status 1 when something is stale, with its name and what to run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
PUBLISHED: Final = HERE.parent / "daemon" / "pandacea_sdk" / "protocol" / "abi"


def artifacts() -> list[Path]:
    """Every artifact that `compile.js` writes."""
    return sorted([*PUBLISHED.glob("*.json"), *(HERE / "test" / "artifacts").glob("*.json")])


def edited(artifact: Path) -> list[str]:
    """The sources of an artifact that are not as they were when it was compiled."""
    sources: dict[str, str] = json.loads(artifact.read_text(encoding="utf-8"))["sources"]
    return [name for name, digest in sources.items() if not _is(HERE / name, digest)]


def _is(source: Path, digest: str) -> bool:
    return source.exists() and hashlib.sha256(source.read_bytes()).hexdigest() == digest


def main() -> None:
    """Check, as far as this machine can."""
    stale = {artifact.name: names for artifact in artifacts() if (names := edited(artifact))}
    for name, names in stale.items():
        sys.stderr.write(f"{name} is older than {', '.join(names)}; run `make contracts` and commit the result\n")
    if stale:
        sys.exit(1)
    if shutil.which("npm") is None or shutil.which("node") is None:
        sys.stdout.write("contracts: sources unchanged since they were compiled (no Node here for a fresh compile)\n")
        return
    if not (HERE / "node_modules" / "solc").exists():
        subprocess.run(["npm", "ci", "--silent", "--no-fund", "--no-audit"], cwd=HERE, check=True)
    sys.exit(subprocess.run(["node", "compile.js", "--check"], cwd=HERE, check=False).returncode)


if __name__ == "__main__":
    main()
