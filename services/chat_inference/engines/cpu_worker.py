"""vLLM's worker on a CPU, which counts right how much memory a container has left, and answers right on every CPU.

vLLM takes for used what the kernel only keeps of files. Those of the image and of the weights fill a pod up to its
limit, whatever that is, and the engine would then refuse to start for want of memory, again and again.

vLLM's attention for CPUs with matrix tiles (AMX) talks nonsense: with vLLM 0.32, on an Intel Xeon of model 167 in a
virtual machine, SmolLM2 answers as on other CPUs with the attention for vectors, which it would have without tiles.
oneDNN's products with tiles are right there. Measure again with the next vLLM.
"""

from typing import Any

from vllm.utils import cpu_resource_utils
from vllm.v1.attention.backends import cpu_attn
from vllm.v1.worker.cpu_worker import CPUWorker

from services.chat_inference.engines.memory import kept_files_bytes


class Worker(CPUWorker):  # type: ignore[misc]
    """In a process of its own, which has nobody else who asks vLLM for either."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        count = cpu_resource_utils.get_cgroup_memory_usage

        def used() -> int | None:
            bytes_ = count()
            return None if bytes_ is None else max(0, bytes_ - kept_files_bytes())

        instructions = cpu_attn._get_attn_isa

        def without_tiles(*arguments: Any, **options: Any) -> str:
            found = instructions(*arguments, **options)
            return "vec" if found == "amx" else str(found)

        cpu_resource_utils.get_cgroup_memory_usage = used
        cpu_attn._get_attn_isa = without_tiles
        super().__init__(*arguments, **options)
