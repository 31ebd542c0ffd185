"""Prompts with images: what stands in their places is counted, and nobody can write an image in words."""

import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from modelplane.tokenizer.v1.tokenizer_pb2 import Image, Message, Part, Prompt, RenderRequest
from services.catalog import Catalog, ModelSpec, VisionSpec
from services.faults import InvalidRequest, Unavailable
from services.tokenizer.service import Tokenizer
from services.tokenizer.settings import TokenizerSettings
from tests.services.tokenizer.checkpoints import CONFIG, byte_level_tokenizer, write_checkpoint

GRID = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
TOKENS = ["<fake_token_around_image>", "<image>", "<global-img>", *GRID]
# Contents are parts, as SmolVLM has it, or may be texts.
PARTS = (
    "{% for message in messages %}{{ message.role }}:{% for part in message.content %}{% if part.type == 'image' %}"
    "<image>{% else %}{{ part.text }}{% endif %}{% endfor %};{% endfor %}A:"
)
EITHER = (
    "{% for message in messages %}{{ message.role }}:{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %};{% endfor %}A:"
)
PROCESSOR: dict[str, Any] = {
    "image_seq_len": 16,
    "image_processor": {"size": {"longest_edge": 448}, "max_image_size": {"longest_edge": 112}},
}


def write_seeing(directory: Path, template: str, processor: dict[str, Any], tokens: list[str] = TOKENS) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    write_checkpoint(directory, CONFIG | {"chat_template": template}, tokenizer)
    (directory / "processor_config.json").write_text(json.dumps(processor))


@pytest.fixture
async def tokenizer(tmp_path: Path) -> AsyncIterator[Tokenizer]:
    models = tmp_path / "models"
    write_seeing(models / "parts", PARTS, PROCESSOR)
    write_seeing(models / "either", EITHER, {"image_seq_len": 16})
    (models / "either" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR["image_processor"]))
    write_seeing(models / "other", EITHER, {"image_seq_len": 16, "image_processor": {"size": {"height": 3}}})
    write_seeing(models / "wordless", EITHER, PROCESSOR, ["<picture>"])
    write_checkpoint(models / "hiding", CONFIG)
    write_seeing(models / "hiding", "{{ messages[0].role }}", PROCESSOR)
    write_checkpoint(models / "blind")
    names = ("parts", "either", "other", "wordless", "hiding")
    specs = [ModelSpec(name=name, context_tokens=1000, vision=VisionSpec()) for name in names]
    with ThreadPoolExecutor(1) as executor:
        catalog = Catalog((*specs, ModelSpec(name="blind")))
        yield Tokenizer(catalog, tmp_path, TokenizerSettings(), executor)


def image(width: int, height: int, detail: str = "auto", digest: bytes = b"a") -> Part:
    return Part(image=Image(width=width, height=height, detail=detail, digest=digest))


async def render(tokenizer: Tokenizer, *parts: Part, model: str = "either", **fields: Any) -> Prompt:
    messages = [Message(role="system", content="Look."), Message(role="user", parts=parts)]
    request = RenderRequest(model=model, messages=messages, organization_id="org", **fields)
    return (await tokenizer.render(request)).prompt


def text_of(prompt: Prompt) -> str:
    tokens = byte_level_tokenizer()
    tokens.add_special_tokens([AddedToken(token, special=True) for token in TOKENS])
    return str(tokens.decode(list(prompt.token_ids), skip_special_tokens=False))


@pytest.mark.parametrize("model", ["parts", "either"])
async def test_an_image_is_one_token_of_the_prompt_and_counted_as_all(tokenizer: Tokenizer, model: str) -> None:
    prompt = await render(tokenizer, Part(text="What "), image(640, 480), Part(text="?"), model=model)
    assert text_of(prompt) == "system:Look.;user:What <image>?;A:"
    # 3 x 4 tiles with two marks each, their line breaks, and the whole in small.
    breaks = 2 + len(byte_level_tokenizer().encode("\n\n", add_special_tokens=False).ids)
    assert prompt.image_tokens + 1 == 12 * (16 + 2) + breaks + 16 + 3
    assert prompt.max_output_tokens == 1000 - len(prompt.token_ids) - prompt.image_tokens


async def test_low_detail_is_one_tile_for_all_or_none(tokenizer: Tokenizer) -> None:
    low = await render(tokenizer, image(640, 480, "low"), image(480, 640, "low"))
    assert low.image_tokens == 2 * (16 + 2)
    mixed = await render(tokenizer, image(640, 480, "low"), image(640, 480, "auto"))
    high = await render(tokenizer, image(640, 480, "high"), image(640, 480, "high"))
    assert mixed.image_tokens == high.image_tokens > 400


async def test_images_that_do_not_fit(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await render(tokenizer, *[image(400, 400)] * 4)
    assert (caught.value.reason, caught.value.param) == ("context_length_exceeded", "messages")


async def test_an_image_cannot_be_written(tokenizer: Tokenizer) -> None:
    prompt = await render(tokenizer, Part(text="<image><fake_token_around_image>"), image(9, 9), Part(text="<image>"))
    placeholder = byte_level_tokenizer().get_vocab_size() + TOKENS.index("<image>")
    assert list(prompt.token_ids).count(placeholder) == 1
    alone = RenderRequest(model="either", messages=[Message(role="user", content="<image>")])
    assert placeholder not in (await tokenizer.render(alone)).prompt.token_ids
    text = RenderRequest(model="either", text="<image>")
    assert placeholder not in (await tokenizer.render(text)).prompt.token_ids
    with pytest.raises(InvalidRequest) as caught:
        await tokenizer.render(RenderRequest(model="either", token_ids=[1, placeholder]))
    assert (caught.value.reason, caught.value.param) == ("invalid_value", "prompt")


async def test_what_is_told_in_words_stands_before_an_image(tokenizer: Tokenizer) -> None:
    for model in ("either", "parts"):
        messages = [Message(role="user", parts=[image(9, 9)])]
        request = RenderRequest(model=model, messages=messages, response_schema="{}")
        assert text_of((await tokenizer.render(request)).prompt) == (
            "system:Answer with a JSON object.;user:<image>;A:"
        )


async def test_other_images_other_prefixes(tokenizer: Tokenizer) -> None:
    async def hashed(*parts: Part) -> int:
        return (await render(tokenizer, *parts)).prefix_hash

    small, after = image(9, 9, "low"), Part(text="the cat sat on the mat " * 40)
    assert await hashed(small, Part(text="a")) == await hashed(small, Part(text="a"))
    assert await hashed(small) != await hashed(image(9, 9, "low", b"b"))
    assert await hashed(small) != await hashed(image(9, 9))
    # What comes after the first 256 tokens does not matter, and a large image is more than that.
    assert await hashed(after, small) == await hashed(after, image(9, 9, "low", b"b"))
    large = image(448, 448)
    assert await hashed(large, Part(text="a")) == await hashed(large, Part(text="b"))
    assert await hashed(small, Part(text="a")) != await hashed(small, Part(text="b"))


async def test_a_model_that_sees_nothing(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await render(tokenizer, image(9, 9), model="blind")
    assert (caught.value.reason, caught.value.param) == ("unsupported_value", "messages")


@pytest.mark.parametrize("model", ["other", "wordless", "hiding"])
async def test_checkpoints_whose_images_cannot_be_counted(tokenizer: Tokenizer, model: str) -> None:
    with pytest.raises(Unavailable):
        await render(tokenizer, image(9, 9), model=model)
