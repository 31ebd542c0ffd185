"""Stored completions, and the first answers of requests with an idempotency key (service `completions`).

JSON is kept as bytes: a client's strings may hold NUL, which neither `text` nor `jsonb` takes. An item of `metadata` is
a pair as JSON text, which escapes it, so that an array of pairs can be searched by any of them.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = """
CREATE TABLE stored_completions (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    project_id text NOT NULL,
    model text NOT NULL,
    created_at_ms bigint NOT NULL,
    metadata text[] NOT NULL,
    request_messages_json bytea NOT NULL,
    completion_json bytea NOT NULL
);
CREATE INDEX stored_completions_by_project ON stored_completions (organization_id, project_id, created_at_ms, id);
CREATE INDEX stored_completions_by_age ON stored_completions (created_at_ms);
CREATE INDEX stored_completions_by_metadata ON stored_completions USING gin (metadata);

CREATE TABLE idempotency_keys (
    project_id text NOT NULL,
    key bytea NOT NULL,
    token text NOT NULL UNIQUE,
    fingerprint bytea NOT NULL,
    leased_until_ms bigint NOT NULL,
    expires_at_ms bigint NOT NULL,
    status integer,
    content_type text,
    body bytea,
    PRIMARY KEY (project_id, key),
    CHECK ((status IS NULL) = (body IS NULL) AND (status IS NULL) = (content_type IS NULL))
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (expires_at_ms);
"""


def upgrade() -> None:
    op.execute(TABLES)
