"""How usage adds up: the sums by the hour that reports are made of, kept by the drain and made anew by a rebuild.

Both use these statements, each for its own choice of records, so that they cannot disagree.
"""

from typing import Final, LiteralString

_COUNTS: Final[LiteralString] = """
    input_tokens, cached_input_tokens, cache_write_tokens, input_audio_tokens, input_image_tokens, output_tokens,
    output_audio_tokens, output_image_tokens, images, audio_ms, characters, stored_byte_seconds
"""
_HOUR: Final[LiteralString] = "to_timestamp(finished_at_ms / 3600000 * 3600)"

# Sorted, so that two processes that add to the same hours cannot deadlock.
USAGE_HOURS: Final[LiteralString] = f"""
INSERT INTO usage_hours (
    organization_id, hour, operation, project_id, key_id, user_id, model, service_tier, batch, image_size, requests,
    {_COUNTS}
)
SELECT organization_id, {_HOUR}, operation, project_id, key_id, user_id, model, service_tier, batch, image_size,
    count(*), sum(input_tokens), sum(cached_input_tokens), sum(cache_write_tokens), sum(input_audio_tokens),
    sum(input_image_tokens), sum(output_tokens), sum(output_audio_tokens), sum(output_image_tokens), sum(images),
    sum(audio_ms), sum(characters), sum(stored_byte_seconds)
FROM usage_records WHERE {{which}}
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
ON CONFLICT (organization_id, hour, operation, project_id, key_id, user_id, model, service_tier, batch, image_size)
DO UPDATE SET
    requests = usage_hours.requests + excluded.requests,
    input_tokens = usage_hours.input_tokens + excluded.input_tokens,
    cached_input_tokens = usage_hours.cached_input_tokens + excluded.cached_input_tokens,
    cache_write_tokens = usage_hours.cache_write_tokens + excluded.cache_write_tokens,
    input_audio_tokens = usage_hours.input_audio_tokens + excluded.input_audio_tokens,
    input_image_tokens = usage_hours.input_image_tokens + excluded.input_image_tokens,
    output_tokens = usage_hours.output_tokens + excluded.output_tokens,
    output_audio_tokens = usage_hours.output_audio_tokens + excluded.output_audio_tokens,
    output_image_tokens = usage_hours.output_image_tokens + excluded.output_image_tokens,
    images = usage_hours.images + excluded.images,
    audio_ms = usage_hours.audio_ms + excluded.audio_ms,
    characters = usage_hours.characters + excluded.characters,
    stored_byte_seconds = usage_hours.stored_byte_seconds + excluded.stored_byte_seconds
"""  # noqa: S608 - made of constants
"""To be completed by `which`: a condition on usage_records."""

TOOL_HOURS: Final[LiteralString] = f"""
INSERT INTO tool_hours (organization_id, hour, tool, project_id, key_id, user_id, model, requests, calls)
SELECT organization_id, {_HOUR}, tool, project_id, key_id, user_id, model, count(*), sum(calls::bigint)
FROM usage_records CROSS JOIN LATERAL jsonb_each_text(tools) AS used (tool, calls)
WHERE tools IS NOT NULL AND {{which}}
GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7
ON CONFLICT (organization_id, hour, tool, project_id, key_id, user_id, model) DO UPDATE SET
    requests = tool_hours.requests + excluded.requests, calls = tool_hours.calls + excluded.calls
"""  # noqa: S608 - made of constants
"""To be completed by `which`: a condition on usage_records."""

COST_HOURS: Final[LiteralString] = """
INSERT INTO cost_hours (organization_id, hour, project_id, key_id, model, line, quantity, nanodollars)
SELECT organization_id, to_timestamp(occurred_at_ms / 3600000 * 3600), project_id, key_id, model, line,
    sum(quantity), sum(CASE WHEN debit = 'receivable' THEN nanodollars ELSE -nanodollars END)
FROM postings WHERE model <> '' AND {which}
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
ON CONFLICT (organization_id, hour, project_id, key_id, model, line) DO UPDATE SET
    quantity = cost_hours.quantity + excluded.quantity, nanodollars = cost_hours.nanodollars + excluded.nanodollars
"""
"""To be completed by `which`: a condition on postings. What is not owed is given back: discounts and refunds."""
