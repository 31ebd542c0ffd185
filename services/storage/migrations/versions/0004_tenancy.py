"""Tenancy: people, service accounts, limits, payments and the audit log (services `tenants`, `keys` and `members`).

What a principal says of a key is read from several of these tables. Triggers tell every listener of the channel
`principals` which principals are old, in the transaction that makes them so: no store can forget to.

An empty `project_id` in a table of both scopes stands for the organisation itself.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

TENANTS = """
ALTER TABLE organizations
    ADD COLUMN usage_tier smallint NOT NULL DEFAULT 0 CHECK (usage_tier BETWEEN 0 AND 5),
    ADD COLUMN tier_pinned boolean NOT NULL DEFAULT false,
    ADD COLUMN paid_nanodollars bigint NOT NULL DEFAULT 0,
    ADD COLUMN first_paid_at timestamptz;
COMMENT ON COLUMN organizations.usage_tier IS '0 is free, then 1 to 5';
-- Before there were tiers the limits were generous, as those of the highest are; nobody is throttled by an upgrade.
UPDATE organizations SET usage_tier = 5, tier_pinned = true;

ALTER TABLE projects
    ADD COLUMN archived_at timestamptz,
    ADD COLUMN models_mode smallint NOT NULL DEFAULT 0,
    ADD COLUMN models text[] NOT NULL DEFAULT '{}',
    ADD COLUMN ip_ranges text[] NOT NULL DEFAULT '{}',
    ADD COLUMN weight integer NOT NULL DEFAULT 1 CHECK (weight > 0),
    ADD COLUMN external_key_id text NOT NULL DEFAULT '';
COMMENT ON COLUMN projects.models_mode IS 'modelplane.auth.v1.ModelPolicy.Mode: 0 every model, 1 allow, 2 deny';
CREATE INDEX projects_by_age ON projects (organization_id, created_at, id);

CREATE TABLE limit_overrides (
    organization_id text NOT NULL REFERENCES organizations,
    project_id text NOT NULL,
    model text NOT NULL,
    dimension smallint NOT NULL,
    units bigint NOT NULL CHECK (units >= 0),
    PRIMARY KEY (organization_id, project_id, model, dimension)
);
COMMENT ON COLUMN limit_overrides.dimension IS 'modelplane.limits.v1.Dimension';

CREATE TABLE payments (
    organization_id text NOT NULL REFERENCES organizations,
    id text NOT NULL,
    amount_nanodollars bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, id)
);

CREATE TABLE spend_limits (
    organization_id text NOT NULL REFERENCES organizations,
    project_id text NOT NULL,
    threshold_cents bigint NOT NULL CHECK (threshold_cents >= 0),
    PRIMARY KEY (organization_id, project_id)
);
CREATE TABLE spend_alerts (
    id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations,
    project_id text NOT NULL,
    threshold_cents bigint NOT NULL CHECK (threshold_cents >= 0),
    email_recipients text[] NOT NULL,
    subject_prefix text NOT NULL,
    webhook_url text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX spend_alerts_by_owner ON spend_alerts (organization_id, project_id, created_at, id);

CREATE TABLE audit_events (
    id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations,
    type text NOT NULL,
    effective_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    project_id text NOT NULL,
    project_name text NOT NULL,
    resource_id text NOT NULL,
    details_json bytea NOT NULL,
    actor_key_id text NOT NULL,
    actor_redacted_key text NOT NULL,
    actor_owner_id text NOT NULL,
    actor_ip_address text NOT NULL,
    actor_user_agent text NOT NULL,
    request_id text NOT NULL
);
CREATE INDEX audit_events_by_age ON audit_events (organization_id, effective_at, id);
"""

MEMBERS = """
CREATE TABLE users (
    id text PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_by_email ON users (lower(email));

CREATE TABLE organization_members (
    organization_id text NOT NULL REFERENCES organizations,
    user_id text NOT NULL REFERENCES users,
    role text NOT NULL CHECK (role IN ('owner', 'reader', 'viewer')),
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, user_id)
);
CREATE TABLE project_members (
    organization_id text NOT NULL,
    project_id text NOT NULL,
    user_id text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'member', 'viewer')),
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, user_id),
    FOREIGN KEY (organization_id, project_id) REFERENCES projects (organization_id, id),
    FOREIGN KEY (organization_id, user_id) REFERENCES organization_members ON DELETE CASCADE
);
CREATE INDEX project_members_by_user ON project_members (organization_id, user_id);

