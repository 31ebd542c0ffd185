"""Which limits a model has."""

from pathlib import Path

import pytest

from services.catalog import Catalog, ModelSpec
from services.ratelimit.settings import RateLimitSettings, model_rates
from services.settings import Environment, SettingsError

CATALOG = Catalog((ModelSpec(name="small", aliases=("tiny",)), ModelSpec(name="large")))


def test_a_model_without_a_table_has_the_settings_limits() -> None:
    settings = Environment({"MODELPLANE_RATELIMIT_PROJECT_RPM": "7"}).group(RateLimitSettings)
    rates = model_rates(settings, CATALOG, None)("small")
    assert rates.project.requests.units == 7
    assert rates.organization.tokens.units == 10_000_000


def test_a_table_changes_what_it_names(tmp_path: Path) -> None:
    config = tmp_path / "models.toml"
    config.write_text('[[limits]]\nmodel = "tiny"\norganization_rpm = 3\nproject_tpm = 50\n')
    rates = model_rates(RateLimitSettings(), CATALOG, config)
    assert rates("small").organization.requests.units == 3
    assert rates("small").organization.tokens.units == 10_000_000
    assert rates("small").project.tokens.units == 50
    assert rates("large").organization.requests.units == 10_000


@pytest.mark.parametrize(
    "tables",
    [
        '[[limits]]\nmodel = "unknown"\n',
        '[[limits]]\nmodel = "small"\n[[limits]]\nmodel = "tiny"\n',
        '[[limits]]\nmodel = "small"\norganization_rpm = 0\n',
        '[[limits]]\nmodel = "small"\norganisation_rpm = 1\n',
        "[[limits]]\n",
        "limits = 1\n",
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, tables: str) -> None:
    config = tmp_path / "models.toml"
    config.write_text(tables)
    with pytest.raises(SettingsError, match=r"models\.toml: limits"):
        model_rates(RateLimitSettings(), CATALOG, config)


@pytest.mark.parametrize("field", ["ORGANIZATION_RPM", "PROJECT_TPM", "LEASE_S", "SNAPSHOT_INTERVAL_S"])
def test_nothing_is_not_a_limit(field: str) -> None:
    with pytest.raises(SettingsError, match=field):
        Environment({f"MODELPLANE_RATELIMIT_{field}": "0"}).group(RateLimitSettings)
