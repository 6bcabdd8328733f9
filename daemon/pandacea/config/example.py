"""The files that an Earner starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pandacea.errors import BadConfig

PRODUCTS: Final = """\
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


def config_text() -> str:
    """The commented config.yaml: inside an installed package, or at the top of a source tree."""
    here = Path(__file__).resolve()
    for candidate in (here.with_name("config.yaml"), here.parents[3] / "config.yaml"):
        if candidate.is_file():
            return candidate.read_text(encoding="utf-8")
    raise BadConfig("This installation lacks its config.yaml template; install pandacea again.")


def write_example(folder: Path) -> list[Path]:
    """Write config.yaml and data/products.yaml.

    Raises:
        BadConfig: one of them exists already; nothing is overwritten.
    """
    files = {folder / "config.yaml": config_text(), folder / "data" / "products.yaml": PRODUCTS}
    for path in files:
        if path.exists():
            raise BadConfig(f"{path} exists already; it is not overwritten.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if path.parent == folder else 0o700)
        path.write_text(text, encoding="utf-8")
    return list(files)
