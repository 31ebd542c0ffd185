"""What the file of models says about limits, and the settings."""

import tomllib

import pytest

from services.ratelimit import settings, tiers
from services.ratelimit.book import LimitBook
from services.ratelimit.limits import RPD, RPM, TPM
from services.ratelimit.settings import RateLimitSettings
from services.settings import Environment, SettingsError
from tests.services.ratelimit.limiters import CATALOG


def book(text: str, **variables: str) -> LimitBook:
    environment = Environment({f"MODELPLANE_RATELIMIT_{name}": value for name, value in variables.items()})
    return LimitBook(environment.group(RateLimitSettings), settings.read(tomllib.loads(text)), CATALOG, tiers.load())


def test_without_a_file_the_usage_tier_decides() -> None:
    limits = LimitBook(RateLimitSettings(), settings.read({}), CATALOG, tiers.load()).limits("small", 1)
    assert limits.group == "small"
    assert (limits.organization[RPM], limits.organization[RPD], limits.organization[TPM]) == (500, 10_000, 200_000)
    assert limits.project == limits.organization


def test_a_flat_limit_holds_for_every_tier_and_a_table_comes_before_it() -> None:
    found = book('[[limits]]\nmodel = "tiny"\norganization_rpm = 3\n', ORGANIZATION_RPM="7", PROJECT_TPM="9")
    for tier in tiers.TIERS:
        assert found.limits("large", tier).organization[RPM] == found.limits("large", tier).project[RPM] == 7
        assert found.limits("small", tier).organization[RPM] == 3
        assert found.limits("small", tier).project[TPM] == 9
    assert found.limits("large", 1).organization[TPM] == 200_000


def test_a_table_of_a_group_and_of_a_tier() -> None:
    found = book(
        """
        [[limit_groups]]
        name = "chat"
        models = ["tiny", "large"]
        [[limits]]
        group = "chat"
        tier = 2
        organization_rpm = 20
        project_rpd = 5
        [[limits]]
        group = "chat"
        organization_rpm = 10
        organization_tpm = "unlimited"
        """,
    )
    second, other = found.limits("small", 2), found.limits("large", 4)
    assert (second.group, second.organization[RPM], second.project[RPD]) == ("chat", 20, 5)
    assert (other.group, other.organization[RPM], other.project[RPM]) == ("chat", 10, 10)
    assert TPM not in second.organization and TPM not in other.project


@pytest.mark.parametrize(
    "tables",
    [
        '[[limits]]\nmodel = "unknown"\n',
        '[[limits]]\nmodel = "small"\n[[limits]]\nmodel = "tiny"\n',
        '[[limits]]\nmodel = "small"\norganization_rpm = -1\n',
        '[[limits]]\nmodel = "small"\norganization_rpm = "plenty"\n',
        '[[limits]]\nmodel = "small"\norganisation_rpm = 1\n',
        '[[limits]]\nmodel = "small"\ntier = 6\n',
        '[[limits]]\ngroup = "chat"\n',
        '[[limits]]\nmodel = "small"\ngroup = "chat"\n',
        "[[limits]]\n",
        '[[limit_groups]]\nname = "chat"\nmodels = []\n',
        '[[limit_groups]]\nname = "chat"\nmodels = ["unknown"]\n',
        '[[limit_groups]]\nname = "large"\nmodels = ["small"]\n',
        '[[limit_groups]]\nname = "chat"\nmodels = ["small", "tiny"]\n',
        '[[limit_groups]]\nname = "chat"\nmodels = ["small"]\n[[limit_groups]]\nname = "chat"\nmodels = ["large"]\n',
        '[[limit_groups]]\nname = "chat"\nmodels = ["small"]\n[[limits]]\nmodel = "small"\n',
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tables: str) -> None:
    with pytest.raises(SettingsError, match=r"limit"):
        book(tables)


@pytest.mark.parametrize("field", ["ORGANIZATION_RPM", "PROJECT_TPM", "LEASE_S", "SNAPSHOT_INTERVAL_S"])
def test_nothing_is_not_a_limit(field: str) -> None:
    with pytest.raises(SettingsError, match=field):
        Environment({f"MODELPLANE_RATELIMIT_{field}": "0"}).group(RateLimitSettings)
