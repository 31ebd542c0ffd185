"""vLLM as the engine: one code path for GPUs and, for one machine, the CPU.

Kept true: what is metered is what vLLM generated, also on an abort; a request that wants nothing but text goes straight
through; loading never holds up the event loop; the processes that vLLM starts end with this one however it ends, and
a Ctrl-C in the terminal is left to the platform, which finishes what is in flight before it stops them.
"""

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    FinishReason,
    GenerateRequest,
    Sampling,
)
from services.catalog import ModelSpec
from services.chat_inference.engines.engine import Piece, Report
from services.chat_inference.engines.grammars import Grammars
from services.chat_inference.engines.images import Images
from services.chat_inference.engines.logprobs import Aligner, Part, Vocabulary, prompt_part
from services.chat_inference.settings import Settings
from services.faults import InvalidRequest

# vLLM reads these at import. Weights come from a folder, so nothing is looked for on the network; usage is not
# reported to anybody; spawned processes are the only ones that work inside a Ray actor, so they are used everywhere.
_ENVIRONMENT: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}

# vLLM's order of service: the lowest number first.
_PRIORITY: Mapping[str, int] = {"scale": 0, "priority": 1, "default": 2, "flex": 3, "batch": 4}

# vLLM says "abort" when it was told to end a request; whatever else is not here is a failure.
_FINISH: Mapping[str | None, FinishReason] = {
    None: FINISH_REASON_UNSPECIFIED,
    "stop": FINISH_REASON_STOP,
    "length": FINISH_REASON_LENGTH,
    "abort": FINISH_REASON_UNSPECIFIED,
}

# How long vLLM's processes may take to end by themselves. Its CPU worker was never seen to do so, and nothing in it is
# worth waiting for.
_STOP_TIMEOUT_S = 1.0

# How long a killed process may take to be gone.
_KILL_TIMEOUT_S = 5.0


