"""Lists that are read while they are emptied (services `members` and `tenants`).

A list goes on from the last row that was seen, and that row may be gone by then: whoever removes all users page by page
removes it. What is left of it for a day is its place. Triggers see to it, so that no store can forget to.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

DEPARTED = """
CREATE TABLE departed (
    list text NOT NULL,
    organization_id text NOT NULL,
    project_id text NOT NULL,
    id text NOT NULL,
    at timestamptz NOT NULL,
    departed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (list, organization_id, project_id, id)
);
COMMENT ON COLUMN departed.list IS 'the name of the table that it was in';
COMMENT ON COLUMN departed.at IS 'the time that its list is ordered by';
CREATE INDEX departed_by_age ON departed (departed_at);

CREATE FUNCTION keep_place() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    gone jsonb := to_jsonb(OLD);
BEGIN
    INSERT INTO departed (list, organization_id, project_id, id, at)
    VALUES (TG_TABLE_NAME, gone ->> 'organization_id', coalesce(gone ->> 'project_id', ''),
        coalesce(gone ->> 'user_id', gone ->> 'id'),
        coalesce(gone ->> 'added_at', gone ->> 'created_at')::timestamptz)
    ON CONFLICT (list, organization_id, project_id, id)
        DO UPDATE SET at = excluded.at, departed_at = excluded.departed_at;
    -- More than one at a time, so that the table shrinks; none that somebody else removes, so that nobody waits.
    DELETE FROM departed WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM departed WHERE departed_at < now() - interval '1 day' LIMIT 10 FOR UPDATE SKIP LOCKED));
    RETURN NULL;
END $$;
CREATE TRIGGER keep_place AFTER DELETE ON organization_members FOR EACH ROW EXECUTE FUNCTION keep_place();
CREATE TRIGGER keep_place AFTER DELETE ON project_members FOR EACH ROW EXECUTE FUNCTION keep_place();
CREATE TRIGGER keep_place AFTER DELETE ON invites FOR EACH ROW EXECUTE FUNCTION keep_place();
CREATE TRIGGER keep_place AFTER DELETE ON spend_alerts FOR EACH ROW EXECUTE FUNCTION keep_place();
"""


def upgrade() -> None:
    op.execute(DEPARTED)
