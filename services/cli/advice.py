"""What to do after a command was refused. The services' words are for clients of the API, who have no commands."""

from collections.abc import Mapping
from typing import Final

from services.faults import Fault

_IS_IT_RUNNING: Final = "Is the platform running? `make up` starts it."
_ELSEWHERE: Final = "another organization's need --organization ID."
_ADVICE: Final[Mapping[str, str]] = {
    "organization_not_found": "`modelplane orgs list` shows all.",
    "project_not_found": f"`modelplane projects list` shows all; {_ELSEWHERE}",
    "user_not_found": f"`modelplane users list` shows all; {_ELSEWHERE}",
    "invite_not_found": f"`modelplane invites list` shows all; {_ELSEWHERE}",
    "key_not_found": (
        "`modelplane keys list` shows the ids of a project's keys, with --project ID, or of the organization's, with "
        f"--admin; {_ELSEWHERE}"
    ),
    "service_account_not_found": (
        "The API shows those of a project: GET /v1/organization/projects/{project_id}/service_accounts."
    ),
    "model_not_found": "`modelplane limits show` shows all.",
    "service_unavailable": _IS_IT_RUNNING,
    "timeout": _IS_IT_RUNNING,
}


def explained(fault: Fault) -> str:
    """The fault's message, and what helps."""
    advice = _ADVICE.get(fault.reason)
    return f"{fault.message} {advice}" if advice else fault.message
