"""`modelplane limits`: the rate limits in force, and those that take the place of the usage tier's.

They are the organisation's; those of a project where one is named. Models that share their limits have one limit,
whichever of them is named.
"""

import argparse
from collections.abc import Mapping
from typing import Final

from modelplane.limits.v1 import limits_pb2
from modelplane.limits.v1.limits_pb2 import Override
from modelplane.ratelimit.v1.ratelimit_pb2 import DescribeLimitsRequest, ModelLimits
from modelplane.tenants.v1.tenants_pb2 import GetLimitsRequest, SetLimitsRequest
from services.cli.output import Answer, Row
from services.cli.platform import ACTOR, Noun, Platform, Subcommands
from services.faults import NotFound

DIMENSIONS: Final[Mapping[str, limits_pb2.Dimension]] = {
    "rpm": limits_pb2.DIMENSION_REQUESTS_PER_MINUTE,
    "rpd": limits_pb2.DIMENSION_REQUESTS_PER_DAY,
    "tpm": limits_pb2.DIMENSION_TOKENS_PER_MINUTE,
    "tpd": limits_pb2.DIMENSION_TOKENS_PER_DAY,
    "ipm": limits_pb2.DIMENSION_IMAGES_PER_MINUTE,
    "audio_mbpm": limits_pb2.DIMENSION_AUDIO_MEGABYTES_PER_MINUTE,
    "batch_tpd": limits_pb2.DIMENSION_BATCH_TOKENS_PER_DAY,
}
WORDS: Final = ", ".join(DIMENSIONS)


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane limits` and its verbs."""
    noun = Noun(subcommands, "limits", "rate limits per model")
    show_ = noun.verb("show", "show the limits in force", show)
    set_ = noun.verb("set", "set limits in place of the usage tier's", set_limits)
    clear_ = noun.verb("clear", "let the usage tier's limits count again", clear)
    for parser in (set_, clear_):
        parser.add_argument("model", help="a model, or a group of models")
    set_.add_argument("limits", nargs="+", type=limit, metavar="WORD=N", help=f"for example rpm=60; out of: {WORDS}")
    clear_.add_argument("words", nargs="*", metavar="WORD", help=f"default: all of {WORDS}")
    for parser in (show_, set_, clear_):
        parser.add_argument("--project", default="", metavar="ID", help="default: the organization's own limits")


async def show(platform: Platform, options: argparse.Namespace) -> Answer:
    return [row(limits, options.project) for limits in await _in_force(platform, options)]


async def set_limits(platform: Platform, options: argparse.Namespace) -> Answer:
    models = await _named(platform, options)
    if not models:
        raise NotFound("model_not_found", f"There is neither a model nor a group named '{options.model}'.")
    await _change(platform, options, {models[0].group}, dict(options.limits), is_clear=False)
    return [row(limits, options.project) for limits in await _named(platform, options)]


async def clear(platform: Platform, options: argparse.Namespace) -> Answer:
    """Also of a model that there is no more."""
    names = {options.model, *(limits.group for limits in await _named(platform, options))}
    words = options.words or DIMENSIONS
    await _change(platform, options, names, {dimension(word): 0 for word in words}, is_clear=True)
    return [row(limits, options.project) for limits in await _named(platform, options)]


async def _change(
    platform: Platform,
    options: argparse.Namespace,
    names: set[str],
    limits: Mapping[limits_pb2.Dimension, int],
    *,
    is_clear: bool,
) -> None:
    scope = limits_pb2.SCOPE_PROJECT if options.project else limits_pb2.SCOPE_ORGANIZATION
    overrides = [
        Override(scope=scope, model=name, dimension=dimension, limit=limit)
        for name in names
        for dimension, limit in limits.items()
    ]
    await platform.tenants.set_limits(
        SetLimitsRequest(
            organization_id=await platform.organization(options),
            project_id=options.project,
            overrides=overrides,
            clear=is_clear,
            actor=ACTOR,
        )
    )


async def _named(platform: Platform, options: argparse.Namespace) -> list[ModelLimits]:
    """Of every model that shares its limits with the one, or is of the group, that the options name."""
    found = await _in_force(platform, options)
    groups = {limits.group for limits in found if options.model in (limits.model, limits.group)}
    return [limits for limits in found if limits.group in groups]


async def _in_force(platform: Platform, options: argparse.Namespace) -> list[ModelLimits]:
    request = GetLimitsRequest(organization_id=await platform.organization(options), project_id=options.project)
    found = await platform.tenants.get_limits(request)
    described = await platform.ratelimit.describe_limits(
        DescribeLimitsRequest(usage_tier=found.usage_tier, overrides=found.overrides)
    )
    return list(described.models)


def dimension(word: str) -> limits_pb2.Dimension:
    """Raises NotFound."""
    if word not in DIMENSIONS:
        raise NotFound("rate_limit_not_found", f"There is no limit '{word}'; there are {WORDS}.")
    return DIMENSIONS[word]


def limit(text: str) -> tuple[limits_pb2.Dimension, int]:
    """The two sides of `rpm=60`. Raises ArgumentTypeError."""
    word, _, number = text.partition("=")
    if word not in DIMENSIONS or not number.isascii() or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a limit such as rpm=60; there are {WORDS}")
    return DIMENSIONS[word], int(number)


def row(limits: ModelLimits, project_id: str) -> Row:
    """The limits of the scope that is meant; None for no limit."""
    scope = limits_pb2.SCOPE_PROJECT if project_id else limits_pb2.SCOPE_ORGANIZATION
    own = {one.dimension: one.limit for one in limits.limits if one.scope == scope}
    shown = {word: own.get(dimension) for word, dimension in DIMENSIONS.items()}
    return {"model": limits.model, "group": limits.group, **shown}
