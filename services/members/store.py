"""The queries of users, of what they are in organisations and projects, and of invites.

Keeps true: a row is found only with the organisation that it belongs to, and an address is one user's however it is
written. What has to hold between two queries, such as that an owner stays, holds while `lock` is held.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from modelplane.admin.v1.admin_pb2 import Actor, Page
from modelplane.members.v1.members_pb2 import Invite, ProjectRole, ProjectUser, User
from services.storage import Database
from services.storage.audit import audit
from services.storage.pages import Listing, page

# Archived projects have no members.
_USER_COLUMNS: LiteralString = """
    member.user_id, name, email, role, added_at, created_at,
    (SELECT max(last_used_at) FROM api_keys
        WHERE api_keys.user_id = member.user_id AND api_keys.organization_id = member.organization_id),
    (SELECT coalesce(json_agg(json_build_array(projects.id, projects.name, project_members.role)
            ORDER BY projects.created_at, projects.id), '[]')
        FROM project_members JOIN projects ON projects.id = project_id
        WHERE project_members.user_id = member.user_id AND archived_at IS NULL
            AND project_members.organization_id = member.organization_id)"""
_USERS: LiteralString = "organization_members AS member JOIN users ON users.id = member.user_id"
_IN_ORGANIZATION: LiteralString = "member.organization_id = %(organization_id)s"
_NAMED: LiteralString = "lower(email) IN (SELECT lower(given) FROM unnest(%(emails)s::text[]) AS given)"

_PROJECT_USER_COLUMNS: LiteralString = "user_id, name, email, role, added_at"
_PROJECT_USERS: LiteralString = "project_members JOIN users ON users.id = user_id"
_IN_PROJECT: LiteralString = "organization_id = %(organization_id)s AND project_id = %(project_id)s"

_INVITE_COLUMNS: LiteralString = "id, email, role, created_at, expires_at, accepted_at, projects"
_MINE: LiteralString = "organization_id = %(organization_id)s"

_USERS_LISTED = Listing(
    _USER_COLUMNS,
    _USERS,
    (_IN_ORGANIZATION,),
    "added_at",
    "member.user_id",
    departed=f"list = 'organization_members' AND {_MINE} AND project_id = ''",
)
_PROJECT_USERS_LISTED = Listing(
    _PROJECT_USER_COLUMNS,
    _PROJECT_USERS,
    (_IN_PROJECT,),
    "added_at",
    "user_id",
    departed=f"list = 'project_members' AND {_IN_PROJECT}",
)
_INVITES_LISTED = Listing(
    _INVITE_COLUMNS, "invites", (_MINE,), departed=f"list = 'invites' AND {_MINE} AND project_id = ''"
)


class Records:
    """The tables as one transaction sees them."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def lock(self, organization_id: str) -> bool:
        """Keeps everybody else from changing who is in the organisation; False when there is no such."""
        query = "SELECT 1 FROM organizations WHERE id = %s FOR NO KEY UPDATE"
        return await self._row(query, (organization_id,)) is not None

    async def audit(
        self,
        kind: str,
        organization_id: str,
        actor: Actor,
        subject: str,
        *,
        project_id: str,
        details: Mapping[str, Any],
    ) -> None:
        """Notes a change of `subject`, the id of a user or an invite."""
        await audit(
            self._connection,
            kind,
            organization_id,
            actor,
            project_id=project_id,
            resource_id=subject,
            details=details,
        )

    # ------------------------------------------------------------------------------------- organisations

    async def user(self, organization_id: str, user_id: str) -> User | None:
        row = await self._row(
            f"SELECT {_USER_COLUMNS} FROM {_USERS} WHERE {_IN_ORGANIZATION} AND member.user_id = %(user_id)s",  # noqa: S608
            {"organization_id": organization_id, "user_id": user_id},
        )
        return None if row is None else _user(row)

    async def users(self, organization_id: str, asked: Page, emails: list[str] | None) -> tuple[list[User], bool]:
        listing = _USERS_LISTED._replace(live=() if emails is None else (_NAMED,))
        values = {"organization_id": organization_id, "emails": emails}
        rows, has_more = await page(self._connection, listing, values, asked)
        return [_user(row) for row in rows], has_more

    async def member(self, organization_id: str, email: str) -> str | None:
        """The id of the member with the address."""
        row = await self._row(
            f"SELECT member.user_id FROM {_USERS} WHERE {_IN_ORGANIZATION} AND lower(email) = lower(%(email)s)",  # noqa: S608
            {"organization_id": organization_id, "email": email},
        )
        return None if row is None else str(row[0])

    async def role(self, organization_id: str, user_id: str) -> str | None:
        """What the user is in the organisation."""
        row = await self._row(
            "SELECT role FROM organization_members WHERE organization_id = %s AND user_id = %s",
            (organization_id, user_id),
        )
        return None if row is None else str(row[0])

    async def has_other_owner(self, organization_id: str, user_id: str) -> bool:
        row = await self._row(
            "SELECT 1 FROM organization_members "
            "WHERE organization_id = %s AND user_id <> %s AND role = 'owner' LIMIT 1",
            (organization_id, user_id),
        )
        return row is not None

    async def identify(self, email: str, name: str, new_id: str) -> str:
        """The id of the address's user, who is made with the name and `new_id` when there is none."""
        await self._connection.execute(
            "INSERT INTO users (id, email, name) VALUES (%s, %s, %s) ON CONFLICT (lower(email)) DO NOTHING",
            (new_id, email, name),
        )
        # Whoever else has just made the user is committed by now: the insert waited.
        row = await self._row("SELECT id FROM users WHERE lower(email) = lower(%s)", (email,))
        assert row is not None
        return str(row[0])

    async def add_member(self, organization_id: str, user_id: str, role: str) -> bool:
        """False when the user is a member already."""
        return await self._changed(
            "INSERT INTO organization_members (organization_id, user_id, role) VALUES (%s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            (organization_id, user_id, role),
        )

    async def set_role(self, organization_id: str, user_id: str, role: str) -> None:
        await self._changed(
            "UPDATE organization_members SET role = %s WHERE organization_id = %s AND user_id = %s",
            (role, organization_id, user_id),
        )

    async def remove_member(self, organization_id: str, user_id: str) -> None:
        """From the organisation's projects, too."""
        await self._changed(
            "DELETE FROM organization_members WHERE organization_id = %s AND user_id = %s", (organization_id, user_id)
        )

    # ------------------------------------------------------------------------------------------ projects

    async def archived(
        self, organization_id: str, project_ids: Iterable[str], *, hold: bool = False
    ) -> dict[str, bool]:
        """By id, for the projects that the organisation has, whether they are archived; with `hold`, nobody can
        change that before the transaction ends."""
        query: LiteralString = (
            "SELECT id, archived_at IS NOT NULL FROM projects WHERE organization_id = %s AND id = ANY(%s) ORDER BY id"
        )
        rows = await self._connection.execute(
            query + " FOR SHARE" if hold else query, (organization_id, list(project_ids))
        )
        return dict(await rows.fetchall())

    async def project_user(self, organization_id: str, project_id: str, user_id: str) -> ProjectUser | None:
        row = await self._row(
            f"SELECT {_PROJECT_USER_COLUMNS} FROM {_PROJECT_USERS} WHERE {_IN_PROJECT} AND user_id = %(user_id)s",  # noqa: S608
            {"organization_id": organization_id, "project_id": project_id, "user_id": user_id},
        )
        return None if row is None else _project_user(row)

    async def project_users(self, organization_id: str, project_id: str, asked: Page) -> tuple[list[ProjectUser], bool]:
        values = {"organization_id": organization_id, "project_id": project_id}
        rows, has_more = await page(self._connection, _PROJECT_USERS_LISTED, values, asked)
        return [_project_user(row) for row in rows], has_more

    async def add_project_member(self, organization_id: str, project_id: str, user_id: str, role: str) -> bool:
        """False when the user is in the project already."""
        return await self._changed(
            "INSERT INTO project_members (organization_id, project_id, user_id, role) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            (organization_id, project_id, user_id, role),
        )

    async def set_project_role(self, organization_id: str, project_id: str, user_id: str, role: str) -> None:
        await self._changed(
            "UPDATE project_members SET role = %s WHERE organization_id = %s AND project_id = %s AND user_id = %s",
            (role, organization_id, project_id, user_id),
        )

    async def remove_project_member(self, organization_id: str, project_id: str, user_id: str) -> bool:
        """False when the user is not in the project."""
        return await self._changed(
            "DELETE FROM project_members WHERE organization_id = %s AND project_id = %s AND user_id = %s",
            (organization_id, project_id, user_id),
        )

    # ------------------------------------------------------------------------------------------- invites

    async def add_invite(self, organization_id: str, invite: Invite, created_at_s: float) -> None:
        """`created_at_s` orders the invites of one second."""
        projects = [{"id": project.project_id, "role": project.role} for project in invite.projects]
        await self._changed(
            "INSERT INTO invites (id, organization_id, email, role, projects, created_at, expires_at) "
            "VALUES (%s, %s, %s, %s, %s, to_timestamp(%s), to_timestamp(%s))",
            (
                invite.id,
                organization_id,
                invite.email,
                invite.role,
                Jsonb(projects),
                created_at_s,
                invite.expires_at,
            ),
        )

    async def is_invited(self, organization_id: str, email: str, now_s: float) -> bool:
        """Whether an invite of the address waits for its answer."""
        row = await self._row(
            "SELECT 1 FROM invites WHERE organization_id = %s AND lower(email) = lower(%s) AND accepted_at IS NULL "
            "AND expires_at > to_timestamp(%s) LIMIT 1",
            (organization_id, email, now_s),
        )
        return row is not None

    async def invite(self, organization_id: str, invite_id: str) -> Invite | None:
        """Without its status, as all invites here."""
        row = await self._row(
            f"SELECT {_INVITE_COLUMNS} FROM invites WHERE {_MINE} AND id = %(id)s",  # noqa: S608
            {"organization_id": organization_id, "id": invite_id},
        )
        return None if row is None else _invite(row)

    async def invites(self, organization_id: str, asked: Page) -> tuple[list[Invite], bool]:
        rows, has_more = await page(self._connection, _INVITES_LISTED, {"organization_id": organization_id}, asked)
        return [_invite(row) for row in rows], has_more

    async def accept_invite(self, organization_id: str, invite_id: str, now_s: float) -> None:
        await self._changed(
            "UPDATE invites SET accepted_at = to_timestamp(%s) WHERE organization_id = %s AND id = %s",
            (now_s, organization_id, invite_id),
        )

    async def delete_invite(self, organization_id: str, invite_id: str) -> None:
        await self._changed("DELETE FROM invites WHERE organization_id = %s AND id = %s", (organization_id, invite_id))

    async def _row(self, query: LiteralString, values: Any) -> TupleRow | None:
        return await (await self._connection.execute(query, values)).fetchone()

    async def _changed(self, statement: LiteralString, values: Any) -> bool:
        return (await self._connection.execute(statement, values)).rowcount > 0


