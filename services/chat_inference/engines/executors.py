"""vLLM's executors, tied to the replica's life, in a process in which grammars do not hold up the model.

vLLM's workers notice when its engine process ends, but the engine process does not notice the end of the one that
started it: it was seen to live on, with its gigabytes. An executor is what vLLM builds inside the engine process
from a class that its user may give. Imported with vLLM only.

vLLM compiles a request's grammar in a thread of the engine process, which xgrammar splits over more. Where the model
runs on the same processors, they would slow down every running stream; as threads of low priority they do not.
"""

import os
import threading
from typing import Any

from vllm.v1.executor import Executor
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

from services.chat_inference.engines.lifeline import end_with_parent

# A thirtieth of what the model's threads get of a busy processor; a compilation has several threads.
_NICE = 15


class TiedMultiprocExecutor(MultiprocExecutor):  # type: ignore[misc]
    """A worker process per device, and on a CPU one."""

    def _init_executor(self) -> None:
        end_with_parent()
        compile_gently()
        super()._init_executor()


class TiedUniProcExecutor(UniProcExecutor):  # type: ignore[misc]
    """The worker inside the engine process: one GPU."""

    def _init_executor(self) -> None:
        end_with_parent()
        compile_gently()
        super()._init_executor()


def tied(executor: type[Executor]) -> type[Executor]:
    """The executor that vLLM chose, tied; one that is not ours to tie, such as Ray's, as it is."""
    return {MultiprocExecutor: TiedMultiprocExecutor, UniProcExecutor: TiedUniProcExecutor}.get(executor, executor)


def compile_gently() -> None:
    """Gives the threads of grammar compilations in this process a low priority; they inherit it."""
    compile_grammar = XgrammarBackend.compile_grammar

    def gently(self: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        return compile_grammar(self, *args, **kwargs)

    XgrammarBackend.compile_grammar = gently
