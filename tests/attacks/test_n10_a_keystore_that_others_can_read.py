"""A local user reads the node's keystore, which another program made readable, and tries passphrases at leisure.

The passphrase's file was refused when others can read it; the keystore, of which docs/security.md says the same, was not.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from pandacea import keys
from pandacea.app import factories
from pandacea.errors import BadConfig

PASSPHRASE = "correct horse battery"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_keystore_that_others_can_read_opens_no_node(tmp_path: Path, mode: int) -> None:
    """As it was played; the sentence says what to run, and nothing of the passphrase. Private again, it opens."""
    file = tmp_path / "operator.json"
    address = keys.create_keystore(file, PASSPHRASE)
    file.chmod(mode)
    config: Any = SimpleNamespace(earner=SimpleNamespace(keystore=file, passphrase=SecretStr(PASSPHRASE)))
    with pytest.raises(BadConfig, match=f"chmod 600 {file}") as refused:
        factories.unlock_signer(config)
    assert PASSPHRASE not in str(refused.value)
    file.chmod(0o600)
    assert factories.unlock_signer(config).address == address
