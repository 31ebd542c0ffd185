"""Readiness: a model's files may arrive after the service has started."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from modelplane.tokenizer.v1.tokenizer_pb2 import RenderRequest
from services.catalog import Catalog, ModelSpec
from services.faults import InvalidRequest, NotFound, Unavailable
from services.tokenizer.service import Tokenizer
from services.tokenizer.settings import TokenizerSettings
from tests.services.tokenizer.checkpoints import write_checkpoint


async def test_it_follows_the_catalogue(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    request = RenderRequest(model="small", text="hello")
    scripted, small = ModelSpec(name="scripted", engine="scripted"), ModelSpec(name="small", checkpoint="first")
    write_checkpoint(tmp_path / "models" / "first")
    catalog = Catalog((scripted, small))
    tokenizer = Tokenizer(catalog, tmp_path, TokenizerSettings(), executor)
    catalog.subscribe(tokenizer.renew)
    await tokenizer.ping()
    with pytest.raises(InvalidRequest):
        await tokenizer.render(RenderRequest(model="small", text="hello", max_output_tokens=2048))

    # What serves goes on as it was while another cannot be loaded.
    catalog.replace(Catalog((scripted, replace(small, checkpoint="second"), ModelSpec(name="new"))))
    await tokenizer.ping()
    assert (await tokenizer.render(request)).prompt.token_ids
    with pytest.raises(Unavailable):
        await tokenizer.render(RenderRequest(model="new", text="hello"))
    (tmp_path / "models" / "first").rename(tmp_path / "models" / "second")
    write_checkpoint(tmp_path / "models" / "new")
    assert (await tokenizer.render(RenderRequest(model="new", text="hello"))).prompt.token_ids

    catalog.replace(Catalog((scripted, replace(small, checkpoint="second", context_tokens=9000))))
    bound = RenderRequest(model="small", text="hello", max_output_tokens=8000)
    assert (await tokenizer.render(bound)).prompt.max_output_tokens == 8000
    with pytest.raises(NotFound):
        await tokenizer.render(RenderRequest(model="new", text="hello"))
    await tokenizer.close()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_it_is_ready_when_every_model_is_loaded(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    catalog = Catalog((ModelSpec(name="scripted", engine="scripted"), ModelSpec(name="small")))
    tokenizer = Tokenizer(catalog, tmp_path, TokenizerSettings(), executor)
    with pytest.raises(Unavailable) as caught:
        await tokenizer.ping()
    assert caught.value.reason == "not_ready"
    write_checkpoint(tmp_path / "models" / "small")
    await tokenizer.ping()
    (tmp_path / "models" / "small" / "tokenizer.json").unlink()
    await tokenizer.ping()
