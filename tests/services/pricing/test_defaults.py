"""The shipped price book: the public list prices to the cent, and discounts that are right for every family."""

from decimal import Decimal

import pytest

from modelplane.usage.v1.usage_pb2 import ToolUsage, Usage
from services.catalog import DEFAULT_MODEL
from services.pricing import cost
from services.pricing.cost import Price
from services.pricing.defaults import load

LIST = {
    "gpt-5.4": ("2.50", "15.00"),
    "gpt-5.4-mini": ("0.75", "4.50"),
    "gpt-5.4-nano": ("0.20", "1.25"),
    "gpt-5.2": ("1.75", "14.00"),
    "gpt-5": ("1.25", "10.00"),
    "gpt-4.1": ("2.00", "8.00"),
    "gpt-4.1-mini": ("0.40", "1.60"),
    "gpt-4.1-nano": ("0.10", "0.40"),
    "gpt-4o": ("2.50", "10.00"),
    "gpt-4o-mini": ("0.15", "0.60"),
    "o3": ("0.40", "1.60"),
    "o4-mini": ("1.10", "4.40"),
    "o3-mini": ("1.10", "4.40"),
}
# What cached input costs of fresh input, by how the model's name begins; the first that fits counts.
CACHED = (("gpt-5", "0.10"), ("gpt-4.1", "0.25"), ("gpt-4o", "0.50"), ("o3-mini", "0.50"), ("o", "0.25"))
CENT = 10_000_000


def dollars(model: str, **used: object) -> Decimal:
    usage = Usage(model=model, service_tier="default", **used)  # type: ignore[arg-type]
    return Decimal(cost.total(usage, Price(1, load()[model]))) / 10**9


@pytest.mark.parametrize("model", LIST)
def test_tokens_cost_what_the_list_says(model: str) -> None:
    of_input, of_output = map(Decimal, LIST[model])
    share = next(Decimal(share) for prefix, share in CACHED if model.startswith(prefix))
    assert dollars(model, input_tokens=1_000_000) == of_input
    assert dollars(model, output_tokens=1_000_000, reasoning_tokens=900_000) == of_output
    assert dollars(model, input_tokens=1_000_000, cached_input_tokens=1_000_000) == of_input * share
    assert dollars(model, input_tokens=1_000_000, batch=True) == of_input / 2


@pytest.mark.parametrize(
    ("model", "size", "quality", "price"),
    [
        ("dall-e-3", "1024x1024", "standard", "0.040"),
        ("dall-e-3", "1792x1024", "standard", "0.080"),
        ("dall-e-3", "1024x1024", "hd", "0.080"),
        ("dall-e-3", "1024x1792", "hd", "0.120"),
        ("gpt-image-1", "1024x1024", "low", "0.040"),
        ("gpt-image-1", "1536x1024", "medium", "0.080"),
        ("gpt-image-1", "1024x1536", "high", "0.120"),
        ("gpt-image-1", "auto", "auto", "0.120"),
    ],
)
def test_images(model: str, size: str, quality: str, price: str) -> None:
    made = dollars(model, images=3, image_size=size, image_quality=quality, input_tokens=100, output_tokens=4000)
    assert made == 3 * Decimal(price)


def test_sound_and_embeddings() -> None:
    assert dollars("whisper-1", audio_ms=90_000) == Decimal("0.009")
    assert dollars("tts-1", characters=1_000_000) == 15
    assert dollars("tts-1-hd", characters=1_000_000) == 30
    assert dollars("text-embedding-3-large", input_tokens=1_000_000) == Decimal("0.13")
    assert dollars("text-embedding-3-small", input_tokens=1_000_000) == Decimal("0.02")


def test_tools_and_storage_cost_the_same_with_every_text_model() -> None:
    tools = [ToolUsage(tool=tool, calls=2) for tool in ("web_search", "file_search", "code_interpreter")]
    for model in LIST:
        assert dollars(model, tools=tools) == Decimal("0.085")
        assert dollars(model, tools=tools, batch=True) == Decimal("0.085")
        assert dollars(model, stored_byte_seconds=3 * 2**30 * 86_400) == Decimal("0.30")


def test_what_is_served_by_default_has_a_price() -> None:
    assert load()[DEFAULT_MODEL.name].output
