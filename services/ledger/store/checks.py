"""Checks of what is kept beside the postings and could be made anew from them: each a query for what differs.

A query gives the organisation, the subject, the difference in words, and how many rows there are in all.
"""

# ruff: noqa: S608 -- every part of these queries is a literal of this module

from collections.abc import Sequence
from typing import Final, LiteralString, NamedTuple


class Check(NamedTuple):
    """A query whose rows are findings of this kind."""

    kind: str
    query: LiteralString


# Of a posting: it is what a record cost, or a part of it; a refund has a model too.
USAGE: LiteralString = "model <> '' AND debit <> 'refunds'"
# What usage, its discounts and its refunds add up to.
_NET: LiteralString = (
    "sum(CASE WHEN debit = 'receivable' THEN nanodollars ELSE -nanodollars END)::bigint AS nanodollars"
)
_MONTH: LiteralString = "date_trunc('month', to_timestamp(occurred_at_ms / 1000.0) AT TIME ZONE 'UTC')::date AS month"
_USAGE_HOUR: LiteralString = "date_trunc('hour', to_timestamp(finished_at_ms / 1000.0), 'UTC') AS hour"
_COST_HOUR: LiteralString = "date_trunc('hour', to_timestamp(occurred_at_ms / 1000.0), 'UTC') AS hour"
_SIDES: LiteralString = """
SELECT organization_id, debit AS account, nanodollars FROM postings
UNION ALL SELECT organization_id, credit, -nanodollars FROM postings
"""

_RECORDED_TWICE: LiteralString = """
SELECT min(organization_id), request_id, format('%s records of one request', count(*)), count(*) OVER ()
FROM usage_records GROUP BY request_id HAVING count(*) > 1 ORDER BY request_id
"""

# What is not usage moves between these accounts only.
_ACCOUNTS: LiteralString = """
SELECT organization_id, transaction_id, format('%s: from %s to %s', line, credit, debit), count(*) OVER ()
FROM postings
WHERE (model = '' OR debit = 'refunds') AND (debit, credit) NOT IN (
    ('credits', 'receivable'), ('cash', 'credits'), ('credits', 'cash'), ('grants', 'credits'), ('credits', 'expired'),
    ('refunds', 'credits')
)
ORDER BY organization_id, transaction_id, line
"""

_BALANCES: LiteralString = f"""
SELECT organization_id, account, format(
    'the balance is %s, the postings add up to %s', coalesce(kept.nanodollars, 0), coalesce(made.nanodollars, 0)
), count(*) OVER ()
FROM balances AS kept
FULL JOIN (
    SELECT organization_id, account, sum(nanodollars) AS nanodollars FROM ({_SIDES}) AS sides GROUP BY 1, 2
) AS made USING (organization_id, account)
WHERE coalesce(kept.nanodollars, 0) <> coalesce(made.nanodollars, 0)
ORDER BY organization_id, account
"""

_ZERO: LiteralString = """
SELECT organization_id, 'all accounts', format('the balances add up to %s', sum(nanodollars)), count(*) OVER ()
FROM balances GROUP BY organization_id HAVING sum(nanodollars) <> 0 ORDER BY organization_id
"""

_COVERED_TWICE: LiteralString = """
SELECT organization_id, 'receivable', format(
    'usage is %s, credits have covered %s', sum(nanodollars) FILTER (WHERE NOT cover),
    sum(nanodollars) FILTER (WHERE cover)
), count(*) OVER ()
FROM (
    SELECT organization_id, nanodollars, false AS cover FROM postings WHERE debit = 'receivable'
    UNION ALL SELECT organization_id, -nanodollars, false FROM postings WHERE debit = 'discounts'
    UNION ALL SELECT organization_id, nanodollars, true FROM postings
    WHERE credit = 'receivable' AND debit <> 'discounts'
) AS moved
GROUP BY organization_id
HAVING sum(CASE WHEN cover THEN nanodollars ELSE -nanodollars END) > 0
ORDER BY organization_id
"""

_ISSUED: LiteralString = """
SELECT organization_id, 'credits', format(
    'the credits were %s, what was paid and granted adds up to %s', coalesce(kept.nanodollars, 0),
    coalesce(made.nanodollars, 0)
), count(*) OVER ()
FROM (SELECT organization_id, sum(nanodollars) AS nanodollars FROM credits GROUP BY 1) AS kept
FULL JOIN (
    SELECT organization_id, sum(nanodollars) AS nanodollars FROM postings WHERE credit = 'credits' GROUP BY 1
) AS made USING (organization_id)
WHERE coalesce(kept.nanodollars, 0) <> coalesce(made.nanodollars, 0)
ORDER BY organization_id
"""

# The transactions that use a credit are named `draw_<id>_…`, `expiry_<id>` and `refund_<id>_…`; an id may begin as
# another.
_LEFT: LiteralString = """
SELECT organization_id, coalesce(credits.id, used.id), format(
    '%s of %s are left, %s were used', coalesce(remaining, 0), coalesce(credits.nanodollars, 0),
    coalesce(used.nanodollars, 0)
), count(*) OVER ()
FROM credits
FULL JOIN (
    SELECT organization_id, id, sum(nanodollars) AS nanodollars
    FROM (
        SELECT DISTINCT ON (transaction_id, line) postings.organization_id, postings.nanodollars,
            coalesce(credits.id, transaction_id) AS id
        FROM postings
        LEFT JOIN credits ON credits.organization_id = postings.organization_id
            AND starts_with(substring(transaction_id FROM position('_' IN transaction_id) + 1) || '_', id || '_')
        WHERE debit = 'credits'
        ORDER BY transaction_id, line, length(credits.id) DESC NULLS LAST
    ) AS uses
    GROUP BY 1, 2
) AS used USING (organization_id, id)
WHERE coalesce(remaining, 0) <> coalesce(credits.nanodollars, 0) - coalesce(used.nanodollars, 0)
ORDER BY organization_id, 2
"""

