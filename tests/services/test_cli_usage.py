"""`modelplane usage` over gRPC against the real services: reports, costs, files and roll-ups made anew."""

import csv
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from modelplane.ledger.v1.ledger_pb2 import AuditRequest
from modelplane.reports.v1.reports_api import ReportsService
from modelplane.reports.v1.reports_pb2 import ExportUsageRequest, ExportUsageResponse, PricedUsage
from modelplane.usage.v1.usage_pb2 import Usage
from services import cli
from services.cli import usage_files
from services.command import parser
from services.faults import Unavailable
from services.home import Home
from services.ledger.audit import Auditor
from services.ledger.store.audit import AuditStore
from services.reports.service import Reports
from services.reports.settings import ReportsSettings
from services.rpc.connect import descriptor_of
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from services.settings import Environment, SettingsError
from services.storage import Database
from tests.services.ledger import written

PERIOD = "--from 2026-11-01 --until 2026-11-02"


class Away:
    """Reports whose database goes away during an export."""

    async def export_usage(self, _request: ExportUsageRequest, /) -> AsyncIterator[ExportUsageResponse]:
        yield ExportUsageResponse(records=[PricedUsage(usage=Usage(request_id="req_1"))])
        raise Unavailable("database_unavailable", "The database cannot be reached. Try again shortly.")


class Machine:
    """A platform that runs here, and a shell."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = Home(home)
        self.home.create()
        self._capsys = capsys
        settings = Environment(self.home.variables()).group(RpcSettings)
        self.server = RpcServer(settings, {"reports": descriptor_of(ReportsService)})

    async def start(self, reports: object) -> None:
        await self.server.start()
        self.server.place("reports", reports)
        await self.server.serving(True)
        self.home.write_rpc_address(self.server.address)

    async def run(self, line: str) -> str:
        """What a command prints."""
        environment = Environment({"MODELPLANE_HOME": str(self.home.path)})
        await cli.run(parser().parse_args(line.split()), environment)
        return self._capsys.readouterr().out

    async def json(self, line: str) -> Any:
        return json.loads(await self.run(f"{line} --json"))


@pytest.fixture
async def machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path, capsys)
    try:
        yield machine
    finally:
        await machine.server.stop(0)


@pytest.fixture
async def used(machine: Machine, database: Database) -> Machine:
    """With twenty records in it."""
    await written.add_prices(database)
    await written.add_usage(database, [written.usage(number) for number in range(20)])
    await machine.start(Reports(database, ReportsSettings()))
    return machine


async def test_reports(used: Machine) -> None:
    rows = await used.json(f"usage report --organization org-1 {PERIOD} --by model service_tier")
    assert {row["service_tier"] for row in rows} == {"default", "flex", "priority"}
    assert sum(row["requests"] for row in rows) == 10
    assert all(row["start"].startswith("2026-11-01T00:00") for row in rows)
    hours = await used.json(f"usage report --organization org-1 {PERIOD} --bucket 1h --project proj_1")
    assert [row["requests"] for row in hours] == [3, 2]
    calls = await used.run(f"usage report --organization org-1 {PERIOD} --endpoint web_search_calls")
    assert calls.splitlines()[0].split() == ["START", "REQUESTS", "TOOL", "CALLS"]
    assert await used.run(f"usage report --organization org-1 {PERIOD} --endpoint embeddings") == ""


async def test_costs(used: Machine) -> None:
    (whole,) = await used.json(f"usage costs --organization org-1 {PERIOD}")
    lines = await used.json(f"usage costs --organization org-1 {PERIOD} --by line_item")
    by_line = {row["line_item"]: row for row in lines}
    assert by_line["chat, output"]["unit"] == "tokens" and by_line["chat, discount"]["quantity"] is None
    assert abs(sum(float(row["dollars"]) for row in lines) - float(whole["dollars"])) < 1e-9


async def test_files(used: Machine, tmp_path: Path) -> None:
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in ("csv", "parquet"):
        file = tmp_path / f"usage.{name}"
        told = await used.json(f"usage export --format {name} --output {file}")
        assert told == {"records": 20, "output": str(file)}
        if name == "csv":
            with file.open(newline="") as lines:
                rows[name] = list(csv.DictReader(lines))
        else:
            rows[name] = parquet.read_table(file).to_pylist()
    assert [row["request_id"] for row in rows["csv"]] == [row["request_id"] for row in rows["parquet"]]
    plain = [{name: str(value) for name, value in row.items()} for row in rows["parquet"]]
    assert plain == rows["csv"]
    seventh = next(row for row in rows["parquet"] if row["request_id"] == "req_0007")
    assert json.loads(seventh["tools"]) == {"web_search": 2}
    assert (seventh["outcome"], seventh["organization_id"], seventh["batch"]) == ("completed", "org-1", False)
    assert seventh["nanodollars"] > 0 and seventh["price_id"] > 0
    one = await used.json(f"usage export --organization org-1 {PERIOD} --output {tmp_path / 'one.csv'}")
    assert one["records"] == 10


def test_columns_of_what_has_no_price() -> None:
    assert usage_files.row(PricedUsage())["price_id"] is None
    assert len(set(usage_files.COLUMNS)) == len(usage_files.COLUMNS)


@pytest.mark.parametrize("name", ["csv", "parquet"])
async def test_a_file_that_is_not_whole_is_none(machine: Machine, tmp_path: Path, name: str) -> None:
    await machine.start(Away())
    kept = tmp_path / "out"
    kept.write_text("from before")
    with pytest.raises(Unavailable):
        await machine.run(f"usage export --format {name} --output {kept}")
    assert kept.read_text() == "from before"
    assert not list(tmp_path.glob("*.partial"))


async def test_parquet_without_its_library(used: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(SettingsError, match="pip install pyarrow"):
        await used.run(f"usage export --format parquet --output {tmp_path / 'out'}")


async def test_rebuild(used: Machine, database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("UPDATE usage_hours SET requests = 0")
    assert await used.json("usage rebuild") == {"records": 20}
    async for last in Auditor(AuditStore(database)).audit(AuditRequest()):
        assert not last.findings
