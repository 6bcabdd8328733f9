"""Mock rows on the Spender's machine: checked against the signed product, saved as CSV, and offered to syft under the tables' names.

A script is written and tried locally and then sent unchanged: `sy.resolve_dataset_file_path("patients")` is the mock here and the
private table in the Earner's sandbox. Only CSV and JSON are read from a node; what syft serves is written here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from pandacea_sdk.artifacts import save_artifacts
from pandacea_sdk.errors import NodeError, UntrustedResult, usage_error
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject

DATASITE_OWNER: Final = "earner@pandacea.invalid"
"""The datasite's owner, as scripts see it here and in the sandbox."""
PRODUCT_FILE: Final = "product.json"


def mock_targets(product: JsonMapping) -> dict[str, tuple[str, str]]:
    """List a product's mocks: asset id -> (path on the node, sha-256).

    Raises:
        NodeError: the product has no mock, or its description does not have the expected shape.
    """
    try:
        found = {
            str(asset["asset_id"]): (
                f"/api/v1/products/{product['productId']}/assets/{asset['asset_id']}/mock.csv",
                str(asset["mock"]["sha256"]),
            )
            for asset in product["document"]["assets"]
            if "mock" in asset
        }
    except (KeyError, TypeError):
        raise NodeError("bad-answer", "The node's description of the product does not have the expected shape.") from None
    if not found:
        raise NodeError("bad-answer", "This product offers no mock rows.")
    return found


def check_mock(asset_id: str, content: bytes, sha256: str) -> bytes:
    """Check a mock against the sha-256 in the product's signed document, and return it.

    Raises:
        UntrustedResult: it is another one.
    """
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UntrustedResult("bad-answer", f"The mock of {asset_id!a} is not the one that the product's document names.")
    return content


def save_mock_files(product: JsonMapping, mocks: Mapping[str, bytes], folder: str | os.PathLike[str]) -> list[Path]:
    """Write `<asset_id>_mock.csv` files and the product's description; returns the CSV files. Nothing is overwritten."""
    described = json.dumps(product, indent=1).encode()
    files = {f"{asset_id}_mock.csv": content for asset_id, content in mocks.items()}
    return save_artifacts({PRODUCT_FILE: described, **files}, folder)[1:]


def load_mock_frames(folder: str | os.PathLike[str]) -> JsonObject:
    """Read saved mocks as DataFrames with the types of the private tables: asset id -> frame. Needs pandas.

    Raises:
        UsageError: pandas is missing, or the folder holds no saved mocks.
    """
    place = Path(folder)
    try:
        product = json.loads((place / PRODUCT_FILE).read_text(encoding="utf-8"))
        schemas = {asset["asset_id"]: asset["schema"] for asset in product["document"]["assets"] if "mock" in asset}
    except (OSError, ValueError, KeyError, TypeError):
        raise usage_error(f"{place} holds no saved mocks; client.save_mocks(product_id, folder) writes them.") from None
    return {asset_id: read_frame(place / f"{asset_id}_mock.csv", schema) for asset_id, schema in schemas.items()}


def read_frame(file: Path | BytesIO, schema: Sequence[JsonMapping]) -> Any:
    """Read mock rows as a DataFrame with the types of the private table. Needs pandas.

    Raises:
        UsageError: pandas is missing.
    """
    try:
        import pandas as pd
    except ImportError:
        raise usage_error("Mock frames need pandas: pip install pandas pyarrow.") from None
    texts = pd.read_csv(file, dtype="str", keep_default_na=False, na_values=[""])
    return texts.assign(**{one["name"]: _typed(texts[one["name"]], one["type"]) for one in schema})


def find_schema(product: JsonMapping, asset_id: str) -> list[JsonMapping]:
    """Find the columns of a table in a product's description.

    Raises:
        UsageError: the product has no such table with mock rows; with those that it has.
    """
    targets = mock_targets(product)
    if asset_id not in targets:
        raise usage_error(f"{product['productId']!a} has no table {asset_id!a} with mock rows; it has {', '.join(targets)}.")
    try:
        found: list[JsonMapping] = next(one["schema"] for one in product["document"]["assets"] if one["asset_id"] == asset_id)
    except (KeyError, TypeError):
        raise NodeError("bad-answer", "The node's description of the product does not have the expected shape.") from None
    return found


def _typed(texts: Any, kind: str) -> Any:
    import pandas as pd

    if kind.startswith("category["):
        return texts.astype("category")
    if kind == "bool":
        truths = texts.map({"True": True, "False": False})
        return truths if truths.isna().any() else truths.astype("bool")
    if kind.startswith(("int", "uint")):
        return texts.astype("float64") if texts.isna().any() else texts.astype(kind)
    if kind.startswith("float"):
        return texts.astype(kind)
    if kind.startswith(("timestamp", "date")):
        return pd.to_datetime(texts)
    return texts


def offer_to_syft(folder: str | os.PathLike[str], syftbox: str | os.PathLike[str]) -> dict[str, str]:
    """Make a SyftBox folder whose data sets are the saved mocks; returns the environment variables with which a script finds it.

    Each data set is a Feather file, as in the sandbox: read it with `pandas.read_feather`. Needs syft, pandas and pyarrow.

    Raises:
        UsageError: a package is missing, the folder holds no mocks, or `syftbox` holds something else.
    """
    try:
        from syft_datasets.dataset_manager import SyftDatasetManager
    except ImportError:
        raise usage_error("syft is not installed: pip install syft pandas pyarrow.") from None
    box = Path(syftbox)
    if box.exists() and any(box.iterdir()) and not (box / DATASITE_OWNER).is_dir():
        raise usage_error(f"{box} is neither empty nor a SyftBox that this function made; name another folder.")
    shutil.rmtree(box / DATASITE_OWNER, ignore_errors=True)
    (box / DATASITE_OWNER).mkdir(parents=True)
    manager = SyftDatasetManager(box, DATASITE_OWNER)
    for asset_id, frame in load_mock_frames(folder).items():
        mock, nothing = box / f"{asset_id}.feather", box / "the private table stays with its Earner"
        frame.to_feather(mock)
        nothing.touch()
        manager.create(name=asset_id, mock_path=mock, private_path=nothing, summary="Mock rows")
        mock.unlink()
        nothing.unlink()
    return {"SYFTBOX_FOLDER": str(box.resolve()), "SYFTBOX_EMAIL": DATASITE_OWNER}


__all__ = ["check_mock", "load_mock_frames", "mock_targets", "offer_to_syft", "save_mock_files"]
