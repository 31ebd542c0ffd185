"""The price book, what every request cost, the double-entry ledger and its sums (services `billing`, `ledger`,
`reports` and `notifications`).

A posting is one amount that moves from one account to another, so debits and credits cannot differ: a row with one
side only does not exist. Postings and prices are appended and never changed; everything else that adds up
(balances, months, roll-ups) is kept in the transaction that appends, and can be made anew from them.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

PRICES = """
CREATE TABLE prices (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    effective_at_ms bigint NOT NULL,
    source text NOT NULL CHECK (source IN ('default', 'file', 'operator')),
    rates jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX prices_by_model ON prices (model, effective_at_ms, id);
COMMENT ON COLUMN prices.rates IS 'services/pricing/rates.py: dollars as decimal strings';
"""

# What was used before there were prices was free: its price is 0 and it has no postings.
USAGE = """
ALTER TABLE usage_records
    ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN transaction_xid xid8 NOT NULL DEFAULT '0',
    ADD COLUMN batch boolean NOT NULL DEFAULT false,
    ADD COLUMN cache_write_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN input_image_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN input_audio_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN output_audio_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN output_image_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN images bigint NOT NULL DEFAULT 0,
    ADD COLUMN image_size text NOT NULL DEFAULT '',
    ADD COLUMN image_quality text NOT NULL DEFAULT '',
    ADD COLUMN audio_ms bigint NOT NULL DEFAULT 0,
    ADD COLUMN characters bigint NOT NULL DEFAULT 0,
    ADD COLUMN tools jsonb,
    ADD COLUMN stored_byte_seconds bigint NOT NULL DEFAULT 0,
    ADD COLUMN price_id bigint DEFAULT 0,
    ADD COLUMN nanodollars bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_records ALTER COLUMN price_id DROP DEFAULT, ALTER COLUMN transaction_xid SET DEFAULT
    pg_current_xact_id();
CREATE INDEX usage_records_by_time ON usage_records (organization_id, finished_at_ms);
CREATE INDEX usage_records_by_transaction ON usage_records (transaction_xid, seq);
CREATE INDEX usage_records_unpriced ON usage_records (finished_at_ms) WHERE price_id IS NULL;
COMMENT ON COLUMN usage_records.price_id IS 'prices.id; 0 from before there were prices; null while it has none';
COMMENT ON COLUMN usage_records.transaction_xid IS 'orders rows: a reader who waits for its snapshot misses none';
COMMENT ON COLUMN usage_records.tools IS 'calls by name of the tool';
"""

LEDGER = """
CREATE TABLE postings (
    transaction_id text NOT NULL,
    line text NOT NULL,
    organization_id text NOT NULL,
    project_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    debit text NOT NULL,
    credit text NOT NULL,
    nanodollars bigint NOT NULL CHECK (nanodollars > 0),
    quantity bigint NOT NULL,
    occurred_at_ms bigint NOT NULL,
    PRIMARY KEY (transaction_id, line),
    CHECK (debit <> credit)
);
CREATE INDEX postings_by_time ON postings USING brin (occurred_at_ms);
CREATE INDEX postings_by_organization ON postings (organization_id, occurred_at_ms, transaction_id, line)
    WHERE model = '';
COMMENT ON TABLE postings IS 'nanodollars move from the account debit to the account credit of the organization';
COMMENT ON COLUMN postings.transaction_id IS 'a request id, or the id of a payment, a grant, a draw of credits';
COMMENT ON COLUMN postings.model IS 'empty for what is not usage';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON postings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON prices
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE balances (
    organization_id text NOT NULL,
    account text NOT NULL,
    nanodollars bigint NOT NULL,
    PRIMARY KEY (organization_id, account)
);
COMMENT ON COLUMN balances.nanodollars IS 'all debits minus all credits of the account';

CREATE TABLE credits (
    organization_id text NOT NULL REFERENCES organizations,
    id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('payment', 'grant')),
    nanodollars bigint NOT NULL CHECK (nanodollars > 0),
    remaining bigint NOT NULL CHECK (remaining BETWEEN 0 AND nanodollars),
    description text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (organization_id, id)
);
CREATE INDEX credits_left ON credits (organization_id, expires_at, created_at) WHERE remaining > 0;
COMMENT ON COLUMN credits.remaining IS 'nano-dollars that no usage has drawn; those that expire first are drawn first';

