"""Organisations, their projects, and the keys that act for them (service `auth`)."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE organizations (
    id text PRIMARY KEY,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE projects (
    id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (organization_id, id)
);
CREATE TABLE api_keys (
    id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations,
    project_id text,
    kind text NOT NULL CHECK (kind IN ('project', 'admin')),
    name text NOT NULL,
    hash bytea NOT NULL UNIQUE,
    redacted text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    FOREIGN KEY (organization_id, project_id) REFERENCES projects (organization_id, id),
    CHECK ((kind = 'project') = (project_id IS NOT NULL))
);
CREATE INDEX api_keys_by_project ON api_keys (organization_id, project_id);
"""


def upgrade() -> None:
    op.execute(TABLES)
