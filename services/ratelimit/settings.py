"""The rate limiter's settings: the limits, for all models or for one, and how reservations are made."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

from services.catalog import Catalog
from services.ratelimit.limits import ModelRates, Rates
from services.settings import Group, SettingsError

Limit = Annotated[int, msgspec.Meta(ge=1)]


class RateLimitSettings(Group, frozen=True, kw_only=True):
    """Limits are per model; the defaults are generous, for an installation with friendly users."""

    group: ClassVar[str] = "ratelimit"

    organization_rpm: Limit = 10_000
    """Requests per minute of one organisation."""

    organization_tpm: Limit = 10_000_000
    """Tokens per minute of one organisation, prompt and completion together."""

    project_rpm: Limit = 10_000
    """Requests per minute of one project."""

    project_tpm: Limit = 10_000_000
    """Tokens per minute of one project."""

    expected_output_tokens: Annotated[int, msgspec.Meta(ge=0)] = 256
    """Output tokens that a request is expected to use before the organisation's own requests have taught better."""

    lease_s: Annotated[float, msgspec.Meta(gt=0)] = 900.0
    """Seconds after which a reservation that nobody settled ends with its estimate charged. Longer than the
    longest generation with its time in the queue: the SDKs give up after 600."""

    snapshot_interval_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    """Seconds between two snapshots: the most consumption that a crash can make the limiter forget."""


class _ModelLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[limits]]` table: one model's own limits, each in place of the setting of the same name."""

    model: str
    organization_rpm: Limit | None = None
    organization_tpm: Limit | None = None
    project_rpm: Limit | None = None
    project_tpm: Limit | None = None


def model_rates(settings: RateLimitSettings, catalog: Catalog, config: Path | None) -> Callable[[str], ModelRates]:
    """The rates of any model: from its `[[limits]]` table in the file of models, else from the settings.

    Raises SettingsError for a table that cannot be used.
    """
    default = _rates(settings, _ModelLimits(model=""))
    own: dict[str, ModelRates] = {}
    for table in _tables(config) if config else ():
        spec = catalog.get(table.model)
        if spec is None or spec.name in own:
            raise SettingsError(f"{config}: limits: {table.model!r} must be a configured model, named once")
        own[spec.name] = _rates(settings, table)
    return lambda model: own.get(model, default)


def _tables(config: Path) -> list[_ModelLimits]:
    try:
        return msgspec.convert(tomllib.loads(config.read_text()).get("limits", []), list[_ModelLimits])
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SettingsError(f"{config}: limits: {error}") from error


def _rates(settings: RateLimitSettings, own: _ModelLimits) -> ModelRates:
    return ModelRates(
        Rates.per_minute(
            own.organization_rpm or settings.organization_rpm, own.organization_tpm or settings.organization_tpm
        ),
        Rates.per_minute(own.project_rpm or settings.project_rpm, own.project_tpm or settings.project_tpm),
    )
