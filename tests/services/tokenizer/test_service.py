"""Readiness: a model's files may arrive after the service has started."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.catalog import Catalog, ModelSpec
from services.faults import Unavailable
from services.tokenizer.service import Tokenizer
from services.tokenizer.settings import TokenizerSettings
from tests.services.tokenizer.checkpoints import write_checkpoint


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