CREATE TABLE invites (
    id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations,
    email text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'reader', 'viewer')),
    projects jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    accepted_at timestamptz
);
CREATE INDEX invites_by_age ON invites (organization_id, created_at, id);
COMMENT ON COLUMN invites.projects IS 'an array of {"id": ..., "role": ...}';
"""

KEYS = """
CREATE TABLE service_accounts (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    project_id text NOT NULL,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'member', 'none')),
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    UNIQUE (organization_id, project_id, id),
    FOREIGN KEY (organization_id, project_id) REFERENCES projects (organization_id, id)
);
CREATE INDEX service_accounts_by_age ON service_accounts (organization_id, project_id, created_at, id);

ALTER TABLE api_keys
    DROP CONSTRAINT api_keys_kind_check,
    DROP CONSTRAINT api_keys_check,
    ADD COLUMN user_id text REFERENCES users,
    ADD COLUMN service_account_id text,
    ADD COLUMN access smallint NOT NULL DEFAULT 1,
    ADD COLUMN scopes text[] NOT NULL DEFAULT '{}',
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN last_used_at timestamptz,
    ADD FOREIGN KEY (organization_id, project_id, service_account_id)
        REFERENCES service_accounts (organization_id, project_id, id),
    ADD CHECK (kind IN ('project', 'admin', 'service_account')),
    ADD CHECK ((kind = 'admin') = (project_id IS NULL)),
    ADD CHECK ((kind = 'service_account') = (service_account_id IS NOT NULL)),
    ADD CHECK (user_id IS NULL OR service_account_id IS NULL);
COMMENT ON COLUMN api_keys.access IS 'modelplane.auth.v1.Access: 1 all, 2 read only, 3 restricted to scopes';
CREATE INDEX api_keys_by_age ON api_keys (organization_id, project_id, created_at, id) WHERE revoked_at IS NULL;
CREATE INDEX api_keys_by_owner ON api_keys (user_id) WHERE user_id IS NOT NULL;
"""

# What has to be read again is the organisation, the project or the key that the row belongs to.
PUSHES = """
CREATE FUNCTION tell_organization() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('principals', 'organization:' ||
        CASE WHEN TG_TABLE_NAME = 'organizations' THEN to_jsonb(OLD) ->> 'id'
        ELSE to_jsonb(OLD) ->> 'organization_id' END);
    RETURN NULL;
END $$;
CREATE FUNCTION tell_project() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('principals', 'project:' ||
        CASE WHEN TG_TABLE_NAME = 'projects' THEN to_jsonb(OLD) ->> 'id' ELSE to_jsonb(OLD) ->> 'project_id' END);
    RETURN NULL;
END $$;
CREATE FUNCTION tell_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('principals', 'key:' || OLD.id);
    RETURN NULL;
END $$;
CREATE FUNCTION tell_limits() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed limit_overrides;
BEGIN
    changed := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    PERFORM pg_notify('principals', CASE WHEN changed.project_id = ''
        THEN 'organization:' || changed.organization_id ELSE 'project:' || changed.project_id END);
    RETURN NULL;
END $$;

CREATE TRIGGER tell AFTER UPDATE OF usage_tier ON organizations
    FOR EACH ROW WHEN (OLD.usage_tier <> NEW.usage_tier) EXECUTE FUNCTION tell_organization();
CREATE TRIGGER tell AFTER UPDATE OR DELETE ON organization_members
    FOR EACH ROW EXECUTE FUNCTION tell_organization();
CREATE TRIGGER tell AFTER UPDATE OR DELETE ON projects FOR EACH ROW EXECUTE FUNCTION tell_project();
CREATE TRIGGER tell AFTER UPDATE OR DELETE ON project_members FOR EACH ROW EXECUTE FUNCTION tell_project();
CREATE TRIGGER tell AFTER UPDATE OR DELETE ON service_accounts FOR EACH ROW EXECUTE FUNCTION tell_project();
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON limit_overrides
    FOR EACH ROW EXECUTE FUNCTION tell_limits();
CREATE TRIGGER tell AFTER UPDATE OF revoked_at, access, scopes, expires_at ON api_keys
    FOR EACH ROW EXECUTE FUNCTION tell_key();
"""


def upgrade() -> None:
    for statements in (TENANTS, MEMBERS, KEYS, PUSHES):
        op.execute(statements)
