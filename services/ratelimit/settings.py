"""The rate limiter's settings: limits that an operator sets in place of the usage tiers', and how to reserve."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from services.ratelimit.tiers import TIERS
from services.settings import Group, SettingsError

Limit = Annotated[int, msgspec.Meta(ge=1)]


class RateLimitSettings(Group, frozen=True, kw_only=True):
    """Limits are per model and come from the organisation's usage tier. A limit that is set here holds for every
    tier and model instead, unless a `[[limits]]` table names the model."""

    group: ClassVar[str] = "ratelimit"

    organization_rpm: Limit | None = None
    """Requests per minute of one organisation. Default: as its usage tier has it."""

    organization_tpm: Limit | None = None
    """Tokens per minute of one organisation, prompt and completion together. Default: as its usage tier has it."""

    project_rpm: Limit | None = None
    """Requests per minute of one project. Default: as its organisation's."""

    project_tpm: Limit | None = None
    """Tokens per minute of one project. Default: as its organisation's."""

    expected_output_tokens: Annotated[int, msgspec.Meta(ge=0)] = 256
    """Output tokens that a request is expected to use before the requests of the same key have taught better."""

    lease_s: Annotated[float, msgspec.Meta(gt=0)] = 900.0
    """Seconds after which a reservation that nobody settled ends, with what it is known to have used. Longer than
    the longest generation with its time in the queue: the SDKs give up after 600."""

    snapshot_interval_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    """Seconds between two snapshots: the most consumption that a crash can make the limiter forget."""


TableLimit = Annotated[int, msgspec.Meta(ge=0)] | Literal["unlimited"]
"""Units per window; 0 lets nothing through."""


class LimitsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[limits]]` table: limits of one model or group, for one usage tier or for all."""

    model: str | None = None
    """The model, by any of its names. Either this or `group`."""

    group: str | None = None
    """The name of a `[[limit_groups]]` table."""

    tier: Annotated[int, msgspec.Meta(ge=TIERS.start, lt=TIERS.stop)] | None = None
    """The usage tier; 0 is Free. Default: all tiers that have no table of their own."""

    organization_rpm: TableLimit | None = None
    """Requests per minute of one organisation."""

    organization_rpd: TableLimit | None = None
    """Requests per day of one organisation."""

    organization_tpm: TableLimit | None = None
    """Tokens per minute of one organisation, prompt and completion together."""

    organization_tpd: TableLimit | None = None
    """Tokens per day of one organisation."""

    organization_ipm: TableLimit | None = None
    """Images per minute of one organisation."""

    organization_audio_mbpm: TableLimit | None = None
    """Megabytes (of 1,000,000 bytes) of audio per minute of one organisation."""

    organization_batch_tpd: TableLimit | None = None
    """Prompt tokens of batches per day of one organisation."""

    project_rpm: TableLimit | None = None
    """Requests per minute of one project."""

    project_rpd: TableLimit | None = None
    """Requests per day of one project."""

    project_tpm: TableLimit | None = None
    """Tokens per minute of one project."""

    project_tpd: TableLimit | None = None
    """Tokens per day of one project."""

    project_ipm: TableLimit | None = None
    """Images per minute of one project."""

    project_audio_mbpm: TableLimit | None = None
    """Megabytes of audio per minute of one project."""

    project_batch_tpd: TableLimit | None = None
    """Prompt tokens of batches per day of one project."""


class LimitGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[limit_groups]]` table: models that share one set of buckets."""

    name: str
    """What refusals and limits call the group. Not the name of a model."""

    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Its models, by any of their names. A model is in one group at most."""


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the file of models says about limits."""

    limits: tuple[LimitsTable, ...] = ()
    limit_groups: tuple[LimitGroup, ...] = ()


def read(tables: Mapping[str, Any]) -> LimitsConfig:
    """The limits among the tables of the file of models. Raises SettingsError for one that cannot be used."""
    return LimitsConfig(
        limits=_convert(tables, "limits", tuple[LimitsTable, ...]),
        limit_groups=_convert(tables, "limit_groups", tuple[LimitGroup, ...]),
    )


def _convert(tables: Mapping[str, Any], name: str, kind: Any) -> Any:
    try:
        return msgspec.convert(tables.get(name, []), kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"MODELPLANE_CONFIG: {name}: {error}") from error
