"""Tenants, keys and limits as their owners meet them: by the official SDK and by the command line."""

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import psycopg
import pytest
from openai import AuthenticationError, NotFoundError, OpenAI, PermissionDeniedError, RateLimitError
from openai.types.chat import ChatCompletionMessageParam

from tests.journeys.platform_process import PlatformProcess, wait_until
from tests.journeys.test_scripted_platform import run_command

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
FAST: Final = "scripted-fast"
HEADERS: Final = {
    f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")
}


def admin_sdk(platform: PlatformProcess) -> OpenAI:
    """The official client with the admin key of the first run."""
    return platform.sdk(max_retries=0, admin_api_key=platform.credentials["admin_key"])


def sdk_with(platform: PlatformProcess, key: str, **options: Any) -> OpenAI:
    return platform.sdk(**{"max_retries": 0, **options}).with_options(api_key=key)


def command(platform: PlatformProcess, *arguments: str) -> Any:
    return json.loads(run_command(platform, *arguments, "--json"))


def new_project(platform: PlatformProcess, name: str) -> tuple[str, OpenAI]:
    """A project's id and a client with a key of it."""
    project = admin_sdk(platform).admin.organization.projects.create(name=name)
    made = command(platform, "keys", "create", "--project", project.id)
    return project.id, sdk_with(platform, made["secret"])


def chat(client: OpenAI) -> Any:
    return client.chat.completions.with_raw_response.create(model=FAST, messages=HELLO)


def succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except (AuthenticationError, NotFoundError, RateLimitError):
        return False
    return True


def holds_within_a_second(condition: Callable[[], bool]) -> None:
    """Whatever is asked a second after the change, or later, meets the condition; a busy machine adds to that."""
    end_s = time.monotonic() + 3
    asked_s = time.monotonic()
    while not condition():
        assert asked_s <= end_s
        time.sleep(0.05)
        asked_s = time.monotonic()


def test_a_service_account_works_in_its_project_only(scripted_platform: PlatformProcess) -> None:
    organization = scripted_platform.credentials["organization"]
    admin = admin_sdk(scripted_platform).admin.organization
    project = admin.projects.create(name="Robots")
    account = admin.projects.service_accounts.create(project.id, name="robot")
    assert account.api_key and account.api_key.value.startswith("sk-svcacct-")
    robot = sdk_with(scripted_platform, account.api_key.value)
    raw = chat(robot)
    assert raw.headers["openai-organization"] == organization
    request_id = raw.headers["x-request-id"]
    wait_until(lambda: owner_of(scripted_platform, request_id) is not None, 30, "the usage is in the ledger")
    assert owner_of(scripted_platform, request_id) == (organization, project.id, account.api_key.id)

    first = scripted_platform.sdk(max_retries=0)
    theirs = first.chat.completions.create(model=FAST, messages=HELLO, store=True).id
    wait_until(lambda: succeeds(lambda: first.chat.completions.retrieve(theirs)), 30, "it is stored")
    for foreign in (
        lambda: robot.chat.completions.retrieve(theirs),
        lambda: robot.chat.completions.messages.list(theirs),
        lambda: robot.chat.completions.update(theirs, metadata={"a": "b"}),
        lambda: robot.chat.completions.delete(theirs),
    ):
        with pytest.raises(NotFoundError):
            foreign()
    assert theirs not in {stored.id for stored in robot.chat.completions.list()}
    with pytest.raises(AuthenticationError):
        robot.with_options(project=scripted_platform.credentials["project"]).models.list()

    shown = admin.projects.api_keys.retrieve(account.api_key.id, project_id=project.id)
    assert shown.owner.service_account and shown.owner.service_account.id == account.id
    assert account.api_key.value not in shown.to_json()
    admin.projects.api_keys.delete(account.api_key.id, project_id=project.id)
    holds_within_a_second(lambda: not succeeds(robot.models.list))


def owner_of(platform: PlatformProcess, request_id: str) -> tuple[str, str, str] | None:
    with psycopg.connect(platform.database_url) as connection:
        return connection.execute(
            "SELECT organization_id, project_id, key_id FROM usage_records WHERE request_id = %s", (request_id,)
        ).fetchone()


def test_a_denied_model_vanishes_and_comes_back(scripted_platform: PlatformProcess) -> None:
    project_id, client = new_project(scripted_platform, "Deniers")
    permissions = admin_sdk(scripted_platform).admin.organization.projects.model_permissions
    assert succeeds(lambda: chat(client))
    permissions.update(project_id, mode="deny_list", model_ids=[FAST])
    holds_within_a_second(lambda: not succeeds(lambda: chat(client)))
    with pytest.raises(NotFoundError) as refused:
        client.chat.completions.create(model="scripted-alias", messages=HELLO)
    assert refused.value.code == "model_not_found"
    assert FAST not in {model.id for model in client.models.list()}
    assert succeeds(lambda: scripted_platform.sdk().models.retrieve(FAST))
    permissions.delete(project_id)
    holds_within_a_second(lambda: succeeds(lambda: chat(client)))


