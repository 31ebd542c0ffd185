"""PostgreSQL for every service that keeps state: the server of one machine, connections, migrations.

It holds no queries: those live in each service's `store.py`.
"""

from services.storage.database import Database
from services.storage.errors import StartError
from services.storage.open import open_database

__all__ = ["Database", "StartError", "open_database"]
