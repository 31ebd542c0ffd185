"""Money as commands take and show it: decimals of dollars, exact to the nanodollar."""

import argparse
from decimal import Decimal, InvalidOperation

from services.pricing.rates import NANO


def nanodollars(dollars: str) -> int:
    """Raises ArgumentTypeError for what is no amount of whole nanodollars."""
    try:
        amount = Decimal(dollars) * NANO
        if amount == amount.to_integral_value() and abs(amount) < 2**63:
            return int(amount)
    except InvalidOperation:
        pass
    raise argparse.ArgumentTypeError(f"{dollars!r} is not an amount of dollars")


def positive(dollars: str) -> int:
    """The same, above 0."""
    amount = nanodollars(dollars)
    if amount <= 0:
        raise argparse.ArgumentTypeError(f"{dollars!r} is not an amount above 0")
    return amount