def test_a_project_is_used_from_where_it_may(scripted_platform: PlatformProcess) -> None:
    project_id, client = new_project(scripted_platform, "Insiders")
    assert succeeds(client.models.list)
    command(scripted_platform, "projects", "update", project_id, "--ip-ranges", "10.0.0.0/8", "2001:db8::/32")
    holds_within_a_second(lambda: not succeeds(client.models.list))
    with pytest.raises(AuthenticationError) as refused:
        chat(client)
    assert refused.value.code == "ip_not_authorized" and "127.0.0.1" in refused.value.message
    command(scripted_platform, "projects", "update", project_id, "--ip-ranges", "127.0.0.0/8")
    holds_within_a_second(lambda: succeeds(client.models.list))


def test_limits_of_a_project(scripted_platform: PlatformProcess) -> None:
    project_id, client = new_project(scripted_platform, "Limited")
    [shown] = command(scripted_platform, "limits", "set", FAST, "rpm=2", "--project", project_id)
    assert (shown["model"], shown["rpm"]) == (FAST, 2)
    assert [limit_of(client), limit_of(client)] == [2, 2]
    with pytest.raises(RateLimitError) as third:
        chat(client)
    refused = third.value
    told = re.search(
        f"Rate limit reached for {FAST} in project {project_id} on requests per min \\(RPM\\): "
        "Limit 2, Used 2, Requested 1. Please try again in ([0-9.]+)s.",
        refused.message,
    )
    assert told and 25 <= float(told[1]) <= 30
    assert (refused.type, refused.code) == ("requests", "rate_limit_exceeded")
    headers = refused.response.headers
    assert set(headers) >= {*HEADERS, "retry-after", "retry-after-ms"}
    assert 25 <= int(headers["retry-after"]) <= 30
    assert 0 <= int(headers["retry-after"]) * 1000 - int(headers["retry-after-ms"]) < 1000
    assert headers["x-ratelimit-limit-requests"] == "2" and headers["x-ratelimit-remaining-requests"] == "0"

    command(scripted_platform, "limits", "set", FAST, "rpm=30", "--project", project_id)
    holds_within_a_second(lambda: limit_of(client) == 30)
    started_s = time.monotonic()
    wait_s = int(refusal_of(client).response.headers["retry-after-ms"]) / 1000
    patient = client.with_options(max_retries=2)
    assert patient.chat.completions.create(model=FAST, messages=HELLO).choices[0].finish_reason == "stop"
    assert 0 < wait_s <= 2 and wait_s < time.monotonic() - started_s < wait_s + 6
    wait_until(lambda: limit_headers_of_a_stream(client), 30, "a stream fits")

    command(scripted_platform, "limits", "set", FAST, "tpm=5", "--project", project_id)
    holds_within_a_second(lambda: not succeeds(lambda: chat(client)))
    never = refusal_of(client)
    assert f"Request too large for {FAST}" in never.message
    assert not {"retry-after", "retry-after-ms"} & set(never.response.headers)

    command(scripted_platform, "limits", "clear", FAST, "--project", project_id)
    holds_within_a_second(lambda: limit_of(client) == 30_000)


def limit_of(client: OpenAI) -> int:
    """Requests per minute as any answer tells them."""
    try:
        headers: Mapping[str, str] = chat(client).headers
    except RateLimitError as refused:
        headers = refused.response.headers
    assert set(headers) >= HEADERS
    return int(headers["x-ratelimit-limit-requests"])


def refusal_of(client: OpenAI) -> RateLimitError:
    """Of the first request that is too many."""
    for _ in range(60):
        try:
            chat(client)
        except RateLimitError as refused:
            return refused
    raise AssertionError("nothing was refused")


def limit_headers_of_a_stream(client: OpenAI) -> bool:
    """Whether one was let through; then its headers were there before its first byte."""
    try:
        with client.chat.completions.with_streaming_response.create(
            model="scripted-slow", messages=HELLO, stream=True, max_tokens=20
        ) as answer:
            assert set(answer.headers) >= HEADERS
            return True
    except RateLimitError:
        return False


def test_keys_do_what_they_may(scripted_platform: PlatformProcess) -> None:
    restricted = command(scripted_platform, "keys", "create", "--scopes", "api.model.read")
    client = sdk_with(scripted_platform, restricted["secret"])
    assert succeeds(client.models.list)
    with pytest.raises(PermissionDeniedError) as refused:
        chat(client)
    assert refused.value.code == "missing_scope" and "model.request" in refused.value.message

    short = command(scripted_platform, "keys", "create", "--expires-in", "1s")
    brief = sdk_with(scripted_platform, short["secret"])
    wait_until(lambda: not succeeds(brief.models.list), 30, "the key has expired")
    with pytest.raises(AuthenticationError) as expired:
        chat(brief)
    assert expired.value.code == "expired_api_key"

    with pytest.raises(PermissionDeniedError):
        sdk_with(scripted_platform, scripted_platform.credentials["admin_key"]).models.list()
    listed = command(scripted_platform, "keys", "list")
    assert {restricted["id"], short["id"]} <= {key["id"] for key in listed}
    assert restricted["secret"] not in json.dumps(listed)