class VllmEngine:
    """One AsyncLLM."""

    def __init__(self, spec: ModelSpec, checkpoint: Path, settings: Settings) -> None:
        self._spec = spec
        self._checkpoint = checkpoint
        self._llm: Any = None
        self._sampling_params: Any = None
        self._vocabulary = Vocabulary((), frozenset())
        self._vocabulary_size = 0
        self._grammars = Grammars(checkpoint, settings)
        # Requests whose constraint is being tried, or whose images are read; vLLM does not know them yet.
        self._preparing: dict[str, asyncio.Task[tuple[str | None, dict[str, Any]]]] = {}
        self._images: Images | None = None
        self._client_error: type[Exception] = ValueError
        self._processes: list[psutil.Process] = []
        self._cache_used = 0.0
        self._closing = False
        # One thread for as long as the engine lives: the kernel ends vLLM's processes with the thread that made them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vllm")

    async def start(self, report: Report) -> None:
        loop = asyncio.get_running_loop()
        report("loading vLLM")
        await loop.run_in_executor(self._thread, self._import)
        report("loading weights")
        # Beside the weights, at a lower priority: a replica that is ready also answers by schemas.
        self._grammars.start()
        self._llm = await loop.run_in_executor(self._thread, self._load)
        report("warming up")
        await self._warm_up()
        await self._grammars.up()

    def _import(self) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import vllm.v1.engine.async_llm  # noqa: F401 - the slow part, ahead of the weights

    def _load(self) -> Any:
        from vllm import AsyncEngineArgs
        from vllm.exceptions import VLLMClientError
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.executor import Executor
        from vllm.v1.metrics.loggers import StatLoggerBase

        from services.chat_inference.engines.executors import tied
        from services.chat_inference.engines.sampling import sampling_params

        if self._closing:
            raise asyncio.CancelledError
        engine = self

        class CacheUse(StatLoggerBase):  # type: ignore[misc]
            """Keeps the one number of vLLM's statistics that the router is told."""

            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
                pass

            def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
                if scheduler_stats is not None:
                    engine._cache_used = scheduler_stats.kv_cache_usage

            def log_engine_initialized(self) -> None:
                pass

        self._sampling_params = sampling_params
        self._client_error = VLLMClientError
        settings: dict[str, Any] = {
            "model": str(self._checkpoint),
            "served_model_name": self._spec.name,
            "max_model_len": self._spec.context_tokens,
            "max_num_seqs": self._spec.slots,
            "scheduling_policy": "priority",
            "disable_log_stats": True,
            # The one that reads structural tags; no other is tried in its place.
            "structured_outputs_config": {"backend": "xgrammar"},
        }
        if current_platform.is_cpu():
            worker = "services.chat_inference.engines.cpu_worker.Worker"
            settings |= {"dtype": "bfloat16", "enforce_eager": True, "worker_cls": worker}
            # vLLM's samplers would be compiled all the same, each when a request first needs it: half a minute of
            # standstill for everybody. As they are written, they are as fast on a CPU.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        if self._spec.vision:
            self._images = Images(self._checkpoint, self._spec.vision)
            settings |= {
                "limit_mm_per_prompt": {"image": self._spec.vision.max_images},
                # This cache is two that must stay alike: a request that is aborted before it has reached the engine's
                # process would part them. Prompts with the same images are found in the prefix cache all the same.
                "mm_processor_cache_gb": 0,
            }
        settings |= self._spec.engine_args
        # Children inherit the blocked signal; starting the tracker with the first of them would unblock it.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            config = AsyncEngineArgs(**settings).create_engine_config()
            executor = tied(Executor.get_class(config))
            llm = AsyncLLM(config, executor, log_stats=False, log_requests=False, stat_loggers=[CacheUse])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._processes = engine_processes()
        if self._closing:
            llm.shutdown()
        self._vocabulary = vocabulary(llm.get_tokenizer(), self._spec)
        self._vocabulary_size = config.model_config.get_vocab_size()
        return llm

    async def _warm_up(self) -> None:
        """The first requests take many seconds: memory is touched and kernels are prepared, per kind of batch."""
        for sampling in (
            Sampling(n=1, top_p=0.9),
            Sampling(n=4, top_p=0.9, seed=1),
            Sampling(n=1, temperature=1, top_p=1, frequency_penalty=1, logit_bias={0: 1}, top_logprobs=5),
        ):
            sampling.max_output_tokens = 8
            request = GenerateRequest(request_id="warm-up", prompt_token_ids=[1] * 64, sampling=sampling)
            async for _ in self.generate(request):
                pass
        if self._images:
            for request in self._images.warm_ups(self._llm.model_config.hf_config.image_token_id):
                async for _ in self.generate(request):
                    pass

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Piece]:
        prompt = list(request.prompt_token_ids)
        self._check_length(len(prompt))
        sampling, request_id = request.sampling, request.request_id
        self._check_bias(sampling)
        # Ready for the engine as it is, so that nothing waits for a thread before the engine knows the request.
        inputs: dict[str, Any] = {"type": "token", "prompt_token_ids": prompt}
        if request.cache_salt:
            inputs["cache_salt"] = request.cache_salt
        tag = None
        if sampling.HasField("constraint") or request.thinking.budget_tokens or request.images:
            preparing = self._preparing[request_id] = asyncio.ensure_future(self._prepare(request, inputs))
            try:
                await asyncio.wait((preparing,))
            finally:
                preparing.cancel()
                del self._preparing[request_id]
            if preparing.cancelled():
                return
            tag, inputs = preparing.result()
        added = len(inputs["prompt_token_ids"]) - len(prompt)
        parameters = self._sampling_params(sampling, self._spec, tag)
        priority = _PRIORITY.get(request.service_tier, _PRIORITY["default"])
        outputs = self._llm.generate(inputs, parameters, request_id, priority=priority)
        try:
            if sampling.echo or sampling.HasField("top_logprobs") or request.HasField("thinking"):
                async for piece in self._by_token(request, outputs):
                    yield piece._replace(added_tokens=added) if added else piece
                return
            async for output in outputs:
                cached = output.num_cached_tokens or 0
                for choice in output.outputs:
                    tokens = len(choice.token_ids)
                    reason = _FINISH[choice.finish_reason]
                    if tokens or reason or choice.text:
                        yield Piece(choice.index, choice.text, tokens, reason, cached, (), added)
        except self._client_error as error:
            raise InvalidRequest("invalid_value", str(error), param=getattr(error, "parameter", None)) from error

    async def _prepare(self, request: GenerateRequest, inputs: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """The structural tag that binds the answer, if any, and the inputs with the images in their places."""
        tag = None
        if request.sampling.HasField("constraint") or request.thinking.budget_tokens:
            tag = await self._grammars.tag(request)
        if request.images:
            if self._images is None:
                raise InvalidRequest("unsupported_value", "This model sees no images.", param="messages")
            try:
                inputs = await self._images.inputs(self._llm.renderer, request)
            except self._client_error as error:
                raise InvalidRequest("invalid_value", str(error), param="messages") from error
            self._check_length(len(inputs["prompt_token_ids"]))
        return tag, inputs

    def _check_length(self, tokens: int) -> None:
        if tokens >= self._spec.context_tokens:
            raise InvalidRequest(
                "context_length_exceeded",
                f"This model's maximum context length is {self._spec.context_tokens} tokens, "
                f"and the prompt has {tokens}.",
                param="messages",
            )

    async def _by_token(self, request: GenerateRequest, outputs: AsyncIterator[Any]) -> AsyncIterator[Piece]:
        """Pieces that are as small as their text allows, with all that a request may want to know of a token."""
        sampling = request.sampling
        top = sampling.top_logprobs if sampling.HasField("top_logprobs") else None
        prompt: Part | None = None
        aligners: dict[int, Aligner] = {}
        async for output in outputs:
            cached = output.num_cached_tokens or 0
            if sampling.echo and prompt is None:
                prompt = prompt_part(self._vocabulary, request.prompt_token_ids, output.prompt_logprobs, top or 0)
            for choice in output.outputs:
                aligner = aligners.get(choice.index)
                if aligner is None:
                    aligner = aligners[choice.index] = Aligner(self._vocabulary, top)
                    if prompt:
                        yield _piece(choice.index, prompt, FINISH_REASON_UNSPECIFIED, cached)
                if not sampling.max_output_tokens:
                    # Only the prompt was asked for.
                    yield Piece(choice.index, "", 0, FINISH_REASON_LENGTH, cached)
                    continue
                for part in aligned(aligner, choice):
                    yield _piece(choice.index, part, FINISH_REASON_UNSPECIFIED, cached)
                if choice.finish_reason:
                    rest = aligner.rest(isinstance(choice.stop_reason, str))
                    yield _piece(choice.index, rest, _FINISH[choice.finish_reason], cached)

    def _check_bias(self, sampling: Sampling) -> None:
        strange = [token for token in sampling.logit_bias if token >= self._vocabulary_size]
        if strange:
            raise InvalidRequest(
                "invalid_value",
                f"'logit_bias' names the token {strange[0]}; this model's tokens are 0 to {self._vocabulary_size - 1}.",
                param="logit_bias",
            )

    async def abort(self, request_id: str) -> None:
        if preparing := self._preparing.get(request_id):
            preparing.cancel()
        await self._llm.abort(request_id)

    def cache_used(self) -> float:
        return self._cache_used

    def healthy(self) -> bool:
        return self._llm is not None and not self._llm.errored

    async def close(self) -> None:
        """Ends the engine and its processes."""
        self._closing = True
        await self._grammars.close()
        if self._images:
            self._images.close()
        loop = asyncio.get_running_loop()
        if self._llm is not None:
            # It would report the end of the engine's process as a failure.
            if self._llm.output_handler:
                self._llm.output_handler.cancel()
            await loop.run_in_executor(self._thread, self._llm.shutdown, _STOP_TIMEOUT_S)
            # The worker of an engine process that died by itself lives on for some seconds.
            await loop.run_in_executor(None, kill, self._processes)
        ended = loop.run_in_executor(None, self._thread.shutdown)
        while not ended.done():
            # An interrupted start waits for its processes; their end is its end.
            await loop.run_in_executor(None, kill, engine_processes())
            await asyncio.wait((ended,), timeout=0.2)


def vocabulary(tokenizer: Any, spec: ModelSpec) -> Vocabulary:
    """xgrammar knows how each kind of tokenizer writes bytes."""
    import xgrammar

    from services.chat_inference.engines.sampling import shows_no_special_tokens

    hidden = tokenizer.all_special_ids if shows_no_special_tokens(spec) else ()
    return Vocabulary(xgrammar.TokenizerInfo.from_huggingface(tokenizer).decoded_vocab, frozenset(hidden))


def aligned(aligner: Aligner, choice: Any) -> Iterator[Part]:
    """What vLLM delivered of a choice; a token that ended it is counted, and is no part of the text."""
    ended = choice.finish_reason == "stop" and not isinstance(choice.stop_reason, str)
    end = len(choice.token_ids) - ended
    yield from aligner.add(choice.text, choice.token_ids[:end], choice.logprobs)
    if ended:
        yield Part("", 1, ())


def _piece(choice: int, part: Part, reason: FinishReason, cached: int) -> Piece:
    return Piece(choice, part.text, part.tokens, reason, cached, part.logprobs)


def engine_processes() -> list[psutil.Process]:
    """The processes that vLLM has started from this one: its engine's, and that one's workers."""
    found = []
    for child in multiprocessing.active_children():
        if child.name.startswith("EngineCore"):
            with suppress(psutil.NoSuchProcess):
                engine = psutil.Process(child.pid)
                found += [engine, *engine.children(recursive=True)]
    return found


def kill(processes: list[psutil.Process]) -> None:
    """Kills what is left of them, and returns when they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    until = time.monotonic() + _KILL_TIMEOUT_S
    while any(map(lives, processes)) and time.monotonic() < until:
        time.sleep(0.01)


def lives(process: psutil.Process) -> bool:
    """False also for a process that has ended but that nobody has collected."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
