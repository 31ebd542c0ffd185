"""The tokenizer as a platform starts and stops it."""

from pathlib import Path

import pytest

from modelplane.tokenizer.v1.tokenizer_api import TokenizerService
from modelplane.tokenizer.v1.tokenizer_pb2 import Message, RenderRequest
from services.compose import Platform
from services.faults import Unavailable
from services.settings import Environment
from tests.services.tokenizer.checkpoints import write_checkpoint


async def test_it_finds_the_checkpoints_of_the_cache(tmp_path: Path) -> None:
    config = tmp_path / "models.toml"
    config.write_text('[[models]]\nname = "small"\ncontext_tokens = 10000\n')
    environment = Environment(
        {
            "MODELPLANE_CACHE": str(tmp_path),
            "MODELPLANE_CONFIG": str(config),
            "MODELPLANE_HOME": str(tmp_path / "home"),
            "MODELPLANE_TOKENIZER_INLINE_BYTES": "100",
        }
    )
    async with Platform(["tokenizer"], environment) as platform:
        with pytest.raises(Unavailable):
            await platform.pings["tokenizer"]()
        write_checkpoint(tmp_path / "models" / "small")
        await platform.pings["tokenizer"]()
        request = RenderRequest(model="small", messages=[Message(role="user", content="1" * 1000)])
        rendered = await platform.local(TokenizerService).render(request)
    assert len(rendered.prompt.token_ids) > 1000
