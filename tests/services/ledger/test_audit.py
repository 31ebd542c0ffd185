"""The audit of a ledger in which nothing is wrong finds nothing; and every single thing that is wrong is found."""

from contextlib import aclosing

import psycopg
import pytest

from modelplane.ledger.v1.ledger_pb2 import AuditRequest, AuditResponse, Finding
from services.ledger.audit import MOST_FINDINGS, Auditor
from services.ledger.store.audit import AuditStore
from services.storage import Database
from tests.services.ledger import written
from tests.services.ledger.written import HOUR_MS, NOVEMBER_MS, usage

RECORDS = 70


@pytest.fixture
async def ledger(database: Database) -> Database:
    """Usage of two organisations, one of which has paid; two versions of a price; a free model, and one without a
    price."""
    await written.add_organizations(database, "org-0", "org-1")
    await written.add_prices(database)
    await written.add_prices(database, NOVEMBER_MS + 3 * HOUR_MS, {"chat": {"input": "5", "output": "20"}})
    later = {"chat": {**written.PRICES["chat"], "input": "3"}}
    await written.add_prices(database, NOVEMBER_MS + 4 * HOUR_MS, later)
    await written.add_payment(database, "org-0", "pay_1", 100_000_000)
    usages = [usage(number) for number in range(RECORDS) if not (30 <= number < 40 and number % 7 == 0)]
    await written.add_usage(database, [*usages, usage(RECORDS, model="free", request_id="req_free")])
    await written.add_payment(database, "org-0", "pay_2", 10_000_000_000)
    await written.add_refund(database, usage(5))
    return database


async def findings(database: Database, **period: int) -> tuple[AuditResponse, list[tuple[str, str, str]]]:
    found: list[tuple[str, str, str]] = []
    answers = [answer async for answer in Auditor(AuditStore(database)).audit(AuditRequest(**period))]
    for answer in answers:
        found += [(finding.kind, finding.organization_id, finding.subject) for finding in answer.findings]
        assert all(finding.detail for finding in answer.findings)
    assert answers[-1].done and not any(answer.done for answer in answers[:-1])
    return answers[-1], found


async def test_nothing_is_wrong(ledger: Database) -> None:
    last, found = await findings(ledger)
    assert (found, last.findings_total) == ([], 0)
    assert last.records == RECORDS
    assert last.usage_nanodollars == last.billed_nanodollars > 0


async def test_an_empty_ledger(database: Database) -> None:
    last, found = await findings(database)
    assert (found, last.records, last.usage_nanodollars, last.billed_nanodollars) == ([], 0, 0, 0)


