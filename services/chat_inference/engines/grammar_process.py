"""The process that tries grammars before the engine gets them: it makes each in a child of its own.

A schema of a hundred characters can keep a grammar compiler busy for minutes or ask it for gigabytes, and there is
no way to interrupt it but the end of its process. Kept true: a try ends within its bounds of time and memory, and
with it everything that it held; tries run side by side, with less of the processor than the model gets; the process
ends when its standard input does, so it never outlives the replica.

Reads a line of JSON per try from standard input and writes one per verdict: `{"id", "tag"}` for a grammar that can be
made, `{"id", "problem"}` for one that cannot. Starts with the line `{}` once it is ready.
"""

import json
import os
import resource
import selectors
import signal
import sys
from typing import Any

from services.chat_inference.constraints import SchemaError, Thoughts, structural_tag

# Less of the processor than the model's threads have; a tenth of a busy one.
_NICE = 10
# A try that stands still, though it should not, is ended after so many times its bound of processor time.
_STANDSTILL = 10
_READ_BYTES = 1 << 20


class Tries:
    """The children that are at work, by the pipe on which each says its verdict."""

    def __init__(self, tokenizer_info: Any, cpu_s: int, memory_bytes: int) -> None:
        self._tokenizer_info = tokenizer_info
        self._cpu_s = cpu_s
        self._memory_bytes = memory_bytes
        self._selector = selectors.DefaultSelector()
        self._asked = bytearray()
        # Pipe -> (process, id of the try, what it has said)
        self._running: dict[int, tuple[int, str, bytearray]] = {}

    def run(self) -> None:
        """Returns when nobody asks any more."""
        self._selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fd:
                    self._hear(key.fd)
                elif not self._read():
                    return

    def _read(self) -> bool:
        data = os.read(0, _READ_BYTES)
        self._asked += data
        *lines, rest = self._asked.split(b"\n")
        self._asked = bytearray(rest)
        for line in lines:
            self._start(json.loads(line))
        return bool(data)

    def _start(self, asked: dict[str, Any]) -> None:
        reader, writer = os.pipe()
        process = os.fork()
        if not process:
            _try(asked, self._tokenizer_info, self._cpu_s, self._memory_bytes, writer)
        os.close(writer)
        self._running[reader] = (process, asked["id"], bytearray())
        self._selector.register(reader, selectors.EVENT_READ)

    def _hear(self, reader: int) -> None:
        process, name, said = self._running[reader]
        if data := os.read(reader, _READ_BYTES):
            said += data
            return
        self._selector.unregister(reader)
        os.close(reader)
        del self._running[reader]
        _, status = os.waitpid(process, 0)
        if not said.endswith(b"}"):
            slow = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM)
            bound = f"more than {self._cpu_s} s" if slow else "too much memory"
            said = bytearray(json.dumps({"problem": f"The schema is too complex: its grammar takes {bound}."}).encode())
        _say({"id": name, **json.loads(said)})


def _try(asked: dict[str, Any], tokenizer_info: Any, cpu_s: int, memory_bytes: int, writer: int) -> None:
    """A child's whole life. The bounds of the operating system end it where an exception does not."""
    try:
        os.close(0)
        data = _data_bytes() + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        signal.alarm(cpu_s * _STANDSTILL)
        verdict = json.dumps(_verdict(asked, tokenizer_info)).encode()
        with open(writer, "wb") as pipe:
            pipe.write(verdict)
    finally:
        # Whatever happened, the child must not go on as a second server.
        os._exit(0)


def _verdict(asked: dict[str, Any], tokenizer_info: Any) -> dict[str, str]:
    """Raises MemoryError."""
    import xgrammar

    try:
        thoughts = Thoughts(*asked["thoughts"]) if asked["thoughts"] else None
        tag = structural_tag(asked["kind"], asked["text"], thoughts)
        # A compiler with threads was seen to stand still when one of them ran out of memory.
        xgrammar.GrammarCompiler(tokenizer_info, max_threads=1, cache_enabled=False).compile_structural_tag(tag)
    except SchemaError as error:
        return {"problem": str(error)}
    except MemoryError:
        raise
    except Exception as error:
        if "alloc" in str(error):
            raise MemoryError from error
        return {"problem": f"This model cannot hold its answer to the schema: {_reason(error)}."}
    return {"tag": tag}


def _data_bytes() -> int:
    """What this process has counted against RLIMIT_DATA."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 - nothing but a number
        return int(file.read().split()[5]) * resource.getpagesize()


def _reason(error: Exception) -> str:
    """What xgrammar says, without its time and place in its own code."""
    text = str(error).strip() or type(error).__name__
    _, found, rest = text.partition(".cc:")
    return (rest.partition(": ")[2] if found else text).strip().rstrip(".")


def _say(verdict: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(verdict) + "\n")
    sys.stdout.flush()


def main() -> None:
    import xgrammar
    from transformers import AutoTokenizer

    checkpoint, cpu_s, memory_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.nice(_NICE)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer_info = xgrammar.TokenizerInfo.from_huggingface(tokenizer)
    _say({})
    Tries(tokenizer_info, cpu_s, memory_bytes).run()


if __name__ == "__main__":
    main()
