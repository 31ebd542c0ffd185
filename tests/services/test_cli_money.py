"""The commands about money, over gRPC, against the real ledger on a real PostgreSQL."""

import argparse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from modelplane.tenants.v1.tenants_pb2 import BootstrapRequest
from modelplane.usage.v1.usage_pb2 import Attribution
from services.cli.prices import rate, table
from services.command import parser
from services.faults import InvalidRequest, NotFound
from services.storage import Database
from tests.services.ledger import written
from tests.services.test_cli import Machine, running


@pytest.fixture
async def machine(database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Machine]:
    async with running(Machine(tmp_path, database, capsys)) as machine:
        yield machine


async def use(machine: Machine, database: Database) -> str:
    """A request of 1.5 dollars; returns its organisation."""
    first = await machine.tenants.bootstrap(BootstrapRequest())
    who = Attribution(organization_id=first.organization_id, project_id=first.project_id, key_id="key_1")
    await written.add_prices(database, 0, {"plain": {"input": "1.5"}})
    tokens: dict[str, Any] = {"input_tokens": 10**6, "cached_input_tokens": 0, "output_tokens": 0}
    plain = {"model": "plain", "service_tier": "default", "batch": False, "tools": None}
    await written.add_usage(database, [written.usage(1, request_id="req_1", attribution=who, **tokens, **plain)])
    return first.organization_id


async def test_prices(machine: Machine) -> None:
    made = await machine.json(
        "prices set small input=0.15 output=0.60 tools.web_search=0.01 images.1024x1024.hd=0.08 images=0.04 "
        "multipliers.batch=0.4"
    )
    assert (made["model"], made["input"], made["output"], made["cached_input"]) == ("small", "0.15", "0.60", None)
    assert set(made["other"]) == {
        "tools.web_search=0.01",
        "images.1024x1024.hd=0.08",
        "images=0.04",
        "multipliers.batch=0.4",
    }
    await machine.run("prices free large --effective 2100-01-01")
    assert await machine.json("prices list --at 2000-01-01") == []
    [small] = await machine.json("prices list --at 2099-01-01")
    assert (small, small["source"]) == (made, "operator")
    later = await machine.json("prices list --at 2100-01-01")
    assert [(row["model"], row["free"]) for row in later] == [("large", True), ("small", False)]
    await machine.run("prices set small input=1 --effective 2099-01-01")
    assert [row["input"] for row in await machine.json("prices history small")] == ["1", "0.15"]
    assert "small" in await machine.run("prices history")
    for line in ("prices set small cached_input=1", "prices free small --effective 2020-01-01", "prices set m input=x"):
        with pytest.raises(InvalidRequest):
            await machine.run(line)


@pytest.mark.parametrize(
    "text", ["input", "input=", "=1", "inptu=1", "input.x=1", "tools=1", "multipliers.cheap=1", "images.a.b.c=1"]
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        rate(text)


def test_the_most_exact_rate_of_an_image_counts_first() -> None:
    assert table([("images", "3"), ("images.a", "2"), ("images.a.hd", "1"), ("input", "0")]) == {
        "input": "0",
        "images": [{"size": "a", "quality": "hd", "price": "1"}, {"size": "a", "price": "2"}, {"price": "3"}],
    }


async def test_credits_and_payments(machine: Machine, database: Database) -> None:
    of = await use(machine, database)
    assert (await machine.json("credits show"))["owed_dollars"] == "1.5"
    paid = await machine.json("payments record 49.90 --id wire-1")
    assert (paid["booked_now"], paid["paid_dollars"]) == (True, "49.9")
    assert not (await machine.json("payments record 49.90 --id wire-1"))["booked_now"]
    granted = await machine.json("credits grant 0.000000001 --id gift --expires 2100-01-01 --description hello")
    assert (granted["id"], granted["dollars"], granted["description"]) == ("gift", "0.000000001", "hello")
    assert [(row["id"], row["left_dollars"]) for row in await machine.json("credits list")] == [
        ("gift", "0.000000001"),
        ("wire-1", "48.4"),
    ]
    assert (await machine.json("payments refund 48.4 --id back-1"))["paid_dollars"] == "1.5"
    with pytest.raises(InvalidRequest):
        await machine.run("payments refund 0.01 --id back-2")
    assert (await machine.json("credits refund req_1 --reason sorry"))["dollars"] == "1.5"
    assert (await machine.json("orgs terms prepaid"))["terms"] == "prepaid"
    shown = await machine.json("credits show")
    assert (shown["organization"], shown["terms"], shown["available_dollars"]) == (of, "prepaid", "1.500000001")
    assert len(await machine.json("credits history --usage")) == len(await machine.json("credits history")) + 1
    assert [row["line"] for row in await machine.json("credits history --transaction wire-1")] == ["payment"]
    assert (await machine.json("orgs terms invoiced"))["terms"] == "invoiced"
    for line in ("credits show", "credits grant 1", "payments record 1 --id p", "orgs terms prepaid"):
        with pytest.raises(NotFound):
            await machine.run(f"{line} --organization org-none")


@pytest.mark.parametrize(
    "line", ["payments record -5 --id p", "payments record 0 --id p", "payments record 5", "credits grant x"]
)
def test_amounts_that_are_none(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(line.split())


async def test_invoices(machine: Machine, database: Database, tmp_path: Path) -> None:
    await use(machine, database)
    [draft] = await machine.json("invoices list")
    assert (draft["issued"], draft["total_dollars"], draft["due_dollars"]) == (None, "1.5", "1.5")
    shown = await machine.json(f"invoices show {draft['month']}")
    assert [(line["line"], line["quantity"], line["dollars"]) for line in shown["lines"]] == [
        ("input", 1_000_000, "1.5")
    ]
    assert "paid by credits" in await machine.run(f"invoices show {draft['id']}")
    file = tmp_path / "invoice.pdf"
    await machine.run(f"invoices pdf {draft['month']} --output {file}")
    assert file.read_bytes().startswith(b"%PDF-")
    with pytest.raises(NotFound):
        await machine.run("invoices show 2001-01")
