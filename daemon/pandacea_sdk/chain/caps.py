"""What a transaction may cost: fee, gas and tip are held against caps of our own, for an endpoint may suggest anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pandacea_sdk.chain.errors import FeeAboveCap
from pandacea_sdk.errors import usage_error
from pandacea_sdk.protocol.contract import BadValueError, check_number
from pandacea_sdk.protocol.json_types import JsonMapping

MAX_FEE: Final = 10**16
"""Wei for one transaction's gas: 0.01 of the native coin."""
MAX_GAS: Final = 400_000
"""Units for one call of the contract; the dearest takes about 150,000."""
MAX_DEPLOY_FEE: Final = 10**17
MAX_DEPLOY_GAS: Final = 8_000_000
LEAST_TIP_CAP: Final = 2 * 10**9
"""Wei per gas: a tip up to this is taken whatever the base fee is."""


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that one transaction may cost. `max_fee` in wei, `max_gas` in units, `max_tip` in wei per gas (None: see `price_gas`)."""

    max_fee: int = MAX_FEE
    max_gas: int = MAX_GAS
    max_tip: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no whole number.

        Raises:
            UsageError: names the value.
        """
        try:
            for name, value in (("max_fee", self.max_fee), ("max_gas", self.max_gas), ("max_tip", self.max_tip or 0)):
                check_number(value, 256, name)
        except BadValueError as problem:
            raise usage_error(f"{problem}.") from None

    def check_gas(self, action: str, gas: int) -> None:
        """Refuse a gas limit above `max_gas`.

        Raises:
            FeeAboveCap: names both.
        """
        if gas > self.max_gas:
            raise FeeAboveCap(action, "gas", gas, self.max_gas, f"Ask another endpoint; pass max_gas={gas} if this chain needs it")

    def price_legacy_gas(self, action: str, gas: int, price: int) -> Mapping[str, int]:
        """Return the price of gas on a chain without EIP-1559.

        Raises:
            FeeAboveCap: the fee would be above `max_fee`.
        """
        self._check_fee(action, gas * price)
        return {"gasPrice": price}

    def price_gas(self, action: str, gas: int, base: int, tip: int) -> JsonMapping:
        """Return the EIP-1559 fields for a base fee and a tip, in wei per gas.

        The price may rise to twice the base fee (six full blocks in a row, an eighth each), as far as `max_fee` allows.

        Raises:
            FeeAboveCap: the tip is above `max_tip` (default: 2 gwei or the base fee, whichever is more), or `max_fee` does not
                cover the base fee and the tip of now.
        """
        most = max(LEAST_TIP_CAP, base) if self.max_tip is None else self.max_tip
        if tip > most:
            what = f"Ask another endpoint; pass max_tip={tip} if this chain demands it"
            raise FeeAboveCap(action, "tip", tip, most, what, "wei per gas")
        self._check_fee(action, gas * (base + tip))
        return {"maxPriorityFeePerGas": tip, "maxFeePerGas": min(2 * base + tip, self.max_fee // gas)}

    def _check_fee(self, action: str, fee: int) -> None:
        if fee > self.max_fee:
            what = f"Ask another endpoint, or wait until gas is cheaper; pass max_fee={fee} to pay it"
            raise FeeAboveCap(action, "fee", fee, self.max_fee, what, "wei")


DEPLOY_CAPS: Final = Caps(MAX_DEPLOY_FEE, MAX_DEPLOY_GAS)