ALTER TABLE organizations ADD COLUMN prepaid boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN organizations.prepaid IS 'true: refused when its credits are used up; false: invoiced';

CREATE TABLE invoices (
    id text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations,
    month date NOT NULL,
    issued_at timestamptz NOT NULL DEFAULT now(),
    organization_name text NOT NULL,
    lines jsonb NOT NULL,
    total_nanodollars bigint NOT NULL,
    credits_nanodollars bigint NOT NULL,
    UNIQUE (organization_id, month)
);
"""

# The month's sums and the leases are what a hold is decided on, in a transaction that locks the organisation's row
# of `spend`.
SPEND = """
CREATE TABLE spend (
    organization_id text NOT NULL,
    project_id text NOT NULL,
    month date NOT NULL,
    nanodollars bigint NOT NULL,
    PRIMARY KEY (organization_id, project_id, month)
);
COMMENT ON TABLE spend IS 'what usage cost in a month (UTC, by its end); an empty project is the organization itself';

CREATE TABLE spend_leases (
    organization_id text NOT NULL,
    project_id text NOT NULL,
    holder text NOT NULL,
    nanodollars bigint NOT NULL CHECK (nanodollars >= 0),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (organization_id, project_id, holder)
);
COMMENT ON TABLE spend_leases IS 'money that a billing process has on hold for requests, and what these used that is
not in `spend` yet';

CREATE TABLE spend_alerts_sent (
    alert_id text NOT NULL REFERENCES spend_alerts ON DELETE CASCADE,
    month date NOT NULL,
    channel text NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (alert_id, month, channel)
);

CREATE TABLE cursors (
    name text PRIMARY KEY,
    transaction_xid xid8 NOT NULL,
    seq bigint NOT NULL
);
COMMENT ON TABLE cursors IS 'how far each reader of usage_records has come';
"""

ROLLUPS = """
CREATE TABLE usage_hours (
    hour timestamptz NOT NULL,
    organization_id text NOT NULL,
    project_id text NOT NULL,
    user_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    operation text NOT NULL,
    service_tier text NOT NULL,
    batch boolean NOT NULL,
    image_size text NOT NULL,
    requests bigint NOT NULL,
    input_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    input_audio_tokens bigint NOT NULL,
    input_image_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    output_audio_tokens bigint NOT NULL,
    output_image_tokens bigint NOT NULL,
    images bigint NOT NULL,
    audio_ms bigint NOT NULL,
    characters bigint NOT NULL,
    stored_byte_seconds bigint NOT NULL,
    PRIMARY KEY (
        organization_id, hour, operation, project_id, key_id, user_id, model, service_tier, batch, image_size
    )
);
CREATE TABLE tool_hours (
    hour timestamptz NOT NULL,
    organization_id text NOT NULL,
    project_id text NOT NULL,
    user_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    tool text NOT NULL,
    requests bigint NOT NULL,
    calls bigint NOT NULL,
    PRIMARY KEY (organization_id, hour, tool, project_id, key_id, user_id, model)
);
CREATE TABLE cost_hours (
    hour timestamptz NOT NULL,
    organization_id text NOT NULL,
    project_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    line text NOT NULL,
    quantity bigint NOT NULL,
    nanodollars bigint NOT NULL,
    PRIMARY KEY (organization_id, hour, project_id, key_id, model, line)
);
COMMENT ON TABLE usage_hours IS 'usage_records by the hour of their end, UTC';
COMMENT ON TABLE cost_hours IS 'postings of usage by hour; discounts and refunds are below 0';
"""

# Whoever keeps prices or funds in memory hears of a change in the transaction that makes it.
PUSHES = """
CREATE FUNCTION tell_prices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('prices', '');
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT ON prices FOR EACH STATEMENT EXECUTE FUNCTION tell_prices();

