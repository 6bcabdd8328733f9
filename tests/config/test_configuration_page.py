"""docs/configuration.md: its tables are what the fields' docstrings, types, bounds and defaults yield."""

from __future__ import annotations

import pytest

from tools.configuration_page import PAGE, render_page


def test_the_page_is_what_its_generator_yields() -> None:
    """Whoever changes a field runs `python tools/configuration_page.py`."""
    text = PAGE.read_text(encoding="utf-8")
    assert render_page(text) == text


def test_types_bounds_units_and_defaults_come_from_the_fields() -> None:
    """One row of each kind, as an operator reads it."""
    text = PAGE.read_text(encoding="utf-8")
    for row in (
        "| `poll_seconds` | seconds, 0.05 to 300 | 1 | ",
        "| `workers` | `auto` or integer, 1 to 64 | `auto` | ",
        "| `results_mb_per_spender` | MiB, 1 or more | 1024 | ",
        "| `rpc_url` | URL or `{url:, operator:}`, or a list of them | required | ",
        "| `contract_wallets` | list of addresses | none | ",
    ):
        assert row in text


def test_a_page_without_its_marker_is_refused() -> None:
    """The prose above it would be lost."""
    with pytest.raises(ValueError, match="put it where the tables begin"):
        render_page("# Configuration")
