"""Which limits are in force for a model: what was set for this tenant, by the operator, or by the usage tier.

For each scope and dimension the first of these that says something counts: an override, which travels with the
principal; a `[[limits]]` table for the model's group and the tier; one for all tiers; a limit of the settings; for
an organisation the table of usage tiers; for a project what its organisation has.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from modelplane.limits.v1 import limits_pb2
from services.catalog import Catalog
from services.ratelimit.buckets import Scope
from services.ratelimit.limits import DIMENSIONS, ModelLimits
from services.ratelimit.settings import LimitsConfig, LimitsTable, RateLimitSettings
from services.ratelimit.tiers import TierTable
from services.settings import SettingsError

_SCOPES: Mapping[int, Scope] = {
    limits_pb2.SCOPE_ORGANIZATION: "organization",
    limits_pb2.SCOPE_PROJECT: "project",
}

_Set = dict[tuple[Scope, int], int | Literal["unlimited"]]
"""What one place says, by scope and dimension."""


class LimitBook:
    """The limits of an installation. Raises SettingsError for tables that contradict each other or the catalogue."""

    def __init__(self, settings: RateLimitSettings, config: LimitsConfig, catalog: Catalog, tiers: TierTable) -> None:
        self._catalog = catalog
        self._tiers = tiers
        # Of each model in a group: the group. Of each group: the model whose family it belongs to.
        self._groups: dict[str, str] = {}
        self._first_models: dict[str, str] = {}
        self._add_groups(config)
        self._tables: dict[tuple[str, int | None], _Set] = {}
        for table in config.limits:
            place = (self._named(table), table.tier)
            if place in self._tables:
                raise SettingsError(f"limits: {place[0]!r} has two tables for the same tier")
            self._tables[place] = _limits_of(table)
        self._flat = _limits_of(settings)

    def models(self) -> list[str]:
        """The names of all models, sorted."""
        return sorted(spec.name for spec in self._catalog)

    def limits(self, model: str, tier: int, overrides: Iterable[limits_pb2.Override] = ()) -> ModelLimits:
        """The limits in force for a model. Of several overrides for the same limit the lowest counts."""
        group = self._group(model)
        said: list[_Set] = [self._tables.get((group, tier), {}), self._tables.get((group, None), {}), self._flat]
        if overrides:
            said.insert(0, self._overrides(group, overrides))
        by_tier = self._tiers.limits(self._first_models.get(group, group), tier)
        organization: dict[int, int] = {}
        project: dict[int, int] = {}
        for dimension in DIMENSIONS.values():
            limit = _first(said, "organization", dimension, by_tier.get(dimension))
            if limit is not None:
                organization[dimension] = limit
            limit = _first(said, "project", dimension, limit)
            if limit is not None:
                project[dimension] = limit
        return ModelLimits(group, organization, project)

    def _group(self, name: str) -> str:
        """The group of a model by any of its names; the model itself when it is in none."""
        spec = self._catalog.get(name)
        model = spec.name if spec else name
        return self._groups.get(model, model)

    def _overrides(self, group: str, overrides: Iterable[limits_pb2.Override]) -> _Set:
        found: _Set = {}
        for override in overrides:
            scope = _SCOPES.get(override.scope)
            if scope and self._group(override.model) == group:
                key = (scope, override.dimension)
                before = found.get(key)
                found[key] = min(before, override.limit) if isinstance(before, int) else override.limit
        return found

    def _add_groups(self, config: LimitsConfig) -> None:
        for group in config.limit_groups:
            if self._catalog.get(group.name) or group.name in self._first_models:
                raise SettingsError(f"limit_groups: {group.name!r} is the name of a model or of another group")
            for name in group.models:
                model = self._configured(name, "limit_groups")
                if model in self._groups:
                    raise SettingsError(f"limit_groups: {name!r} must be in one group, once")
                self._groups[model] = group.name
                self._first_models.setdefault(group.name, model)

    def _named(self, table: LimitsTable) -> str:
        """The group that a table is about."""
        if (table.model is None) == (table.group is None):
            raise SettingsError("limits: each table names either a model or a group")
        if table.group is not None:
            if table.group not in self._first_models:
                raise SettingsError(f"limits: there is no [[limit_groups]] table of the name {table.group!r}")
            return table.group
        model = self._configured(table.model or "", "limits")
        if model in self._groups:
            raise SettingsError(f"limits: {table.model!r} has the limits of its group {self._groups[model]!r}")
        return model

    def _configured(self, name: str, where: str) -> str:
        spec = self._catalog.get(name)
        if spec is None and not self._catalog.fluid:
            raise SettingsError(f"{where}: {name!r} must be a configured model")
        return spec.name if spec else name


def _first(said: Iterable[_Set], scope: Scope, dimension: int, otherwise: int | None) -> int | None:
    for place in said:
        limit = place.get((scope, dimension))
        if limit is not None:
            return None if limit == "unlimited" else limit
    return otherwise


def _limits_of(fields: LimitsTable | RateLimitSettings) -> _Set:
    """What the fields named by scope and dimension say; only a table has them all."""
    found: _Set = {}
    for scope in _SCOPES.values():
        for word, dimension in DIMENSIONS.items():
            limit = getattr(fields, f"{scope}_{word}", None)
            if limit is not None:
                found[scope, dimension] = limit
    return found
