"""The files that `pandacea init` writes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.config.load import find_placeholders
from pandacea.errors import BadConfig
from pandacea_sdk.protocol.deployment import Deployment

PRODUCTS_TEMPLATE: Final = """\
# What you lease: nothing yet. `pandacea products add data/my-table.csv` asks, shows what becomes public, and writes it here.
products: []
# By hand it is a list like this. A product without stated rules runs only code you approved, and holds every result until you looked.
# Every key: docs/products.md
#
# products:
#   - id: my-first-product
#     name: A table of mine
#     description: What it is, in which units, from when.
#     keywords: [health]
#     price: 0.02 ether
#     assets: [my-table]            # my-table.csv or my-table.parquet in this folder
#     rules:
#       policy: approved-code       # approved-code | any-code (a script may copy out what fits the output caps)
#       release: hold               # hold | auto
#       live_output: none           # none | progress | full
"""


def read_template() -> str:
    """Read the commented config.yaml, from the installed package or from the top of a source tree."""
    here = Path(__file__).resolve()
    for candidate in (here.with_name("config.yaml"), here.parents[3] / "config.yaml"):
        if candidate.is_file():
            return candidate.read_text(encoding="utf-8")
    raise BadConfig("This installation lacks its config.yaml template; install pandacea again.")


@dataclass(frozen=True, slots=True)
class InitAnswers:
    """What is known when the files are written; everything else stays a placeholder, with which a node refuses to start."""

    earner: str | None = None
    rpc_url: str | None = None
    deployment: Path | None = None
    """File of the contract's deployment record."""
    development: bool = False
    """Whether the chain is one for development."""


def write_example(folder: Path, answers: InitAnswers = InitAnswers()) -> tuple[list[Path], list[str]]:
    """Write config.yaml and data/products.yaml. Returns the files, and the keys of config.yaml that are still to be filled in.

    Raises:
        BadConfig: one of them exists already, or the record cannot be read; nothing is overwritten.
    """
    text = _fill_template(read_template(), answers, folder)
    files = {folder / "config.yaml": text, folder / "data" / "products.yaml": PRODUCTS_TEMPLATE}
    for path in files:
        if path.exists():
            raise BadConfig(f"{path} exists already; it is not overwritten.")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if path.parent == folder else 0o700)
        path.write_text(content, encoding="utf-8")
    return list(files), find_placeholders(text)


def _fill_template(text: str, answers: InitAnswers, folder: Path) -> str:
    """Replace the placeholders of the template by what is known."""
    if answers.rpc_url is not None:
        text = _replace_line(text, "rpc_url", f"rpc_url: {json.dumps(answers.rpc_url)}")
    if answers.earner is not None:
        text = _replace_line(text, "address", f"address: {json.dumps(answers.earner)}")
    if answers.deployment is not None:
        try:
            record = Deployment.read(answers.deployment)
        except (OSError, ValueError) as problem:
            raise BadConfig(f"--deployment {answers.deployment} cannot be used: {problem}.") from problem
        file = answers.deployment.resolve()
        named = file.relative_to(folder.resolve()) if file.is_relative_to(folder.resolve()) else file
        text = _replace_line(text, "chain_id", f"chain_id: {record.chain_id}")
        text = _replace_line(
            text, "contract_address", f"deployment: {json.dumps(str(named))}   # instead of contract_address and start_block"
        )
        text = _replace_line(text, "start_block", None)
    if answers.development:
        text = _replace_line(
            text, "confidence", "confidence: {confirmations: 0}\n  development: true   # a chain of your own, nothing of worth"
        )
    return text


def _replace_line(text: str, key: str, line: str | None) -> str:
    """Replace the line of a key that occurs once, or remove it (`line` is None)."""
    return re.sub(rf"(?m)^  {key}: .*\n", "" if line is None else lambda _found: f"  {line}\n", text, count=1)
