"""Where an administrative call takes place: in the organisation of its key and the project that its path names."""

from typing import Any

from services.gateway.calls import Call


def project_of(call: Call) -> Any:
    """Fields of a request. The project is "" where the path names none: then the organisation itself is meant."""
    return {
        "organization_id": call.caller.organization_id,
        "project_id": call.parameters.get("project_id", ""),
    }