CREATE FUNCTION tell_funds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('funds', CASE WHEN TG_TABLE_NAME = 'organizations' THEN to_jsonb(OLD) ->> 'id'
        WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ->> 'organization_id'
        ELSE to_jsonb(NEW) ->> 'organization_id' END);
    RETURN NULL;
END $$;
CREATE TRIGGER tell_funds AFTER UPDATE OF prepaid, usage_tier ON organizations
    FOR EACH ROW EXECUTE FUNCTION tell_funds();
CREATE TRIGGER tell_funds AFTER INSERT OR UPDATE OR DELETE ON spend_limits
    FOR EACH ROW EXECUTE FUNCTION tell_funds();
CREATE TRIGGER tell_funds AFTER INSERT ON credits FOR EACH ROW EXECUTE FUNCTION tell_funds();
"""

# What was used before is seen in reports as what is used from now on; it cost nothing.
HISTORY = """
INSERT INTO usage_hours
SELECT date_trunc('hour', to_timestamp(finished_at_ms / 1000.0), 'UTC'), organization_id, project_id, user_id, key_id,
    model, operation, service_tier, batch, image_size, count(*), sum(input_tokens), sum(cached_input_tokens),
    sum(cache_write_tokens), sum(input_audio_tokens), sum(input_image_tokens), sum(output_tokens),
    sum(output_audio_tokens), sum(output_image_tokens), sum(images), sum(audio_ms), sum(characters),
    sum(stored_byte_seconds)
FROM usage_records GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10;

-- What was paid is credits, of which nothing was used; what was paid back was paid back out of the largest.
INSERT INTO credits (organization_id, id, kind, nanodollars, remaining, created_at)
SELECT organization_id, id || '@' || organization_id, 'payment', amount_nanodollars, amount_nanodollars, received_at
FROM payments WHERE amount_nanodollars > 0;
INSERT INTO postings
SELECT id, 'payment', organization_id, '', '', '', 'cash', 'credits', nanodollars, 0,
    floor(extract(epoch FROM created_at) * 1000)::bigint
FROM credits;
DO $$
DECLARE
    refund payments;
    credit credits;
    rest bigint;
    part bigint;
BEGIN
    FOR refund IN SELECT * FROM payments WHERE amount_nanodollars < 0 ORDER BY received_at, id LOOP
        rest := -refund.amount_nanodollars;
        FOR credit IN SELECT * FROM credits WHERE organization_id = refund.organization_id AND remaining > 0
            ORDER BY remaining DESC, id
        LOOP
            EXIT WHEN rest = 0;
            part := least(rest, credit.remaining);
            rest := rest - part;
            UPDATE credits SET remaining = remaining - part
                WHERE organization_id = credit.organization_id AND id = credit.id;
            INSERT INTO postings VALUES ('refund_' || credit.id || '_' || refund.id, 'refund', refund.organization_id,
                '', '', '', 'credits', 'cash', part, 0, floor(extract(epoch FROM refund.received_at) * 1000)::bigint);
        END LOOP;
    END LOOP;
END $$;
INSERT INTO balances
SELECT organization_id, account, sum(amount) FROM (
    SELECT organization_id, debit AS account, nanodollars AS amount FROM postings
    UNION ALL SELECT organization_id, credit, -nanodollars FROM postings
) AS sides GROUP BY 1, 2;
"""


def upgrade() -> None:
    for statements in (PRICES, USAGE, LEDGER, SPEND, ROLLUPS, HISTORY, PUSHES):
        op.execute(statements)
