"""A server of the probes, and clients of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.tokenizer.v1.tokenizer_api import TokenizerService
from services.rpc.connect import connect, descriptor_of
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from tests.fakes.probes import ProbeInference, ProbeTokenizer


class Probes:
    """One running server, its two services, and a client of each."""

    def __init__(self, settings: RpcSettings) -> None:
        self.settings = settings
        self.server = RpcServer(
            settings,
            {"tokenizer": descriptor_of(TokenizerService), "chat_inference": descriptor_of(ChatInferenceService)},
        )
        self.tokenizer = ProbeTokenizer()
        self.inference = ProbeInference()
        self.remote_tokenizer: TokenizerService = self.tokenizer
        self.remote_inference: ChatInferenceService = self.inference

    def place(self) -> None:
        self.server.place("tokenizer", self.tokenizer)
        self.server.place("chat_inference", self.inference)


@asynccontextmanager
async def probes(settings: RpcSettings | None = None, *, placed: bool = True) -> AsyncIterator[Probes]:
    running = Probes(settings or RpcSettings())
    await running.server.start()
    try:
        if placed:
            running.place()
        address = running.server.address
        async with (
            connect(TokenizerService, address, running.settings) as running.remote_tokenizer,
            connect(ChatInferenceService, address, running.settings) as running.remote_inference,
        ):
            yield running
    finally:
        await running.server.stop(0)