MINE = "transaction_id = 'req_0001'"
# Statement, the findings that it brings about.
DAMAGES: list[tuple[str, list[tuple[str, str, str]]]] = [
    (
        f"DELETE FROM postings WHERE {MINE} AND line = 'output'",
        [
            ("missing_posting", "org-1", "req_0001"),
            ("wrong_balance", "org-1", "receivable"),
            ("wrong_balance", "org-1", "revenue:output"),
            ("wrong_rollup", "org-1", "cost_hours 2026-11-01 00:00 chat proj_1"),
            ("wrong_spend", "org-1", "2026-11"),
            ("wrong_spend", "org-1", "2026-11 proj_1"),
        ],
    ),
    (
        f"UPDATE postings SET nanodollars = nanodollars + 1 WHERE {MINE} AND line = 'input'",
        [
            ("wrong_amount", "org-1", "req_0001"),
            ("wrong_balance", "org-1", "receivable"),
            ("wrong_balance", "org-1", "revenue:input"),
            ("wrong_rollup", "org-1", "cost_hours 2026-11-01 00:00 chat proj_1"),
            ("wrong_spend", "org-1", "2026-11"),
            ("wrong_spend", "org-1", "2026-11 proj_1"),
        ],
    ),
    (
        f"UPDATE postings SET quantity = 1 WHERE {MINE} AND line = 'input'",
        [
            ("wrong_amount", "org-1", "req_0001"),
            ("wrong_rollup", "org-1", "cost_hours 2026-11-01 00:00 chat proj_1"),
        ],
    ),
    (
        f"UPDATE postings SET credit = 'revenue:other' WHERE {MINE} AND line = 'input'",
        [
            ("wrong_account", "org-1", "req_0001"),
            ("wrong_balance", "org-1", "revenue:input"),
            ("wrong_balance", "org-1", "revenue:other"),
        ],
    ),
    (
        f"UPDATE postings SET key_id = 'key_2' WHERE {MINE} AND line = 'input'",
        [
            ("wrong_account", "org-1", "req_0001"),
            ("wrong_rollup", "org-1", "cost_hours 2026-11-01 00:00 chat proj_1"),
            ("wrong_rollup", "org-1", "cost_hours 2026-11-01 00:00 chat proj_1"),
        ],
    ),
    (
        f"UPDATE postings SET occurred_at_ms = occurred_at_ms + 1 WHERE {MINE} AND line = 'input'",
        [("wrong_time", "org-1", "req_0001")],
    ),
    (
        "INSERT INTO postings SELECT 'req_none', line, 'org-9', project_id, key_id, model, debit, credit, 5, 1, "
        "occurred_at_ms FROM postings WHERE transaction_id = 'req_0001' AND line = 'input'",
        [
            ("orphan_posting", "org-9", "req_none"),
            ("wrong_balance", "org-9", "receivable"),
            ("wrong_balance", "org-9", "revenue:input"),
            ("wrong_rollup", "org-9", "cost_hours 2026-11-01 00:00 chat proj_1"),
            ("wrong_spend", "org-9", "2026-11"),
            ("wrong_spend", "org-9", "2026-11 proj_1"),
        ],
    ),
    (
        "INSERT INTO postings SELECT transaction_id, 'more', organization_id, project_id, key_id, model, debit, "
        f"credit, 5, 1, occurred_at_ms FROM postings WHERE {MINE} AND line = 'input'",
        [
            ("unexpected_posting", "org-1", "req_0001"),
            ("wrong_balance", "org-1", "receivable"),
            ("wrong_balance", "org-1", "revenue:input"),
            ("wrong_rollup", "org-1", "cost_hours 2026-11-01 00:00 chat proj_1"),
            ("wrong_spend", "org-1", "2026-11"),
            ("wrong_spend", "org-1", "2026-11 proj_1"),
        ],
    ),
    (
        "ALTER TABLE postings DROP CONSTRAINT postings_pkey; "
        f"INSERT INTO postings SELECT * FROM postings WHERE {MINE} AND line = 'input'",
        [
            ("duplicate", "org-1", "req_0001"),
            ("wrong_balance", "org-1", "receivable"),
            ("wrong_balance", "org-1", "revenue:input"),
            ("wrong_rollup", "org-1", "cost_hours 2026-11-01 00:00 chat proj_1"),
            ("wrong_spend", "org-1", "2026-11"),
            ("wrong_spend", "org-1", "2026-11 proj_1"),
        ],
    ),
    (
        "UPDATE usage_records SET price_id = 2 WHERE request_id = 'req_0001'",
        [("wrong_price", "org-1", "req_0001")],
    ),
    (
        "UPDATE usage_records SET price_id = NULL WHERE request_id = 'req_free'",
        [("unpriced", "org-0", "req_free")],
    ),
    (
        "UPDATE usage_records SET price_id = 0 WHERE request_id = 'req_0003'",
        [("unexpected_posting", "org-1", "req_0003")] * 3 + [("wrong_amount", "org-1", "req_0003")],
    ),
    (
        "UPDATE usage_records SET nanodollars = 1 WHERE request_id = 'req_0001'",
        [("wrong_amount", "org-1", "req_0001")],
    ),
    (
        "UPDATE usage_records SET tools = '{\"web_search\": 1}' WHERE request_id = 'req_0001'",
        [
            ("missing_posting", "org-1", "req_0001"),
            ("wrong_amount", "org-1", "req_0001"),
            ("wrong_rollup", "org-1", "tool_hours 2026-11-01 00:00 chat proj_1"),
        ],
    ),
    (
        "UPDATE usage_records SET tools = '{\"code\": 1}' WHERE request_id = 'req_0001'",
        [("unexpected_posting", "org-1", "req_0001")] * 4
        + [
            ("unpriced", "org-1", "req_0001"),
            ("wrong_amount", "org-1", "req_0001"),
            ("wrong_rollup", "org-1", "tool_hours 2026-11-01 00:00 chat proj_1"),
        ],
    ),
    (
        "UPDATE credits SET nanodollars = nanodollars + 1, remaining = remaining + 1 WHERE id = 'pay_1'",
        [("wrong_credits", "org-0", "credits")],
    ),
    (
        "UPDATE balances SET nanodollars = nanodollars + 1 WHERE account = 'cash'",
        [("unbalanced", "org-0", "all accounts"), ("wrong_balance", "org-0", "cash")],
    ),
    (
        "DELETE FROM balances WHERE account = 'cash'",
        [("unbalanced", "org-0", "all accounts"), ("wrong_balance", "org-0", "cash")],
    ),
    (
        "UPDATE credits SET remaining = remaining + 1 WHERE id = 'pay_1'",
        [("wrong_credits", "org-0", "pay_1")],
    ),
    (
        "UPDATE credits SET remaining = remaining + CASE id WHEN 'pay_1' THEN 1 ELSE -1 END WHERE kind = 'payment'",
        [("wrong_credits", "org-0", "pay_1"), ("wrong_credits", "org-0", "pay_2")],
    ),
    (
        "UPDATE postings SET nanodollars = nanodollars + 1 WHERE debit = 'refunds'",
        [
            ("wrong_rollup", "org-1", "cost_hours 2026-11-01 00:00 chat proj_1"),
            ("wrong_spend", "org-1", "2026-11"),
            ("wrong_spend", "org-1", "2026-11 proj_1"),
            ("wrong_balance", "org-1", "credits"),
            ("wrong_balance", "org-1", "refunds"),
            ("wrong_credits", "org-1", "credits"),
            ("wrong_refund", "org-1", "req_0005"),
        ],
    ),
    (
        "INSERT INTO invoices VALUES ('inv_1', 'org-1', '2026-10-01', now(), 'Acme', "
        '\'[["proj_1", "chat", "input", 5, 700]]\', 701, 0)',
        [("wrong_invoice", "org-1", "inv_1")],
    ),
    (
        "UPDATE spend SET nanodollars = nanodollars + 1 WHERE project_id = 'proj_3'",
        [("wrong_spend", "org-1", "2026-11 proj_3")],
    ),
    (
        "DELETE FROM spend WHERE organization_id = 'org-1' AND project_id = ''",
        [("wrong_spend", "org-1", "2026-11")],
    ),
    (
        "UPDATE usage_hours SET output_tokens = output_tokens - 1 WHERE organization_id = 'org-1' "
        "AND hour = '2026-11-01 06:00Z' AND project_id = 'proj_3' AND service_tier = 'default'",
        [("wrong_rollup", "org-1", "usage_hours 2026-11-01 06:00 chat proj_3")],
    ),
    (
        "UPDATE tool_hours SET calls = 1 WHERE hour = '2026-11-01 00:00Z' AND project_id = 'proj_0'",
        [("wrong_rollup", "org-0", "tool_hours 2026-11-01 00:00 chat proj_0")],
    ),
    (
        "DELETE FROM cost_hours WHERE hour = '2026-11-01 06:00Z' AND project_id = 'proj_3' AND line = 'output'",
        [("wrong_rollup", "org-1", "cost_hours 2026-11-01 06:00 chat proj_3")],
    ),
    (
        "INSERT INTO postings VALUES ('draw_pay_1_again', 'draw', 'org-0', '', '', '', 'credits', 'receivable', "
        "1000000000, 0, 0); UPDATE balances SET nanodollars = nanodollars + CASE account WHEN 'credits' THEN "
        "1000000000 ELSE -1000000000 END WHERE organization_id = 'org-0' AND account IN ('credits', 'receivable')",
        [
            ("covered_twice", "org-0", "receivable"),
            ("wrong_credits", "org-0", "pay_1"),
        ],
    ),
    (
        "INSERT INTO postings VALUES ('a', 'b', 'org-1', '', '', '', 'cash', 'receivable', 1, 0, 0)",
        [
            ("wrong_account", "org-1", "a"),
            ("wrong_balance", "org-1", "cash"),
            ("wrong_balance", "org-1", "receivable"),
        ],
    ),
]


