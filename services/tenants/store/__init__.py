"""The queries of the service `tenants`, a module per noun.

Keeps true: a row of an organisation is found only with that organisation's id. What has to hold between two queries
holds while the organisation's or the project's row is locked.
"""

from services.tenants.store.records import Records, TenantsStore

__all__ = ["Records", "TenantsStore"]