def test_what_is_ended_stops_its_keys(scripted_platform: PlatformProcess) -> None:
    projects = admin_sdk(scripted_platform).admin.organization.projects
    project_id, client = new_project(scripted_platform, "Ended")
    account = projects.service_accounts.create(project_id, name="robot")
    assert account.api_key
    robot = sdk_with(scripted_platform, account.api_key.value)
    assert succeeds(lambda: chat(client)) and succeeds(lambda: chat(robot))
    projects.service_accounts.delete(account.id, project_id=project_id)
    holds_within_a_second(lambda: not succeeds(lambda: chat(robot)))
    assert succeeds(lambda: chat(client))
    assert projects.archive(project_id).status == "archived"
    holds_within_a_second(lambda: not succeeds(lambda: chat(client)))
    assert project_id not in {project.id for project in projects.list()}
    assert project_id in {project.id for project in projects.list(include_archived=True)}


def test_payments_raise_the_usage_tier(scripted_platform: PlatformProcess) -> None:
    made = command(scripted_platform, "orgs", "create", "Payers")
    place = ("--organization", made["id"])
    client = sdk_with(scripted_platform, command(scripted_platform, "keys", "create", *place)["secret"])
    admin_key = command(scripted_platform, "keys", "create", "--admin", *place)["secret"]
    admin = scripted_platform.sdk(max_retries=0, admin_api_key=admin_key).admin.organization
    assert limit_of(client) == 3
    assert "in organization " + made["id"] in refusal_of(client).message
    paid = command(scripted_platform, "payments", "record", *place, "5.00", "--id", "invoice-1")
    assert (paid["tier"], paid["booked_now"]) == (1, True)
    holds_within_a_second(lambda: limit_of(client) == 500)
    again = command(scripted_platform, "payments", "record", *place, "5.00", "--id", "invoice-1")
    assert again == {**paid, "booked_now": False}
    assert command(scripted_platform, "orgs", "tier", *place, "4")["tier"] == 4
    holds_within_a_second(lambda: limit_of(client) == 10_000)
    assert command(scripted_platform, "orgs", "tier", *place, "auto")["tier"] == 1
    holds_within_a_second(lambda: limit_of(client) == 500)

    events = [event.to_dict() for event in admin.audit_logs.list()]
    kinds = [str(event["type"]) for event in reversed(events)]
    tier = "organization.usage_tier.updated"
    assert kinds == ["organization.created", *kinds[1:-4], "organization.payment.recorded", tier, tier, tier]
    assert {"project.created", "api_key.created"} <= set(kinds)
    told = [changes(event, tier) for event in reversed(events) if event["type"] == tier]
    assert told == [{"from": 0, "to": 1}, {"from": 1, "to": 4}, {"from": 4, "to": 1}]
    foreign = admin_sdk(scripted_platform).admin.organization
    assert not {event["id"] for event in events} & {event.id for event in foreign.audit_logs.list()}


def changes(event: Mapping[str, Any], kind: str) -> Any:
    return event[kind]["changes_requested"]["usage_tier"]


def test_people(scripted_platform: PlatformProcess) -> None:
    made = command(scripted_platform, "orgs", "create", "People")
    place = ("--organization", made["id"])
    ann = command(scripted_platform, "users", "add", *place, "ann@example.com", "--name", "Ann", "--role", "owner")
    invite = command(scripted_platform, "invites", "add", *place, "bob@example.com", "--projects", made["project"])
    assert [one["status"] for one in command(scripted_platform, "invites", "list", *place)] == ["pending"]
    bob = command(scripted_platform, "invites", "accept", *place, invite["id"], "--name", "Bob")
    assert (bob["role"], bob["projects"]) == ("reader", [made["project"]])
    listed = command(scripted_platform, "users", "list", *place)
    assert [user["id"] for user in listed] == [ann["id"], bob["id"]]
    admin_key = command(scripted_platform, "keys", "create", "--admin", *place)["secret"]
    admin = scripted_platform.sdk(max_retries=0, admin_api_key=admin_key).admin.organization
    assert {user.email for user in admin.users.list()} == {"ann@example.com", "bob@example.com"}
    assert [user.email for user in admin.projects.users.list(made["project"])] == ["bob@example.com"]
    key = command(scripted_platform, "keys", "create", *place, "--user", bob["id"])["secret"]
    client = sdk_with(scripted_platform, key)
    assert succeeds(client.models.list)
    admin.users.delete(bob["id"])
    holds_within_a_second(lambda: not succeeds(client.models.list))
