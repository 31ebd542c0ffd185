"""Whose word counts for a limit."""

import pytest

from modelplane.limits.v1 import limits_pb2
from modelplane.limits.v1.limits_pb2 import Override
from services.ratelimit.limits import DIMENSIONS, IPM, RPM, TPM
from services.ratelimit.settings import LimitGroup, LimitsTable
from tests.services.ratelimit.limiters import make_book

ORGANIZATION, PROJECT = limits_pb2.SCOPE_ORGANIZATION, limits_pb2.SCOPE_PROJECT


def override(scope: limits_pb2.Scope, model: str, limit: int, dimension: int = RPM) -> Override:
    return Override(
        scope=scope,
        model=model,
        dimension=limits_pb2.Dimension.Name(limits_pb2.Dimension.ValueType(dimension)),
        limit=limit,
    )


def test_every_dimension_can_be_said_by_its_word() -> None:
    assert {*DIMENSIONS.values()} == {*limits_pb2.Dimension.values()} - {limits_pb2.DIMENSION_UNSPECIFIED}
    fields = LimitsTable.__struct_fields__
    assert {f"{scope}_{word}" for scope in ("organization", "project") for word in DIMENSIONS} < {*fields}


def test_each_place_comes_before_the_next() -> None:
    tables = (LimitsTable(model="small", tier=1, organization_rpm=4), LimitsTable(model="small", organization_rpm=3))
    overrides = [override(ORGANIZATION, "small", 5)]
    assert make_book(*tables, organization_rpm=2).limits("small", 1, overrides).organization[RPM] == 5
    assert make_book(*tables, organization_rpm=2).limits("small", 1).organization[RPM] == 4
    assert make_book(*tables, organization_rpm=2).limits("small", 2).organization[RPM] == 3
    assert make_book(organization_rpm=2).limits("small", 2).organization[RPM] == 2
    assert make_book().limits("small", 2).organization[RPM] == 5_000


def test_a_project_has_its_own_limit_or_its_organisations() -> None:
    limits = make_book().limits("small", 1, [override(ORGANIZATION, "small", 50), override(PROJECT, "small", 9, TPM)])
    assert (limits.organization[RPM], limits.project[RPM]) == (50, 50)
    assert (limits.organization[TPM], limits.project[TPM]) == (200_000, 9)


@pytest.mark.parametrize("name", ["small", "tiny", "large", "chat"])
def test_an_override_for_a_model_of_a_group_is_for_the_group(name: str) -> None:
    book = make_book(groups=(LimitGroup(name="chat", models=("small", "large")),))
    for model in ("small", "tiny", "large"):
        limits = book.limits(model, 1, [override(ORGANIZATION, name, 50)])
        assert (limits.group, limits.organization[RPM]) == ("chat", 50)
    assert book.limits("dall-e", 1, [override(ORGANIZATION, name, 50)]).organization[RPM] == 500


def test_of_two_overrides_the_lower_counts_whichever_comes_first() -> None:
    overrides = [override(PROJECT, "small", 6), override(PROJECT, "tiny", 4), override(PROJECT, "small", 5)]
    assert make_book().limits("small", 1, overrides).project[RPM] == 4


def test_a_group_has_the_limits_of_its_first_models_family() -> None:
    book = make_book(groups=(LimitGroup(name="art", models=("dall-e", "small")),))
    assert book.limits("small", 1).organization[IPM] == 5


def test_a_model_that_nobody_configured_has_the_limits_of_its_family() -> None:
    assert make_book().limits("whisper-1", 0).group == "whisper-1"
    assert make_book().limits("ft:something", 0).organization[RPM] == 3
