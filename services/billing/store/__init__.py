"""Billing's queries: usage and what it brings into the ledger, leases of money, prices."""

from services.billing.store.funds import FundsStore
from services.billing.store.prices import PricesStore
from services.billing.store.usage import Batch, Cost, RecordRefusedError, UsageStore

__all__ = ["Batch", "Cost", "FundsStore", "PricesStore", "RecordRefusedError", "UsageStore"]
