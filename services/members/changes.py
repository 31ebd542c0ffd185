"""One change of who is in an organisation, by one actor: what it may do, and what the audit log says of it.

Keeps true: nothing here takes an organisation its last owner.
"""

from typing import NamedTuple

from modelplane.admin.v1.admin_pb2 import Actor
from services.faults import Fault, InvalidRequest, NotFound
from services.members.store import Records


class Change(NamedTuple):
    """It holds the organisation's lock: what it sees stays so until it ends."""

    records: Records
    organization_id: str
    actor: Actor

    async def join(self, user_id: str, role: str) -> bool:
        """Makes the user a member; False when that was so before."""
        if not await self.records.add_member(self.organization_id, user_id, role):
            return False
        await self.note("user.added", user_id, data={"role": role})
        return True

    async def set_role(self, user_id: str, role: str) -> None:
        """Raises NotFound or InvalidRequest (last_owner)."""
        current = await self._role(user_id)
        if current == role:
            return
        await self._keep_an_owner(user_id, current)
        await self.records.set_role(self.organization_id, user_id, role)
        await self.note("user.updated", user_id, changes_requested={"role": role})

    async def leave(self, user_id: str) -> None:
        """Raises NotFound or InvalidRequest (last_owner)."""
        await self._keep_an_owner(user_id, await self._role(user_id))
        await self.records.remove_member(self.organization_id, user_id)
        await self.note("user.deleted", user_id)

    async def join_project(self, project_id: str, user_id: str, role: str) -> bool:
        """Puts a member of the organisation into a project; False when that was so before."""
        if not await self.records.add_project_member(self.organization_id, project_id, user_id, role):
            return False
        await self.note("user.added", user_id, project_id, data={"role": role})
        return True

    async def set_project_role(self, project_id: str, user_id: str, role: str) -> None:
        """For a user of the project."""
        await self.records.set_project_role(self.organization_id, project_id, user_id, role)
        await self.note("user.updated", user_id, project_id, changes_requested={"role": role})

    async def leave_project(self, project_id: str, user_id: str) -> None:
        """Raises NotFound."""
        if not await self.records.remove_project_member(self.organization_id, project_id, user_id):
            raise no_user(user_id)
        await self.note("user.deleted", user_id, project_id)

    async def note(self, kind: str, subject: str, project_id: str = "", **details: dict[str, str]) -> None:
        """An event for the audit log. `subject` is the id of the user or the invite."""
        await self.records.audit(
            kind, self.organization_id, self.actor, subject, project_id=project_id, details={"id": subject, **details}
        )

    async def _role(self, user_id: str) -> str:
        role = await self.records.role(self.organization_id, user_id)
        if role is None:
            raise no_user(user_id)
        return role

    async def _keep_an_owner(self, user_id: str, role: str) -> None:
        if role == "owner" and not await self.records.has_other_owner(self.organization_id, user_id):
            raise InvalidRequest(
                "last_owner", "The last owner of an organization can neither be removed nor get another role."
            )


def no_user(name: str) -> Fault:
    """`name` is an id or an address."""
    return NotFound("user_not_found", f"No such user: '{name}'.")
