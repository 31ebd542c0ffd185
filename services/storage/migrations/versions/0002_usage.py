"""The usage ledger: one row per request id (service `billing`).

A plain table: the primary key is what makes a record count once, and a table partitioned by month could only be
unique within a month, so that a record sent again after its first second of the next month would count twice.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = """
CREATE TABLE usage_records (
    request_id text PRIMARY KEY,
    organization_id text NOT NULL,
    project_id text NOT NULL,
    key_id text NOT NULL,
    user_id text NOT NULL,
    model text NOT NULL,
    service_tier text NOT NULL,
    operation text NOT NULL,
    outcome smallint NOT NULL,
    input_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    started_at_ms bigint NOT NULL,
    finished_at_ms bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN usage_records.outcome IS 'modelplane.usage.v1.Outcome: 1 completed, 2 aborted, 3 failed';
"""


def upgrade() -> None:
    op.execute(TABLES)
