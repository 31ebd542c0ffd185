"""Images on the real engine: one start of a small model with random weights for all of these tests."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import PIL.Image
import pytest
import pytest_asyncio

from modelplane.chat_inference.v1.chat_inference_pb2 import Delta, GenerateRequest, Image, Sampling
from modelplane.tokenizer.v1 import tokenizer_pb2
from modelplane.tokenizer.v1.tokenizer_pb2 import Message, Part, RenderRequest
from modelplane.usage.v1.usage_pb2 import OUTCOME_ABORTED, OUTCOME_COMPLETED, OUTCOME_FAILED
from services.catalog import Catalog, ModelSpec, VisionSpec
from services.chat_inference.engines import checkpoints
from services.chat_inference.engines.vllm import VllmEngine
from services.chat_inference.service import ChatInference
from services.chat_inference.settings import Settings
from services.gateway.images.loader import LoadedImage, look
from services.settings import Environment, PlatformSettings
from services.tokenizer.service import Tokenizer
from services.tokenizer.settings import TokenizerSettings
from tests.services.chat_inference.engines.vlm import TILE_TOKENS, write_vlm
from tests.services.chat_inference.peer import Ledger, Peer, text

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(900),
    # vLLM's own and its libraries'.
    pytest.mark.filterwarnings("ignore"),
]

LIMITS = VisionSpec(max_images=3, max_pixels=4_000_000)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    cache = Environment.capture().group(PlatformSettings).cache_directory()
    directory = tmp_path_factory.mktemp("vlm")
    write_vlm(directory, checkpoints.prepare(cache, print))
    return ModelSpec(name="vlm", checkpoint=str(directory), context_tokens=2048, slots=8, vision=LIMITS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(spec: ModelSpec) -> AsyncIterator[ChatInference]:
    engine = VllmEngine(spec, Path(spec.checkpoint), Settings())
    began = time.monotonic()
    await engine.start(print)
    print(f"started in {time.monotonic() - began:.1f} s")
    service = ChatInference(engine, spec, Ledger(), Settings(usage_grace_ms=0))
    yield service
    await service.close()
    await engine.close()


def file(width: int, height: int, form: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    """Noise, so that no two are alike."""
    out = BytesIO()
    PIL.Image.effect_noise((width, height), 80).convert(mode).save(out, form, **options)
    return out.getvalue()


def plain(colour: str) -> bytes:
    out = BytesIO()
    PIL.Image.new("RGB", (300, 200), colour).save(out, "PNG")
    return out.getvalue()


def turned(width: int, height: int, orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return file(width, height, "JPEG", exif=exif)


class Seer:
    """Asks as the gateway does: what the tokenizer renders goes to the replica."""

    def __init__(self, peer: Peer, tokenizer: Tokenizer) -> None:
        self.peer = peer
        self._tokenizer = tokenizer
        self._asked = 0

    async def request(
        self, contents: Sequence[bytes], detail: str = "auto", salt: str = "", **sampling: object
    ) -> tuple[GenerateRequest, int]:
        """And how many tokens the tokenizer counts."""
        images = [look(content, detail, 10**9) for content in contents]
        prompt = await self.rendered(images)
        self._asked += 1
        options = {"n": 1, "max_output_tokens": 4, "temperature": 0, **sampling}
        request = GenerateRequest(
            request_id=f"see-{self._asked}",
            model="vlm",
            prompt_token_ids=prompt.token_ids,
            sampling=Sampling(**options),  # type: ignore[arg-type]
            images=[Image(content=image.content, detail=detail) for image in images],
            cache_salt=salt,
        )
        return request, len(prompt.token_ids) + prompt.image_tokens

    async def rendered(self, images: Sequence[LoadedImage]) -> tokenizer_pb2.Prompt:
        parts = [Part(text="What is this?"), *(Part(image=image.seen) for image in images)]
        messages = [Message(role="system", content="Look."), Message(role="user", parts=parts)]
        request = RenderRequest(model="vlm", messages=messages, organization_id="org")
        return (await self._tokenizer.render(request)).prompt

    async def ask(
        self, contents: Sequence[bytes], detail: str = "auto", salt: str = "", **sampling: object
    ) -> tuple[list[Delta], int]:
        request, tokens = await self.request(contents, detail, salt, **sampling)
        return await self.peer.run(request), tokens


@pytest_asyncio.fixture(loop_scope="module")
async def seer(service: ChatInference, spec: ModelSpec, tmp_path: Path) -> AsyncIterator[Seer]:
    with ThreadPoolExecutor(1) as executor:
        tokenizer = Tokenizer(Catalog((spec,)), tmp_path, TokenizerSettings(), executor)
        async with Peer(service) as peer:
            yield Seer(peer, tokenizer)


SIZES = [
    (100, 80),
    (640, 480),
    (480, 640),
    (1600, 240),
    (1, 1),
    (1, 500),
    (333, 77),
    (112, 112),
    (113, 112),
    (449, 448),
]
FILES = [
    *(pytest.param([file(*size)], "auto", id=f"{size}") for size in SIZES),
    *(pytest.param([file(*size)], "low", id=f"{size} low") for size in SIZES[:4]),
    pytest.param([file(300, 200, "JPEG")], "high", id="JPEG"),
    pytest.param([file(300, 200, "JPEG", mode="CMYK")], "high", id="CMYK"),
    pytest.param([file(2000, 1000, "JPEG", mode="L")], "auto", id="grey"),
    pytest.param([turned(640, 200, 6)], "auto", id="turned"),
    pytest.param([file(300, 200, "GIF")], "auto", id="GIF"),
    pytest.param([file(300, 200, "WEBP")], "auto", id="WebP"),
    pytest.param([file(30, 20, "WEBP", mode="RGBA", lossless=True)], "auto", id="lossless WebP"),
    pytest.param([file(300, 200, mode="RGBA")], "auto", id="RGBA"),
    pytest.param([file(300, 200, mode="P")], "auto", id="palette"),
    pytest.param([file(300, 200), file(20, 900), file(640, 480)], "auto", id="three"),
    pytest.param([], "auto", id="none"),
]


@pytest.mark.parametrize(("contents", "detail"), FILES)
async def test_the_count_is_the_engine_s(seer: Seer, contents: list[bytes], detail: str) -> None:
    deltas, tokens = await seer.ask(contents, detail)
    usage = deltas[-1].usage
    assert not deltas[-1].fault.message
    assert (usage.outcome, usage.input_tokens) == (OUTCOME_COMPLETED, tokens)
    assert usage.output_tokens > 0
    one_tile = len(contents) * (TILE_TOKENS + 3)
    assert usage.input_image_tokens == one_tile if detail == "low" else usage.input_image_tokens >= one_tile


async def test_another_image_another_answer(seer: Seer) -> None:
    """Plain colours: to a model with random weights one noise looks like the other, and its words may be the same."""
    images = [plain("black"), plain("white"), plain("red"), plain("blue")]
    said = [text((await seer.ask([content], max_output_tokens=8))[0]) for content in (*images, images[0])]
    assert said[0] == said[-1]
    assert len(set(said)) > 1


async def test_images_are_cached_for_their_organization_alone(seer: Seer) -> None:
    content = file(640, 480)
    cached = [
        (await seer.ask([content], detail, salt))[0][-1].usage.cached_input_tokens
        for detail, salt in (("high", "a"), ("high", "a"), ("high", "b"), ("low", "a"))
    ]
    assert cached[0] == cached[2] == cached[3] == 0 < cached[1]


async def test_log_probabilities_beside_an_image(seer: Seer) -> None:
    deltas, tokens = await seer.ask([file(300, 200)], top_logprobs=1)
    assert deltas[-1].usage.input_tokens == tokens
    assert sum(len(delta.logprobs) for delta in deltas) > 0


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ([file(300, 200)[:-300]], "image_parse_error"),
        ([file(300, 200, "JPEG")[:900]], "image_parse_error"),
        ([file(2001, 2000)], "image_too_large"),
        ([file(10, 10)] * 4, "invalid_value"),
    ],
)
async def test_what_cannot_be_seen_is_refused(seer: Seer, contents: list[bytes], reason: str) -> None:
    deltas, _ = await seer.ask(contents)
    usage = deltas[-1].usage
    assert (deltas[-1].fault.reason, deltas[-1].fault.param) == (reason, "messages")
    assert (usage.outcome, usage.input_tokens, usage.input_image_tokens) == (OUTCOME_FAILED, 0, 0)


async def test_an_abort_while_the_image_is_read(seer: Seer, service: ChatInference) -> None:
    content = file(2000, 2000)
    for _ in range(2):
        request, _ = await seer.request([content])
        seer.peer.start(request)
        while request.request_id not in service.load().request_ids:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        seer.peer.abort(request.request_id)
        async with asyncio.timeout(30):
            deltas = await seer.peer.ended(request.request_id)
        assert deltas[-1].usage.outcome == OUTCOME_ABORTED
    # The same image, whole.
    deltas, tokens = await seer.ask([content])
    assert deltas[-1].usage.input_tokens == tokens


async def test_the_loop_is_free_while_images_are_read(seer: Seer) -> None:
    content = file(1999, 1999)
    asked = asyncio.create_task(seer.ask([content, content]))
    longest = 0.0
    while not asked.done():
        # The loop's own time: what other processes take of the machine is no stall of ours.
        began = time.thread_time()
        await asyncio.sleep(0.001)
        longest = max(longest, time.thread_time() - began)
    print(f"longest stall {longest * 1000:.0f} ms")
    assert (await asked)[0][-1].usage.outcome == OUTCOME_COMPLETED
    assert longest < 0.3
