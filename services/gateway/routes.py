"""The table of the gateway's endpoints: path -> method -> endpoint, its name in metrics and logs, and its scope.

The admin API's part of it is in `organization/routes.py`. What is in neither does not exist, and what has no scope is
open to everybody.
"""

from typing import NamedTuple

from services.gateway.application import Route, Routes
from services.gateway.chat_completions import ChatCompletions
from services.gateway.models import Models
from services.gateway.operations import Operations
from services.gateway.organization.routes import Administered, organization_routes
from services.gateway.payments_webhook import PaymentsWebhook
from services.gateway.stored_completions import StoredCompletions
from services.gateway.text_completions import TextCompletions


class Endpoints(NamedTuple):
    """What the routes lead to."""

    chat_completions: ChatCompletions
    text_completions: TextCompletions
    stored_completions: StoredCompletions
    models: Models
    operations: Operations
    payments_webhook: PaymentsWebhook
    administered: Administered


def routes(to: Endpoints) -> Routes:
    """The whole table."""
    return {
        **_models(to),
        **_stored_completions(to.stored_completions),
        **organization_routes(to.administered),
        **_operations(to.operations),
        # Open to everybody, because who calls it signs what it sends.
        "/v1/webhooks/payments": {"POST": Route(to.payments_webhook, "webhooks.payments")},
    }


def _models(to: Endpoints) -> Routes:
    return {
        "/v1/chat/completions": {
            "POST": Route(to.chat_completions, "chat.completions", "model.request"),
            "GET": Route(to.stored_completions.list_all, "chat.completions.list", "api.chat.completions.read"),
        },
        "/v1/completions": {"POST": Route(to.text_completions, "completions", "model.request")},
        "/v1/models": {"GET": Route(to.models.list_all, "models.list", "api.model.read")},
        "/v1/models/{model}": {"GET": Route(to.models.get, "models.retrieve", "api.model.read")},
    }


def _stored_completions(to: StoredCompletions) -> Routes:
    read, write = "api.chat.completions.read", "api.chat.completions.write"
    return {
        "/v1/chat/completions/{completion_id}": {
            "GET": Route(to.get, "chat.completions.retrieve", read),
            "POST": Route(to.update, "chat.completions.update", write),
            "DELETE": Route(to.delete, "chat.completions.delete", write),
        },
        "/v1/chat/completions/{completion_id}/messages": {
            "GET": Route(to.messages, "chat.completions.messages.list", read),
        },
    }


def _operations(to: Operations) -> Routes:
    return {
        "/healthz": {"GET": Route(to.healthz)},
        "/readyz": {"GET": Route(to.readyz)},
        "/metrics": {"GET": Route(to.metrics)},
    }
