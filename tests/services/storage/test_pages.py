"""Lists by cursor: every row once, in order, whichever way they are read; nobody else's rows help to find one's own."""

import pytest

from modelplane.admin.v1.admin_pb2 import Page
from services.faults import InvalidRequest
from services.storage import Database
from services.storage.pages import Listing, page

LISTING = Listing("id", "projects", ["organization_id = %(organization_id)s"])
OWNER = {"organization_id": "org-1"}


@pytest.fixture
async def projects(database: Database) -> Database:
    """Seven of one organisation, two each of one second, and one of another."""
    async with database.connection() as connection:
        await connection.execute("INSERT INTO organizations (id, name) VALUES ('org-1', ''), ('org-2', '')")
        for number in range(7):
            await connection.execute(
                "INSERT INTO projects (id, organization_id, name, created_at) "
                "VALUES (%s, 'org-1', '', to_timestamp(%s))",
                (f"p{number}", number // 2),
            )
        await connection.execute("INSERT INTO projects (id, organization_id, name) VALUES ('other', 'org-2', '')")
    return database


async def read(database: Database, **asked: object) -> tuple[list[str], bool]:
    async with database.connection() as connection:
        rows, has_more = await page(connection, LISTING, OWNER, Page(**asked))  # type: ignore[arg-type]
    return [row[0] for row in rows], has_more


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10])
async def test_pages_make_up_the_list(projects: Database, ascending: bool, limit: int) -> None:
    seen: list[str] = []
    has_more = True
    while has_more:
        found, has_more = await read(projects, limit=limit, ascending=ascending, after=seen[-1] if seen else "")
        seen += found
    expected = [f"p{number}" for number in range(7)]
    assert seen == (expected if ascending else expected[::-1])


async def test_a_page_before(projects: Database) -> None:
    assert await read(projects, limit=2, ascending=True, before="p5") == (["p3", "p4"], True)
    assert await read(projects, limit=9, ascending=True, before="p2") == (["p0", "p1"], False)
    assert await read(projects, limit=2, before="p2") == (["p4", "p3"], True)
    assert await read(projects, limit=9, ascending=True, after="p1", before="p4") == (["p2", "p3"], False)


@pytest.mark.parametrize("cursor", ["other", "nothing"])
async def test_a_foreign_cursor_is_refused(projects: Database, cursor: str) -> None:
    for name in ("after", "before"):
        with pytest.raises(InvalidRequest) as caught:
            await read(projects, limit=2, **{name: cursor})
        assert caught.value.param == name
    assert await read(projects, limit=2, after="p0") == ([], False)


async def test_a_row_that_is_no_longer_listed_is_a_cursor_still(projects: Database) -> None:
    async with projects.connection() as connection:
        await connection.execute("UPDATE projects SET archived_at = now() WHERE id IN ('p3', 'p4')")
        listing = LISTING._replace(live=["archived_at IS NULL"])
        for asked, expected in ((Page(limit=2, ascending=True, after="p3"), ["p5", "p6"]), (Page(before="p4"), [])):
            asked.limit = 2
            rows, _ = await page(connection, listing, OWNER, asked)
            assert [row[0] for row in rows] == (expected or ["p6", "p5"])