# A request is given back whole, and once.
_REFUNDS: LiteralString = """
SELECT organization_id, request_id, format(
    '%s are given back, %s were billed', refunded.nanodollars, coalesce(billed.nanodollars, 0)
), count(*) OVER ()
FROM (
    SELECT organization_id, transaction_id AS request_id, sum(nanodollars) AS nanodollars
    FROM postings WHERE debit = 'refunds' GROUP BY 1, 2
) AS refunded
LEFT JOIN usage_records AS billed USING (organization_id, request_id)
WHERE refunded.nanodollars <> coalesce(billed.nanodollars, 0)
ORDER BY organization_id, request_id
"""

_SPEND: LiteralString = f"""
SELECT organization_id, concat_ws(' ', to_char(month, 'YYYY-MM'), nullif(project_id, '')), format(
    'the spend is %s, the postings add up to %s', coalesce(kept.nanodollars, 0), coalesce(made.nanodollars, 0)
), count(*) OVER ()
FROM spend AS kept
FULL JOIN (
    SELECT organization_id, project_id, {_MONTH}, {_NET} FROM postings
    WHERE model <> '' AND project_id <> '' GROUP BY 1, 2, 3
    UNION ALL SELECT organization_id, '', {_MONTH}, {_NET} FROM postings WHERE model <> '' GROUP BY 1, 2, 3
) AS made USING (organization_id, project_id, month)
WHERE coalesce(kept.nanodollars, 0) <> coalesce(made.nanodollars, 0)
ORDER BY organization_id, month, project_id
"""

_INVOICES: LiteralString = """
SELECT organization_id, id, format('the total is %s, the lines add up to %s', total_nanodollars, made.nanodollars),
    count(*) OVER ()
FROM invoices
CROSS JOIN LATERAL (
    SELECT coalesce(sum((line ->> 4)::bigint), 0) AS nanodollars FROM jsonb_array_elements(lines) AS line
) AS made
WHERE total_nanodollars <> made.nanodollars
ORDER BY organization_id, id
"""

_USAGE_KEYS: LiteralString = (
    "organization_id, hour, operation, project_id, key_id, user_id, model, service_tier, batch, image_size"
)
_USAGE_SUMS: Final = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "input_audio_tokens",
    "input_image_tokens",
    "output_tokens",
    "output_audio_tokens",
    "output_image_tokens",
    "images",
    "audio_ms",
    "characters",
    "stored_byte_seconds",
)
_TOOL_KEYS: LiteralString = "organization_id, hour, tool, project_id, key_id, user_id, model"
_COST_KEYS: LiteralString = "organization_id, hour, project_id, key_id, model, line"


def _sums(columns: Sequence[LiteralString]) -> LiteralString:
    return ", ".join([f"sum({column})::bigint AS {column}" for column in columns])


def _rollup(table: LiteralString, keys: LiteralString, sums: LiteralString, made: LiteralString) -> LiteralString:
    """Both sides as rows of the same columns: those that are kept, and those that the records make."""
    return f"""
SELECT organization_id, concat_ws(
    ' ', '{table}', to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:00'), model, nullif(project_id, '')
), format('kept: %s, by what it is made of: %s', coalesce(kept.*::text, '-'), coalesce(made.*::text, '-')),
count(*) OVER ()
FROM (SELECT {keys}, {sums} FROM {table}) AS kept
FULL JOIN ({made}) AS made USING ({keys})
WHERE kept IS DISTINCT FROM made
ORDER BY {keys}
"""


_USAGE_HOURS: LiteralString = _rollup(
    "usage_hours",
    _USAGE_KEYS,
    ", ".join(["requests", *_USAGE_SUMS]),
    f"SELECT {_USAGE_KEYS}, count(*) AS requests, {_sums(_USAGE_SUMS)} "
    f"FROM (SELECT *, {_USAGE_HOUR} FROM usage_records) AS records GROUP BY {_USAGE_KEYS}",
)
_TOOL_HOURS: LiteralString = _rollup(
    "tool_hours",
    _TOOL_KEYS,
    "requests, calls",
    f"SELECT {_TOOL_KEYS}, count(*) AS requests, sum(calls::bigint)::bigint AS calls "
    f"FROM (SELECT *, {_USAGE_HOUR} FROM usage_records WHERE tools IS NOT NULL) AS records, "
    f"jsonb_each_text(tools) AS called (tool, calls) GROUP BY {_TOOL_KEYS}",
)
_COST_HOURS: LiteralString = _rollup(
    "cost_hours",
    _COST_KEYS,
    "quantity, nanodollars",
    f"SELECT {_COST_KEYS}, sum(quantity)::bigint AS quantity, {_NET} "
    f"FROM (SELECT *, {_COST_HOUR} FROM postings WHERE model <> '') AS booked GROUP BY {_COST_KEYS}",
)

CHECKS: Final[Sequence[Check]] = (
    Check("duplicate", _RECORDED_TWICE),
    Check("wrong_account", _ACCOUNTS),
    Check("wrong_balance", _BALANCES),
    Check("unbalanced", _ZERO),
    Check("covered_twice", _COVERED_TWICE),
    Check("wrong_credits", _ISSUED),
    Check("wrong_credits", _LEFT),
    Check("wrong_refund", _REFUNDS),
    Check("wrong_invoice", _INVOICES),
    Check("wrong_spend", _SPEND),
    Check("wrong_rollup", _USAGE_HOURS),
    Check("wrong_rollup", _TOOL_HOURS),
    Check("wrong_rollup", _COST_HOURS),
)
