"""vLLM as the engine: one code path for GPUs and, for one machine, the CPU.

Kept true: what is metered is what vLLM generated, also on an abort; loading never holds up the event loop; the
processes that vLLM starts end with this one however it ends, and a Ctrl-C in the terminal is left to the platform,
which finishes what is in flight before it stops them.
"""

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
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

# vLLM takes -1 for "no seed" and adds a choice's number to it, so seeds are kept positive and well below 2^63.
_SEED_MASK = 2**62 - 1

# vLLM wants top_p above 0; OpenAI admits 0, which keeps the likeliest token alone, as this does.
_LEAST_TOP_P = 1e-9

# How long vLLM's processes may take to end by themselves. Its CPU worker was never seen to do so, and nothing in it is
# worth waiting for.
_STOP_TIMEOUT_S = 1.0

# How long a killed process may take to be gone.
_KILL_TIMEOUT_S = 5.0


class VllmEngine:
    """One AsyncLLM."""

    def __init__(self, spec: ModelSpec, checkpoint: Path) -> None:
        self._spec = spec
        self._checkpoint = checkpoint
        self._llm: Any = None
        self._sampling_params: Any = None
        self._delta_kind: Any = None
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
        self._llm = await loop.run_in_executor(self._thread, self._load)
        report("warming up")
        await self._warm_up()

    def _import(self) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import vllm.v1.engine.async_llm  # noqa: F401 - the slow part, ahead of the weights

    def _load(self) -> Any:
        from vllm import AsyncEngineArgs, SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.platforms import current_platform
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.executor import Executor
        from vllm.v1.metrics.loggers import StatLoggerBase

        from services.chat_inference.engines.executors import tied

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

        self._sampling_params = SamplingParams
        self._delta_kind = RequestOutputKind.DELTA
        self._client_error = VLLMClientError
        settings: dict[str, Any] = {
            "model": str(self._checkpoint),
            "served_model_name": self._spec.name,
            "max_model_len": self._spec.context_tokens,
            "max_num_seqs": self._spec.slots,
            "scheduling_policy": "priority",
            "disable_log_stats": True,
        }
        if current_platform.is_cpu():
            settings |= {"dtype": "bfloat16", "enforce_eager": True}
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
        return llm

    async def _warm_up(self) -> None:
        """The first requests take many seconds: memory is touched and kernels are prepared, per kind of batch."""
        for choices, seed in ((1, None), (4, 1)):
            sampling = Sampling(n=choices, seed=seed, top_p=0.9, max_output_tokens=8)
            request = GenerateRequest(request_id="warm-up", prompt_token_ids=[1] * 64, sampling=sampling)
            async for _ in self.generate(request):
                pass

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Piece]:
        prompt = list(request.prompt_token_ids)
        if len(prompt) >= self._spec.context_tokens:
            raise InvalidRequest(
                "context_length_exceeded",
                f"This model's maximum context length is {self._spec.context_tokens} tokens, "
                f"and the prompt has {len(prompt)}.",
                param="messages",
            )
        outputs = self._llm.generate(
            # Ready for the engine as it is, so that nothing waits for a thread before the engine knows the request.
            {"type": "token", "prompt_token_ids": prompt},
            self._sampling(request.sampling),
            request.request_id,
            priority=_PRIORITY.get(request.service_tier, _PRIORITY["default"]),
        )
        try:
            async for output in outputs:
                cached = output.num_cached_tokens or 0
                for choice in output.outputs:
                    tokens = len(choice.token_ids)
                    reason = _FINISH[choice.finish_reason]
                    if tokens or reason or choice.text:
                        yield Piece(choice.index, choice.text, tokens, reason, cached)
        except self._client_error as error:
            raise InvalidRequest("invalid_value", str(error)) from error

    def _sampling(self, sampling: Sampling) -> Any:
        return self._sampling_params(
            n=sampling.n,
            temperature=sampling.temperature if sampling.HasField("temperature") else self._spec.default_temperature,
            top_p=max(sampling.top_p, _LEAST_TOP_P) if sampling.HasField("top_p") else self._spec.default_top_p,
            seed=sampling.seed & _SEED_MASK if sampling.HasField("seed") else None,
            stop=list(sampling.stop),
            max_tokens=sampling.max_output_tokens,
            output_kind=self._delta_kind,
        )

    async def abort(self, request_id: str) -> None:
        await self._llm.abort(request_id)

    def cache_used(self) -> float:
        return self._cache_used

    def healthy(self) -> bool:
        return self._llm is not None and not self._llm.errored

    async def close(self) -> None:
        """Ends the engine and its processes."""
        self._closing = True
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
