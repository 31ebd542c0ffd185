"""vLLM's worker on a CPU, which counts right how much memory a container has left.

vLLM takes for used what the kernel only keeps of files. Those of the image and of the weights fill a pod up to its
limit, whatever that is, and the engine would then refuse to start for want of memory, again and again.
"""

from typing import Any

from vllm.utils import cpu_resource_utils
from vllm.v1.worker.cpu_worker import CPUWorker

from services.chat_inference.engines.memory import kept_files_bytes


class Worker(CPUWorker):  # type: ignore[misc]
    """In a process of its own, which has nobody else who asks vLLM for that."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        count = cpu_resource_utils.get_cgroup_memory_usage

        def used() -> int | None:
            bytes_ = count()
            return None if bytes_ is None else max(0, bytes_ - kept_files_bytes())

        cpu_resource_utils.get_cgroup_memory_usage = used
        super().__init__(*arguments, **options)
