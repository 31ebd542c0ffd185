"""Two organisations with their projects and people, as rows, and when changes of them are heard."""

import itertools
from contextlib import aclosing

from modelplane.keys.v1.keys_api import KeysService
from modelplane.keys.v1.keys_pb2 import WatchRequest, WatchResponse
from services.storage import Database

ROWS = """
INSERT INTO organizations (id, name, usage_tier) VALUES ('org-1', 'One', 3), ('org-2', 'Two', 0);
INSERT INTO projects (id, organization_id, name) VALUES
    ('proj_1', 'org-1', 'First'), ('proj_2', 'org-1', 'Second'), ('proj_3', 'org-2', 'Third');
INSERT INTO users (id, email, name) VALUES
    ('user-ann', 'ann@example.com', 'Ann'), ('user-bob', 'bob@example.com', 'Bob');
INSERT INTO organization_members (organization_id, user_id, role) VALUES
    ('org-1', 'user-ann', 'owner'), ('org-2', 'user-ann', 'reader'), ('org-2', 'user-bob', 'owner');
INSERT INTO project_members (organization_id, project_id, user_id, role) VALUES
    ('org-1', 'proj_1', 'user-ann', 'member');
"""


async def write(database: Database, statements: str = ROWS) -> None:
    async with database.connection() as connection:
        await connection.execute(statements.encode())


async def listening(keys: KeysService, database: Database) -> None:
    """Returns when the service hears the database: when it begins to, it has everything forgotten."""
    async with aclosing(keys.watch(WatchRequest())) as changes:  # type: ignore[type-var]
        for number in itertools.count():
            probe = f"probe-{number}"
            async with database.connection() as connection:
                await connection.execute("SELECT pg_notify('principals', %s)", (f"key:{probe}",))
            async for change in changes:
                if change.key_id == probe:
                    return
                if change == WatchResponse():
                    break
