"""`modelplane audit` over gRPC against a real ledger: what it prints, and how it exits."""

import argparse
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.ledger.v1.ledger_pb2 import AuditRequest, AuditResponse
from services import cli
from services.cli.audit import seconds
from services.command import parser
from services.faults import Unavailable
from services.home import Home
from services.ledger.audit import Auditor
from services.ledger.store.audit import AuditStore
from services.rpc.connect import descriptor_of
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from services.settings import Environment
from services.storage import Database
from tests.services.ledger import written
from tests.services.ledger.written import usage


class Away:
    """A ledger whose database goes away during an audit."""

    async def audit(self, _request: AuditRequest, /) -> AsyncIterator[AuditResponse]:
        yield AuditResponse(records=1)
        raise Unavailable("database_unavailable", "The database cannot be reached. Try again shortly.")


async def audited(service: object, home: Path, *options: str) -> int:
    """The exit status of the command against this service."""
    here = Home(home)
    here.create()
    settings = Environment(here.variables()).group(RpcSettings)
    server = RpcServer(settings, {"ledger": descriptor_of(LedgerService)})
    await server.start()
    server.place("ledger", service)
    await server.serving(True)
    here.write_rpc_address(server.address)
    try:
        return await cli.run(parser().parse_args(["audit", *options]), Environment({"MODELPLANE_HOME": str(home)}))
    finally:
        await server.stop(0)


@pytest.fixture
async def auditor(database: Database) -> Auditor:
    await written.add_prices(database)
    await written.add_usage(database, [usage(1), usage(2)])
    return Auditor(AuditStore(database))


async def test_clean(auditor: Auditor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await audited(auditor, tmp_path, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["records"], shown["findings"], shown["findings_total"]) == (2, [], 0)
    assert float(shown["usage_dollars"]) == float(shown["billed_dollars"]) > 0
    assert await audited(auditor, tmp_path, "--until", "2026-11-01") == 0
    assert "RECORDS" in capsys.readouterr().out


async def test_findings(
    auditor: Auditor, database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with database.connection() as connection:
        await connection.execute("UPDATE spend SET nanodollars = 1 WHERE project_id = 'proj_1'")
    assert await audited(auditor, tmp_path) == 1
    assert "wrong_spend org-1 2026-11 proj_1 the spend is 1, " in capsys.readouterr().out
    assert await audited(auditor, tmp_path, "--json") == 1
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["kind"], finding["organization"]) == ("wrong_spend", "org-1")


async def test_it_could_not_be_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await audited(Away(), tmp_path) == 2
    assert "database cannot be reached" in capsys.readouterr().err


def test_dates() -> None:
    assert seconds("2026-11-01") == seconds("2026-11-01T01:00+01:00") == 1_793_491_200
    with pytest.raises(argparse.ArgumentTypeError):
        seconds("yesterday")
