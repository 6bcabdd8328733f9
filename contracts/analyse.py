"""Run slither on the contracts as compiled, and hold its findings against the answers in `findings.json`.

    python contracts/analyse.py [--install]

Exit status 0: every finding is answered, and every answer has its finding. 1: not so; both are named. 3: slither or Node's packages
are not here; `--install` puts slither into `contracts/.slither` (it needs an older web3 than the node, so an environment of its own).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ENVIRONMENT: Final = HERE / ".slither"
SLITHER: Final = ENVIRONMENT / "bin" / "slither"
PINNED: Final = "slither-analyzer==0.11.6"
Findings = set[tuple[str, str]]


def install() -> None:
    """Make the environment, once."""
    if not SLITHER.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([ENVIRONMENT / "bin" / "pip", "install", "--quiet", PINNED], check=True)


def found() -> Findings:
    """What slither reports of our own sources: (check, function)."""
    with tempfile.TemporaryDirectory() as folder:
        source, report = Path(folder) / "input.json", Path(folder) / "report.json"
        with source.open("w", encoding="utf-8") as file:
            subprocess.run(["node", "compile.js", "--standard-json"], cwd=HERE, stdout=file, check=True)
        framework = ["--compile-force-framework", "solc-json", "--solc", "./solc"]
        command = [str(SLITHER), str(source), *framework, "--filter-paths", "test/|@openzeppelin", "--json", str(report)]
        # Its own exit status counts findings, answered or not.
        run = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        if not report.exists():
            sys.exit(f"slither wrote no report:\n{run.stderr[-4000:]}")
        told = json.loads(report.read_text(encoding="utf-8"))
    if not told["success"]:
        sys.exit(f"slither failed: {told['error']}")
    return {(one["check"], _where(one["elements"][0])) for one in told["results"].get("detectors", [])}


def _where(element: dict[str, object]) -> str:
    specific = element["type_specific_fields"]
    assert isinstance(specific, dict)
    return f"{specific['parent']['name']}.{specific.get('signature', element['name'])}"


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description="Static analysis of the contracts.")
    parser.add_argument("--install", action="store_true", help="install slither into contracts/.slither when it is missing")
    if parser.parse_args().install:
        install()
    for there, what in (
        (SLITHER.exists(), "slither"),
        (shutil.which("node"), "Node"),
        ((HERE / "node_modules" / "solc").exists(), "solc"),
    ):
        if not there:
            sys.stderr.write(f"{what} is not here: run `npm --prefix contracts ci` and `python contracts/analyse.py --install`\n")
            sys.exit(3)
    answers = json.loads((HERE / "findings.json").read_text(encoding="utf-8"))
    answered: Findings = {(one["check"], one["where"]) for one in answers if one["answer"]}
    findings = found()
    for check, where in sorted(findings - answered):
        sys.stderr.write(f"not answered: {check} in {where}\n")
    for check, where in sorted(answered - findings):
        sys.stderr.write(f"answered but no longer found: {check} in {where}\n")
    if findings != answered:
        sys.exit(1)
    sys.stdout.write(f"slither: {len(findings)} findings, all answered in contracts/findings.json\n")


if __name__ == "__main__":
    main()
