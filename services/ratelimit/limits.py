"""From the limits in force and the facts of a request to what it needs of which bucket.

Every dimension is counted at the organisation and at the project. A project's bucket that is no tighter than its
organisation's is left out: what it holds is part of what the organisation's holds, so it could never refuse
anything that the other admits, and never shows less remaining.

Tokens are taken in advance from an estimate: the prompt, known exactly, plus as much output as this key lately
used with this model, never more than the request allows. `max_tokens` alone would refuse requests that were going
to be short. The estimate counts in the minute and in the day. Only the prompt is certain, so only the prompt may be
too large; the rest becomes a debt if it is used.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from modelplane.limits.v1 import limits_pb2
from services.ratelimit.buckets import BucketKey, Level, Need
from services.ratelimit.gcra import Rate, per_window

MINUTE_NS: Final = 60_000_000_000
DAY_NS: Final = 1440 * MINUTE_NS

RPM: Final = int(limits_pb2.DIMENSION_REQUESTS_PER_MINUTE)
RPD: Final = int(limits_pb2.DIMENSION_REQUESTS_PER_DAY)
TPM: Final = int(limits_pb2.DIMENSION_TOKENS_PER_MINUTE)
TPD: Final = int(limits_pb2.DIMENSION_TOKENS_PER_DAY)
IPM: Final = int(limits_pb2.DIMENSION_IMAGES_PER_MINUTE)
AUDIO: Final = int(limits_pb2.DIMENSION_AUDIO_MEGABYTES_PER_MINUTE)
BATCH: Final = int(limits_pb2.DIMENSION_BATCH_TOKENS_PER_DAY)

# The words of configuration, in the order in which limits are shown.
DIMENSIONS: Final[Mapping[str, int]] = {
    "rpm": RPM,
    "rpd": RPD,
    "tpm": TPM,
    "tpd": TPD,
    "ipm": IPM,
    "audio_mbpm": AUDIO,
    "batch_tpd": BATCH,
}
DAILY: Final = frozenset((RPD, TPD, BATCH))
# Audio is counted in bytes, so that a fraction of a megabyte counts as what it is.
MEGABYTE: Final = 1_000_000


def rate(dimension: int, limit: int) -> Rate:
    """The rate of a limit (units per window, at least 0; audio in megabytes)."""
    units = limit * MEGABYTE if dimension == AUDIO else limit
    return per_window(units, DAY_NS if dimension in DAILY else MINUTE_NS)


class ModelLimits(NamedTuple):
    """The limits in force for one model, by dimension. A dimension that is not there has no limit."""

    group: str
    """Whose buckets these are: the models that share them, or the model itself."""

    organization: Mapping[int, int]
    project: Mapping[int, int]


class Measures(NamedTuple):
    """What a request needs beside the request itself. A measure of 0 needs nothing."""

    tokens: int
    images: int
    audio_bytes: int
    batch_tokens: int


class Meter(NamedTuple):
    """A bucket and its rate; how much of it is needed, each request says."""

    key: BucketKey
    rate: Rate


class Plan(NamedTuple):
    """The buckets of one model for one project, worked out once. See `plan`."""

    requests: tuple[Need, ...]
    """The same for every request."""

    tokens: tuple[Meter, ...]
    images: tuple[Meter, ...]
    audio: tuple[Meter, ...]
    batch: tuple[Meter, ...]
    most_tokens: int | None
    """The smallest of the token limits; None when there is none."""

    def estimate(self, input_tokens: int, output_tokens: int) -> int:
        """The tokens to take for a prompt and the output that is expected of it."""
        tokens = input_tokens + output_tokens
        if self.most_tokens is not None and tokens > self.most_tokens:
            return max(input_tokens, self.most_tokens)
        return tokens

    def needs(self, measures: Measures) -> list[Need]:
        """The requests first, then the tokens, then the rest."""
        tokens, images, audio_bytes, batch_tokens = measures
        needs = [*self.requests]
        if tokens:
            needs += self.token_needs(tokens)
        if images:
            needs += [Need(key, rate, images) for key, rate in self.images]
        if audio_bytes:
            needs += [Need(key, rate, audio_bytes) for key, rate in self.audio]
        if batch_tokens:
            needs += [Need(key, rate, batch_tokens) for key, rate in self.batch]
        return needs

    def token_needs(self, tokens: int) -> list[Need]:
        # Made as the tuples that they are: a named tuple's own constructor takes twice as long.
        return [tuple.__new__(Need, (key, rate, tokens)) for key, rate in self.tokens]


def plan(organization_id: str, project_id: str, limits: ModelLimits) -> Plan:
    """The buckets that requests for a model of these limits concern."""
    meters: dict[int, list[Meter]] = {dimension: [] for dimension in DIMENSIONS.values()}

    def add(key: BucketKey, limit: int) -> None:
        meters[key.dimension].append(Meter(key, rate(key.dimension, limit)))

    for dimension, limit in limits.organization.items():
        add(BucketKey("organization", organization_id, limits.group, dimension), limit)
    for dimension, limit in limits.project.items():
        if dimension not in limits.organization or limit < limits.organization[dimension]:
            add(BucketKey("project", project_id, limits.group, dimension, organization_id), limit)
    tokens = (*meters[TPM], *meters[TPD])
    return Plan(
        tuple(Need(key, rate, 1) for key, rate in (*meters[RPM], *meters[RPD])),
        tokens,
        tuple(meters[IPM]),
        tuple(meters[AUDIO]),
        tuple(meters[BATCH]),
        min((rate.units for _, rate in tokens), default=None),
    )


def tightest(levels: Sequence[Level]) -> Level | None:
    """The level with the fewest remaining; the first of equals. None when nothing is limited."""
    if not levels:
        return None
    found = levels[0]
    for level in levels:
        if level.remaining < found.remaining:
            found = level
    return found
