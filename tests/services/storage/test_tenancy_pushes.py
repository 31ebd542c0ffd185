"""What a principal says cannot change without every listener being told, whoever changes it."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from services.storage import Database

ROWS = """
INSERT INTO organizations (id, name) VALUES ('org-1', '');
INSERT INTO projects (id, organization_id, name) VALUES ('proj-1', 'org-1', '');
INSERT INTO users (id, email, name) VALUES ('user-1', 'a@example.com', '');
INSERT INTO organization_members (organization_id, user_id, role) VALUES ('org-1', 'user-1', 'owner');
INSERT INTO project_members (organization_id, project_id, user_id, role) VALUES ('org-1', 'proj-1', 'user-1', 'owner');
INSERT INTO service_accounts (id, organization_id, project_id, name, role)
    VALUES ('sa-1', 'org-1', 'proj-1', '', 'member');
INSERT INTO api_keys (id, organization_id, project_id, kind, name, hash, redacted)
    VALUES ('key-1', 'org-1', 'proj-1', 'project', '', 'h', '');
INSERT INTO limit_overrides (organization_id, project_id, model, dimension, units) VALUES
    ('org-1', '', 'm', 1, 10), ('org-1', 'proj-1', 'm', 1, 10);
"""
CHANGES = [
    ("UPDATE organizations SET usage_tier = 2", ["organization:org-1"]),
    ("UPDATE organizations SET name = 'x'", []),
    ("UPDATE projects SET archived_at = now()", ["project:proj-1"]),
    ("UPDATE projects SET ip_ranges = '{10.0.0.0/8}'", ["project:proj-1"]),
    ("UPDATE service_accounts SET deleted_at = now()", ["project:proj-1"]),
    ("UPDATE api_keys SET revoked_at = now()", ["key:key-1"]),
    ("UPDATE api_keys SET scopes = '{model.request}', access = 3", ["key:key-1"]),
    ("UPDATE api_keys SET last_used_at = now()", []),
    ("DELETE FROM project_members", ["project:proj-1"]),
    ("DELETE FROM organization_members", ["organization:org-1", "project:proj-1"]),
    ("UPDATE limit_overrides SET units = 3 WHERE project_id = ''", ["organization:org-1"]),
    ("DELETE FROM limit_overrides WHERE project_id <> ''", ["project:proj-1"]),
    (
        "INSERT INTO limit_overrides (organization_id, project_id, model, dimension, units) "
        "VALUES ('org-1', '', 'n', 1, 10)",
        ["organization:org-1"],
    ),
]


@pytest.fixture
async def rows(database: Database) -> AsyncIterator[Database]:
    async with database.connection() as connection:
        await connection.execute(ROWS.encode())
    yield database


@pytest.mark.parametrize(("change", "told"), CHANGES)
async def test_a_change_is_told(rows: Database, change: str, told: list[str]) -> None:
    heard: list[str | None] = []
    async with aclosing(rows.listen("principals")) as payloads:
        assert await anext(payloads) is None
        async with rows.connection() as connection:
            await connection.execute(change.encode())
            await connection.execute("SELECT pg_notify('principals', 'end')")
        async for payload in payloads:
            if payload == "end":
                break
            heard.append(payload)
    assert sorted(heard, key=str) == told