def damage(database: Database, statements: str) -> None:
    """What nobody but a superuser can do."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("ALTER TABLE postings DISABLE TRIGGER append_only")
        connection.execute(statements.encode())


@pytest.mark.parametrize(("statements", "expected"), DAMAGES, ids=[statement[:60] for statement, _ in DAMAGES])
async def test_damage(ledger: Database, statements: str, expected: list[tuple[str, str, str]]) -> None:
    damage(ledger, statements)
    last, found = await findings(ledger)
    assert sorted(found) == sorted(expected)
    assert last.findings_total == len(expected)


async def test_a_record_that_is_gone(ledger: Database) -> None:
    damage(ledger, "DELETE FROM usage_records WHERE request_id = 'req_0001'")
    last, found = await findings(ledger)
    assert {kind for kind, _, _ in found} == {"orphan_posting", "wrong_rollup"}
    assert last.records == RECORDS - 1 and last.billed_nanodollars > last.usage_nanodollars


async def test_a_record_that_was_never_billed(ledger: Database) -> None:
    await written.add_prices(ledger, 0, {"dear": {"input": "1", "output": "1"}})
    damage(
        ledger,
        "INSERT INTO usage_records (request_id, organization_id, project_id, key_id, user_id, model, service_tier, "
        "operation, outcome, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, started_at_ms, "
        "finished_at_ms, price_id) VALUES ('req_x', 'org-1', 'p', 'k', 'u', 'dear', 'default', 'chat.completions', 1, "
        f"10, 0, 10, 0, {NOVEMBER_MS}, {NOVEMBER_MS}, 4)",
    )
    last, found = await findings(ledger)
    kinds = sorted(kind for kind, _, _ in found)
    assert kinds == ["missing_posting", "missing_posting", "wrong_amount", "wrong_price", "wrong_rollup"]
    assert last.usage_nanodollars - last.billed_nanodollars == 20_000


async def test_a_period(ledger: Database) -> None:
    damage(ledger, f"DELETE FROM postings WHERE {MINE} AND line = 'output'")
    day_s = NOVEMBER_MS // 1000
    first, found = await findings(ledger, **{"from": day_s, "until": day_s + 3600})
    assert first.records == 10 and "missing_posting" in {kind for kind, _, _ in found}
    second, found = await findings(ledger, **{"from": day_s + 3600})
    assert first.records + second.records == RECORDS
    assert "missing_posting" not in {kind for kind, _, _ in found}


async def test_an_audit_that_nobody_waits_for(ledger: Database) -> None:
    """It gives its connection back."""
    for _ in range(12):
        async with aclosing(Auditor(AuditStore(ledger)).audit(AuditRequest())) as answers:
            async for answer in answers:
                assert answer.records
                break
    await findings(ledger)


async def test_usage_beside_an_audit(ledger: Database) -> None:
    """What comes into the ledger meanwhile looks like no difference."""
    found: list[Finding] = []
    numbers = iter(range(1000, 2000))
    async for answer in Auditor(AuditStore(ledger)).audit(AuditRequest()):
        found += answer.findings
        await written.add_usage(ledger, [usage(next(numbers))])
    assert not found and answer.records == RECORDS
    last, late = await findings(ledger)
    assert last.records > RECORDS and not late


async def test_many_findings_are_counted_and_few_are_kept(database: Database) -> None:
    await written.add_organizations(database, "org-0", "org-1")
    await written.add_prices(database)
    await written.add_usage(database, [usage(number) for number in range(1, 150)])
    damage(database, "DELETE FROM postings WHERE line = 'output'")
    last, found = await findings(database)
    missing = [finding for finding in found if finding[0] == "missing_posting"]
    assert len(missing) == MOST_FINDINGS
    assert last.findings_total > 149
