"""The bare engine: vLLM's AsyncLLM with the replica's own settings and nothing around it.

A process of its own that takes a line of JSON on its standard input per measurement and answers with one, so that
both sides of the comparison take turns while both are up.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from services.catalog import DEFAULT_MODEL


class Ask(msgspec.Struct):
    """The conversations, each a stream of `tokens` tokens, all at once; `banned` tokens are never sampled."""

    prompts: list[str]
    tokens: int
    banned: list[int]


class Told(msgspec.Struct):
    """How long all took, and each one's time to its first token, in seconds."""

    elapsed_s: float
    first_s: list[float]
    tokens: int


async def main(checkpoint: Path) -> None:
    from transformers import AutoTokenizer
    from vllm import AsyncEngineArgs, SamplingParams
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=str(checkpoint),
            max_model_len=DEFAULT_MODEL.context_tokens,
            max_num_seqs=DEFAULT_MODEL.slots,
            dtype="bfloat16",
            enforce_eager=True,
            disable_log_stats=True,
        )
    )
    number = 0

    async def one(prompt: str, ask: Ask) -> tuple[float, int]:
        nonlocal number
        number += 1
        began = time.perf_counter()
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True
        )
        sampling = SamplingParams(
            temperature=DEFAULT_MODEL.default_temperature,
            top_p=DEFAULT_MODEL.default_top_p,
            max_tokens=ask.tokens,
            logit_bias=dict.fromkeys(ask.banned, -100.0),
            output_kind=RequestOutputKind.DELTA,
        )
        first_s, tokens = 0.0, 0
        asked: Any = {"prompt_token_ids": list(ids["input_ids"])}
        async for output in engine.generate(asked, sampling, str(number)):
            first_s = first_s or time.perf_counter() - began
            tokens += sum(len(choice.token_ids) for choice in output.outputs)
        return first_s, tokens

    print("ready", flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        ask = msgspec.json.decode(line, type=Ask)
        began = time.perf_counter()
        done = await asyncio.gather(*(one(prompt, ask) for prompt in ask.prompts))
        told = Told(time.perf_counter() - began, [first for first, _ in done], sum(tokens for _, tokens in done))
        print(msgspec.json.encode(told).decode(), flush=True)
    engine.shutdown()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
