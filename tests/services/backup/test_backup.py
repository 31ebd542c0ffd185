"""Backups of a ledger in use, restored into empty databases; and whatever is wrong with one changes nothing."""

import asyncio
import io
import json
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from services.backup import commands, making, manifest
from services.billing import frames
from services.billing.service import serving
from services.billing.settings import BillingSettings
from services.command import parser
from services.notifications.store import NotificationsStore
from services.progress import Progress
from services.settings import Environment, PlatformSettings
from services.storage import Database, StartError
from services.storage.embedded import running_url
from services.storage.migrate import upgrade
from services.storage.open import reached
from services.storage.url import without_password
from tests.audited import assert_clean
from tests.cluster.certificates import Authority
from tests.fakes.relays import Streams, relay, server_context
from tests.services.billing.usages import recording
from tests.services.ledger import written
from tests.services.ledger.written import usage

PEPPER = "MODELPLANE_AUTH_PEPPER"
MODELS = '[[models]]\nname = "chat"\nengine = "scripted"\n'
# Of a server that is years older than any that the tests start.
OLD_XID = 10**12


class Place:
    """A home and a database, as settings."""

    def __init__(self, home: Path, url: str, **variables: str) -> None:
        self.home = home
        self.url = url
        self.variables = {"MODELPLANE_HOME": str(home), "MODELPLANE_DATABASE_URL": url, PEPPER: "salt"} | variables

    async def run(self, *arguments: str) -> int:
        return await commands.run(parser().parse_args(arguments), Environment(self.variables))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(query.encode()).fetchall()

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.url) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def is_untouched(self) -> bool:
        tables = self.rows("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        return not tables and not [path for path in self.home.rglob("*") if path.is_file()]


@pytest.fixture
async def source(database: Database, database_url: str, tmp_path: Path) -> Place:
    """A ledger of thirty records, two more in the spool beside one that the ledger has, and a request that runs."""
    await written.add_prices(database)
    await written.add_organizations(database, "org-0", "org-1")
    await written.add_payment(database, "org-1", "payment-1", 10**9)
    await written.add_usage(database, [usage(number) for number in range(30)])
    place = Place(tmp_path / "home", database_url, MODELPLANE_CONFIG=str(tmp_path / "models.toml"))
    (tmp_path / "models.toml").write_text(MODELS)
    spool = place.home / "spool"
    spool.mkdir(parents=True)
    records = b"".join(frames.encode(usage(number).SerializeToString()) for number in (29, 30, 31))
    (spool / "00000000000000000001-aaaaaaaa.usage").write_bytes(records + b"MPU\x01half")
    (spool / "aaaaaaaa-bbbbbbbb.open").write_bytes(frames.encode(usage(32).SerializeToString()))
    (place.home / "revocations.jsonl").write_text("\n{}")
    return place


@pytest.fixture
def target(empty_database_url: str, tmp_path: Path) -> Place:
    return Place(tmp_path / "elsewhere", empty_database_url)


async def made(source: Place, folder: Path, *options: str) -> Path:
    assert await source.run("backup", str(folder), *options) == 0
    [path] = folder.iterdir()
    return path


async def test_what_comes_back(
    source: Place, target: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = await made(source, tmp_path / "backups")
    assert "30 usage records" in capsys.readouterr().out
    assert backup.stat().st_mode & 0o077 == 0
    assert not list(backup.rglob("secrets.json")) and PEPPER not in (backup / "manifest.json").read_text()
    assert await target.run("restore", str(backup), "--check") == 0 and target.is_untouched()

    assert await target.run("restore", str(backup)) == 0
    audited = await assert_clean(target.url)
    assert audited.records == 33
    shown = "SELECT request_id, nanodollars FROM usage_records WHERE request_id < 'req_0030' ORDER BY 1"
    assert target.rows(shown) == source.rows(shown)
    assert (target.home / "config" / "models.toml").read_text() == MODELS
    assert (target.home / "revocations.jsonl").read_text() == "\n{}"
    assert not list((target.home / "spool").iterdir())
    # Identity columns go on where they were, and what is used next is billed as ever.
    async with opened(target.url) as database, serving(target.home / "spool", database, BillingSettings()) as billing:
        await billing.record(recording(usage(40)))
        await billing.drain()
    assert (await assert_clean(target.url)).records == 34


async def test_readers_of_new_usage_go_on_where_they_were(source: Place, target: Place, tmp_path: Path) -> None:
    """And a transaction that has the number of an old one is not taken for it."""
    source.execute(
        f"UPDATE usage_records SET transaction_xid = ({OLD_XID} - seq)::text::xid8",
        "INSERT INTO cursors SELECT 'events', transaction_xid, seq FROM usage_records WHERE seq = 10",
    )
    assert await target.run("restore", str(await made(source, tmp_path / "backups"))) == 0
    # Numbers that no transaction gets.
    assert target.rows("SELECT DISTINCT transaction_xid::text FROM usage_records WHERE seq <= 30 ORDER BY 1") == [
        ("1",),
        ("2",),
    ]
    # In the old order, records with a smaller seq come after it.
    sent = {name for (name,) in source.rows("SELECT request_id FROM usage_records WHERE seq >= 10")}
    everything = {f"req_{number:04}" for number in range(33)}
    async with opened(target.url) as database:
        await written.add_usage(database, [usage(50)])
        async with NotificationsStore(database).sending_events(100) as batch:
            assert batch
            found = [record["request_id"] for record in batch.records]
        assert set(found) == (everything - sent) | {"req_0050"} and found[-1] == "req_0050"
        async with NotificationsStore(database).sending_events(100) as batch:
            assert batch and not batch.records
    await assert_clean(target.url)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, wait_s=20)
    await database.open()
    yield database
    await database.close()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite(backup: Path, **changes: Any) -> None:
    kept = json.loads((backup / manifest.NAME).read_text())
    (backup / manifest.NAME).write_text(json.dumps(kept | changes))


LEDGER = ("usage_records", "postings", "nanodollars")
WRONG: list[tuple[str, Callable[[Path], object]]] = [
    ("database.dump is damaged", lambda backup: flip(backup / "database.dump")),
    ("models.toml is damaged", lambda backup: flip(backup / "config" / "models.toml")),
    ("database.dump is missing", lambda backup: (backup / "database.dump").unlink()),
    ("is no backup", lambda backup: (backup / manifest.NAME).unlink()),
    ("manifest.json is damaged", lambda backup: (backup / manifest.NAME).write_text("{")),
    ("which this program does not know", lambda backup: rewrite(backup, revision="9999")),
    ("made with another pepper", lambda backup: rewrite(backup, pepper_fingerprint="00")),
    ("the backup needs 99 or newer", lambda backup: rewrite(backup, postgresql=99)),
    ("not what the manifest says", lambda backup: rewrite(backup, ledger=dict.fromkeys(LEDGER, 1))),
]


async def test_what_is_wrong_with_a_backup_changes_nothing(
    source: Place, target: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = await made(source, tmp_path / "backups")
    content = {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    for message, spoil in WRONG:
        spoil(backup)
        status = commands.FAILED if "manifest says" in message else commands.REFUSED
        assert await target.run("restore", str(backup)) == status, message
        assert message in capsys.readouterr().err
        assert target.is_untouched(), message
        for path, original in content.items():
            path.write_bytes(original)
    assert await target.run("restore", str(backup)) == 0


async def test_what_is_wrong_with_the_place_changes_nothing(
    source: Place, target: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = await made(source, tmp_path / "backups")
    target.execute("CREATE TABLE mine (id int)")
    assert await target.run("restore", str(backup)) == commands.REFUSED
    assert "The database is not empty" in capsys.readouterr().err
    assert target.rows("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [("mine",)]
    target.execute("DROP TABLE mine")
    (target.home / "spool").mkdir(parents=True)
    (target.home / "spool" / "1-cccccccc.usage").write_bytes(b"")
    assert await target.run("restore", str(backup)) == commands.REFUSED
    assert "has state of its own" in capsys.readouterr().err


async def test_secrets_are_there_when_they_are_asked_for(source: Place, target: Place, tmp_path: Path) -> None:
    (source.home / "credentials.json").write_text("{}")
    backup = await made(source, tmp_path / "backups", "--with-secrets")
    assert (backup / "home" / "secrets.json").stat().st_mode & 0o777 == 0o600
    del target.variables[PEPPER]
    assert await target.run("restore", str(backup)) == 0
    assert json.loads((target.home / "secrets.json").read_text())[PEPPER] == "salt"
    assert (target.home / "credentials.json").exists()


async def test_another_pepper_is_a_choice(source: Place, target: Place, tmp_path: Path) -> None:
    backup = await made(source, tmp_path / "backups")
    target.variables[PEPPER] = "another"
    assert await target.run("restore", str(backup)) == commands.REFUSED
    assert await target.run("restore", str(backup), "--new-pepper") == 0


async def test_a_stream(source: Place, tmp_path: Path) -> None:
    stream = io.BytesIO()
    async with Progress(io.StringIO()) as progress:
        await making.to_stream(stream, Environment(source.variables), progress, with_secrets=False)
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    [backup] = (tmp_path / "unpacked").iterdir()
    assert await source.run("restore", str(backup), "--check") == 0


async def test_old_ones_go(source: Place, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    for name in ("modelplane-20250101T000000Z", "modelplane-20250102T000000Z", "mine"):
        (folder / name).mkdir(parents=True)
        (folder / name / manifest.NAME).touch()
    (folder / "modelplane-20250103T000000Z.partial").mkdir()
    assert await source.run("backup", str(folder), "--keep", "2") == 0
    kept = sorted(path.name for path in folder.iterdir())
    assert len(kept) == 4 and kept[:2] == ["mine", "modelplane-20250102T000000Z"]


async def test_what_fails_leaves_nothing(source: Place, empty_database_url: str, tmp_path: Path) -> None:
    empty = Place(source.home, empty_database_url)
    with pytest.raises(StartError, match="revision none"):
        await empty.run("backup", str(tmp_path / "backups"))
    assert not list((tmp_path / "backups").iterdir())


async def test_over_tls(source: Place, target: Place, tmp_path: Path) -> None:
    """PostgreSQL's programs that come with the embedded server have no TLS of their own."""
    authority = Authority(tmp_path / "authority", "databases")
    issued = authority.issue("server", "PostgreSQL", names=("localhost",))
    context = server_context(str(issued.certificate), str(issued.key))
    there = conninfo_to_dict(source.url)

    async def dial() -> Streams:
        return await asyncio.open_unix_connection(f"{there['host']}/.s.PGSQL.{there.get('port', 5432)}")

    def secured(place: Place, port: int) -> Place:
        name = conninfo_to_dict(place.url)["dbname"]
        check = f"hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={authority.folder / 'ca.crt'}"
        return Place(place.home, f"postgresql://{there['user']}:secret@localhost:{port}/{name}?{check}")

    async with relay(dial, context, postgres=True) as port:
        backup = await made(secured(source, port), tmp_path / "backups")
        assert await secured(target, port).run("restore", str(backup)) == 0
    assert (await assert_clean(target.url)).records == 33


async def test_one_machine_whose_platform_does_not_run(tmp_path: Path) -> None:
    """Its own server runs for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="modelplane-tests-") as place:
        homes = [Path(place) / name for name in ("here", "there")]
        here, there = (Environment({"MODELPLANE_HOME": str(home), PEPPER: "salt"}) for home in homes)
        with pytest.raises(StartError, match="No platform has run"):
            await commands.run(parser().parse_args(["backup", str(tmp_path)]), here)
        assert not homes[0].exists()
        async with reached(here.group(PlatformSettings)) as url:
            await asyncio.to_thread(upgrade, url)
            # Another process finds the same one.
            assert running_url(homes[0]) == url
        assert running_url(homes[0]) is None
        assert await commands.run(parser().parse_args(["backup", str(tmp_path)]), here) == 0
        [backup] = tmp_path.iterdir()
        assert await commands.run(parser().parse_args(["restore", str(backup)]), there) == 0
        async with reached(there.group(PlatformSettings)) as url:
            assert (await assert_clean(url)).records == 0


def test_a_password_is_no_part_of_what_others_see() -> None:
    conninfo, line = without_password("postgresql://me:a%3Ab%5Cc@db/x?sslmode=require")
    assert conninfo_to_dict(conninfo) == {"user": "me", "host": "db", "dbname": "x", "sslmode": "require"}
    assert line == "*:*:*:*:a\\:b\\\\c\n"
    assert without_password("postgresql://me@db/x")[1] == ""