class MembersStore:
    """What the service asks of the database. Everything may raise database_unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Records]:
        """All of the block or, when it raises, nothing."""
        async with self._database.connection() as connection:
            yield Records(connection)


def _user(row: TupleRow) -> User:
    user_id, name, email, role, added_at, created_at, used_at, projects = row
    return User(
        id=user_id,
        name=name,
        email=email,
        role=role,
        added_at=_seconds(added_at),
        created_at=_seconds(created_at),
        key_last_used_at=_seconds(used_at),
        projects=[ProjectRole(project_id=project, project_name=name, role=role) for project, name, role in projects],
    )


def _project_user(row: TupleRow) -> ProjectUser:
    user_id, name, email, role, added_at = row
    return ProjectUser(id=user_id, name=name, email=email, role=role, added_at=_seconds(added_at))


def _invite(row: TupleRow) -> Invite:
    invite_id, email, role, created_at, expires_at, accepted_at, projects = row
    return Invite(
        id=invite_id,
        email=email,
        role=role,
        created_at=_seconds(created_at),
        expires_at=_seconds(expires_at),
        accepted_at=_seconds(accepted_at),
        projects=[ProjectRole(project_id=project["id"], role=project["role"]) for project in projects],
    )


def _seconds(time: datetime | None) -> int:
    return 0 if time is None else int(time.timestamp())
