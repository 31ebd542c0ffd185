"""The ids are those of transformers' `apply_chat_template`, for the default model's own files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.catalog import DEFAULT_MODEL, checkpoint_directory
from services.settings import PlatformSettings
from services.tokenizer.models import load
from tests.services.tokenizer.checkpoints import write_checkpoint

CONVERSATIONS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "You answer in one word."}, {"role": "user", "content": " \n Why?\t "}],
    [
        {"role": "user", "content": "naïve café — 東京 😀 <b>&amp;</b> 3.14159 x²"},
        {"role": "assistant", "content": "def f(x):\n    return x ** 2\n\n\n"},
        {"role": "user", "content": "'quoted' \"twice\" {{ braces }} {% raw %}"},
    ],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": "long " * 5000}],
    [{"role": "user", "content": "a name", "name": "Ada"}],
]
# In a process of its own: transformers takes seconds to import and warns as it likes.
SCRIPT = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
conversations = json.load(sys.stdin)
json.dump([
    tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    for messages in conversations
], sys.stdout)
"""


@pytest.mark.engine
@pytest.mark.parametrize("checkpoint", ["default", "made here"])
def test_ids_are_those_of_transformers(checkpoint: str, tmp_path: Path) -> None:
    directory = tmp_path
    if checkpoint == "default":
        directory = checkpoint_directory(DEFAULT_MODEL, PlatformSettings().cache_directory())
        if not directory.is_dir():
            pytest.skip("the default model has not been prepared; `make up` does it")
    else:
        write_checkpoint(directory)
        (directory / "config.json").write_text('{"model_type": "llama"}')
    model = load(DEFAULT_MODEL, directory)
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(directory)],
        input=json.dumps(CONVERSATIONS),
        capture_output=True,
        text=True,
        check=False,
        env={"HF_HUB_OFFLINE": "1"},
    )
    assert answer.returncode == 0, answer.stderr
    for messages, token_ids in zip(CONVERSATIONS, json.loads(answer.stdout), strict=True):
        assert model.encode(model.render(messages)) == token_ids
