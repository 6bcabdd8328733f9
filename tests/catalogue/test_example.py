"""The files of `pandacea init`: a node that starts from them offers nothing that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandacea.catalogue.products_file import read_products
from pandacea.config import load_config
from pandacea.config.example import InitAnswers, write_example
from pandacea.domain.product import Policy, Release
from pandacea.errors import BadConfig
from pandacea_sdk.protocol.deployment import Deployment


def test_nothing_is_offered_before_the_earner_says_so(tmp_path: Path) -> None:
    """The first run of an unedited example serves an empty catalogue instead of looking for a table that nobody has."""
    write_example(tmp_path)
    assert read_products(tmp_path / "data") == []


def test_its_comment_is_a_product_that_can_be_taken_over(tmp_path: Path) -> None:
    """Uncommented and with its table there it is read, under the strictest rules; without the table the answer names the file."""
    write_example(tmp_path)
    path = tmp_path / "data" / "products.yaml"
    example = path.read_text().partition("#\n")[2]
    path.write_text("".join(f"{line.removeprefix('# ')}\n" for line in example.splitlines()))
    with pytest.raises(BadConfig, match="my-table"):
        read_products(tmp_path / "data")
    (tmp_path / "data" / "my-table.csv").write_text("x\n1\n")
    (product,) = read_products(tmp_path / "data")
    assert (product.product_id, product.rules.policy, product.rules.release) == (
        "my-first-product",
        Policy.APPROVED_CODE,
        Release.HOLD,
    )


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Not even one of the two files."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "products.yaml").write_text("products: []\n")
    with pytest.raises(BadConfig, match="exists already"):
        write_example(tmp_path)
    assert not (tmp_path / "config.yaml").exists()


def test_what_is_known_is_filled_in(tmp_path: Path) -> None:
    """With all of it given the files start a node; what is not given is named."""
    _, missing = write_example(tmp_path / "none")
    assert missing == ["blockchain.rpc_url", "blockchain.chain_id", "blockchain.contract_address", "earner.address"]
    Deployment(7, "0x" + "12" * 20, 3, "0x" + "34" * 32).write(tmp_path / "deployment.json")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "passphrase").touch(mode=0o600)
    answers = InitAnswers("0x" + "56" * 20, "http://127.0.0.1:8545", tmp_path / "deployment.json", development=True)
    _, missing = write_example(tmp_path, answers)
    assert missing == []
    config = load_config(tmp_path / "config.yaml", {})
    assert config.earner.address == "0x" + "56" * 20
    assert [endpoint.url for endpoint in config.blockchain.rpc_url] == ["http://127.0.0.1:8545"]
    assert (config.blockchain.deployment, config.blockchain.contract_address) == (tmp_path / "deployment.json", None)
    assert (config.blockchain.chain_id, config.blockchain.development) == (7, True)
