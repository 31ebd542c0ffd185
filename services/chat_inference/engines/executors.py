"""vLLM's executors, tied to the replica's life.

vLLM's workers notice when its engine process ends, but the engine process does not notice the end of the one that
started it: it was seen to live on, with its gigabytes. An executor is what vLLM builds inside the engine process
from a class that its user may give. Imported with vLLM only.
"""

from vllm.v1.executor import Executor
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from services.chat_inference.engines.lifeline import end_with_parent


class TiedMultiprocExecutor(MultiprocExecutor):  # type: ignore[misc]
    """A worker process per device, and on a CPU one."""

    def _init_executor(self) -> None:
        end_with_parent()
        super()._init_executor()


class TiedUniProcExecutor(UniProcExecutor):  # type: ignore[misc]
    """The worker inside the engine process: one GPU."""

    def _init_executor(self) -> None:
        end_with_parent()
        super()._init_executor()


def tied(executor: type[Executor]) -> type[Executor]:
    """The executor that vLLM chose, tied; one that is not ours to tie, such as Ray's, as it is."""
    return {MultiprocExecutor: TiedMultiprocExecutor, UniProcExecutor: TiedUniProcExecutor}.get(executor, executor)
