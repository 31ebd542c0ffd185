"""The queries of the service `reports`, a module per question. Each reads rows of one organisation by an index, of a
span of time, and gives no more of them than it is asked for."""

from services.reports.store.costs import CostsStore
from services.reports.store.records import RecordsStore
from services.reports.store.rollups import RollupsStore
from services.reports.store.sums import Question, Sum
from services.reports.store.usage import UsageStore

__all__ = ["CostsStore", "Question", "RecordsStore", "RollupsStore", "Sum", "UsageStore"]
