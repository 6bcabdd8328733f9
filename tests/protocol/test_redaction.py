"""URLs in messages and logs show where, never with which key."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.redaction import redact_url, redact_urls_in


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://rpc.example/v3/KEY", "https://rpc.example"),
        ("http://127.0.0.1:8545/", "http://127.0.0.1:8545"),
        ("https://user:KEY@rpc.example:8546/v2?key=KEY#KEY", "https://rpc.example:8546"),
        ("https://rpc.example?key=KEY", "https://rpc.example"),
        ("https://rpc.example#KEY", "https://rpc.example"),
        ("wss://KEY@[::1]:8546/KEY", "wss://[::1]:8546"),
    ],
)
def test_a_url_is_reduced_to_where_it_leads(url: str, shown: str) -> None:
    """Scheme, host and port; alone and inside a sentence."""
    assert redact_url(url) == shown
    assert redact_urls_in(f"cannot reach {url} now") == f"cannot reach {shown} now"


def test_a_text_without_urls_stays() -> None:
    """It is returned character for character."""
    assert redact_urls_in("a / b @ c") == "a / b @ c"
