"""The queries of the service `ledger`, a module per noun.

Keeps true: what changes what an organisation has or owes is done while its funds are locked.
"""

from services.ledger.store.records import LedgerStore, Records

__all__ = ["LedgerStore", "Records"]
