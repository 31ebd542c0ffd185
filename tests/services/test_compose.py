"""Start and stop in order, needs over both wirings, and signals."""

import asyncio
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelplane.auth.v1.auth_api import AuthService
from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest, Sampling
from modelplane.tokenizer.v1.tokenizer_api import TokenizerService
from modelplane.tokenizer.v1.tokenizer_pb2 import RenderRequest
from services import compose, graph
from services.compose import Context, Platform
from services.context import call
from services.faults import DeadlineExceeded, Unavailable
from services.rpc.connect import connect
from services.rpc.settings import RpcSettings
from services.settings import Environment, PlatformSettings, SettingsError
from tests.cluster.certificates import Authority
from tests.fakes.journal import NEEDS, Journal
from tests.fakes.probes import ProbeTokenizer
from tests.services.rpc.authorities import Secret

OPENED = ["open tokenizer", "open chat_inference", "open gateway"]
DRAINED = ["drain gateway", "drain chat_inference", "drain tokenizer"]
CLOSED = ["close gateway", "close chat_inference", "close tokenizer"]


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    journal = Journal()
    table = journal.table()
    monkeypatch.setattr(graph, "SERVICES", table)
    monkeypatch.setattr(compose, "SERVICES", table)
    return journal


def platform(*targets: str, **variables: str) -> Platform:
    return Platform(targets or tuple(NEEDS), Environment({f"MODELPLANE_{k}": v for k, v in variables.items()}))


async def health(address: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        status: int = answer.status
        return status


async def test_everything_opens_drains_and_closes_in_order(journal: Journal) -> None:
    async with platform("gateway", "chat_inference", "tokenizer") as running:
        assert journal.entries == OPENED
        assert running.serving and journal.contexts["gateway"].serving
        await health(running.server.address)
    assert journal.entries == OPENED + DRAINED + CLOSED
    assert not running.serving
    with pytest.raises(grpc.aio.AioRpcError):
        await health(running.server.address)


async def test_a_need_in_this_process_is_the_object_itself(journal: Journal) -> None:
    async with platform() as running:
        tokenizer = journal.contexts["gateway"].need(TokenizerService)
        assert tokenizer is running.local(TokenizerService) is journal.contexts["chat_inference"].need(TokenizerService)


async def test_a_need_elsewhere_is_a_client_of_the_same_shape(journal: Journal) -> None:
    async with platform("tokenizer", "chat_inference") as there:
        address = there.server.address
        async with platform("gateway", TOKENIZER_ADDRESS=address, CHAT_INFERENCE_ADDRESS=address) as here:
            gateway = journal.contexts["gateway"]
            tokenizer, inference = gateway.need(TokenizerService), gateway.need(ChatInferenceService)
            assert tokenizer is not there.local(TokenizerService)
            assert (await tokenizer.render(RenderRequest(model="m"))).prompt.model == "m"
            request = GenerateRequest(sampling=Sampling(max_output_tokens=3))
            assert len([delta async for delta in inference.generate(request)]) == 3
            assert gateway.address_of("tokenizer") == address
            assert set(here.pings) == {"tokenizer", "chat_inference", "gateway"}
            await here.pings["tokenizer"]()
        with pytest.raises(LookupError):
            there.local(AuthService)


async def test_a_dynamic_address(journal: Journal) -> None:
    async with platform() as running:
        context = journal.contexts["gateway"]
        assert context.rpc_address == running.server.address == context.address_of("tokenizer")
        async with context.connect(TokenizerService, context.rpc_address) as client:
            assert (await client.render(RenderRequest(model="m"))).prompt.model == "m"


async def test_a_need_without_an_address_says_what_to_set(journal: Journal) -> None:
    with pytest.raises(SettingsError, match="MODELPLANE_TOKENIZER_ADDRESS"):
        async with platform("gateway"):
            pass
    assert journal.entries == []


async def test_a_service_gets_nothing_that_its_row_does_not_list(journal: Journal) -> None:
    async with platform():
        with pytest.raises(LookupError, match="tokenizer does not list a service of ChatInferenceService"):
            journal.contexts["tokenizer"].need(ChatInferenceService)
        with pytest.raises(LookupError, match="database"):
            journal.contexts["gateway"].database()


async def test_a_build_that_fails_closes_what_was_opened(journal: Journal) -> None:
    async def fail(context: Context) -> None:
        raise ValueError("no")

    journal.on_build["gateway"] = fail
    failing = platform()
    with pytest.raises(ValueError, match="no"):
        async with failing:
            pass
    assert journal.entries == OPENED + CLOSED
    with pytest.raises(grpc.aio.AioRpcError):
        await health(failing.server.address)


async def test_health_is_serving_only_between_start_and_stop(journal: Journal) -> None:
    seen = {}

    async def look(context: Context) -> None:
        seen["build"] = await health(context.rpc_address)

    async def drain() -> None:
        seen["drain"] = await health(running.server.address)

    journal.on_build["gateway"] = look
    journal.on_drain["gateway"] = drain
    async with platform() as running:
        seen["serving"] = await health(running.server.address)
    response = health_pb2.HealthCheckResponse
    assert seen == {"build": response.NOT_SERVING, "serving": response.SERVING, "drain": response.NOT_SERVING}


async def test_what_is_built_can_be_called_back_before_the_rest_is(journal: Journal) -> None:
    async def call_back(context: Context) -> None:
        async with (
            context.connect(TokenizerService, context.rpc_address) as tokenizer,
            context.connect(ChatInferenceService, context.rpc_address) as inference,
        ):
            await tokenizer.render(RenderRequest())
            with pytest.raises(Unavailable) as caught:
                await anext(aiter(inference.generate(GenerateRequest())))
            assert caught.value.reason == "service_unavailable"

    journal.on_build["chat_inference"] = call_back
    async with platform():
        pass


async def test_calls_in_flight_end_before_the_services_do(journal: Journal) -> None:
    async with platform("tokenizer") as there:
        tokenizer = journal.contexts["tokenizer"]._platform.objects["tokenizer"]
        assert isinstance(tokenizer, ProbeTokenizer)
        tokenizer.released.clear()
        async with connect(TokenizerService, there.server.address, RpcSettings()) as client:
            calling = asyncio.create_task(client.render(RenderRequest(model="m")))
            await tokenizer.started.wait()
            stopping = asyncio.create_task(there.__aexit__())
            await asyncio.sleep(0.5)
            assert "close tokenizer" not in journal.entries
            tokenizer.released.set()
            assert (await calling).prompt.model == "m"
            await stopping
    assert "close tokenizer" in journal.entries


async def test_processes_with_certificates_know_each_other(journal: Journal, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority", "ours")
    here = str(Secret(tmp_path / "here", authority).folder)
    stranger = Secret(tmp_path / "stranger", Authority(tmp_path / "foreign", "theirs"))
    async with platform("tokenizer", "chat_inference", RPC_TLS_FOLDER=here) as there:
        address = there.server.address
        variables = {"TOKENIZER_ADDRESS": address, "CHAT_INFERENCE_ADDRESS": address, "RPC_TLS_FOLDER": here}
        async with platform("gateway", **variables):
            gateway = journal.contexts["gateway"]
            assert (await gateway.need(TokenizerService).render(RenderRequest(model="m"))).prompt.model == "m"
            async with gateway.connect(TokenizerService, address) as client:
                assert (await client.render(RenderRequest(model="n"))).prompt.model == "n"
            assert gateway.server_tls().verify_mode is ssl.CERT_REQUIRED
        for settings in (RpcSettings(), stranger.settings):
            async with connect(TokenizerService, address, settings) as refused:
                with call("req_1", 0.3), pytest.raises(DeadlineExceeded):
                    await refused.render(RenderRequest())


async def test_tls_of_a_service_needs_certificates(journal: Journal) -> None:
    async with platform():
        with pytest.raises(SettingsError, match="MODELPLANE_RPC_TLS_FOLDER"):
            journal.contexts["gateway"].server_tls()


async def test_probes_and_metrics_are_there_from_birth_to_death(journal: Journal) -> None:
    with socket.socket() as first, socket.socket() as second:
        for found in (first, second):
            found.bind(("127.0.0.1", 0))
        probes, metrics = (f"127.0.0.1:{found.getsockname()[1]}" for found in (first, second))
    seen: list[tuple[int, int, int]] = []
    status = health_pb2.HealthCheckResponse

    async def look(*_: object) -> None:
        async with grpc.aio.insecure_channel(probes) as channel, httpx.AsyncClient() as http:
            stub = health_pb2_grpc.HealthStub(channel)
            alive, ready = [
                (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status
                for name in ("liveness", "readiness")
            ]
            seen.append((alive, ready, (await http.get(f"http://{metrics}/metrics")).status_code))

    journal.on_build["gateway"] = look
    journal.on_drain["gateway"] = look
    async with platform(RPC_HEALTH_LISTEN=probes, TELEMETRY_LISTEN=metrics):
        await look()
    starting = (status.SERVING, status.NOT_SERVING, 200)
    assert seen == [starting, (status.SERVING, status.SERVING, 200), starting]
    with pytest.raises(grpc.aio.AioRpcError):
        await look()


async def test_readiness_is_all_the_pings(journal: Journal) -> None:
    async with platform():
        pings = journal.contexts["tokenizer"].pings()
        assert set(pings) == {"tokenizer", "chat_inference", "gateway"}
        journal.sick.add("chat_inference")
        await pings["tokenizer"]()
        with pytest.raises(Unavailable):
            await pings["chat_inference"]()


async def test_the_grace_period_ends_a_drain_that_does_not(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    journal.on_drain["chat_inference"] = asyncio.Event().wait
    async with platform(GRACE_S="0.05"):
        pass
    assert journal.entries == OPENED + DRAINED[:2] + CLOSED
    assert "grace period ended" in caplog.text


async def test_hurry_ends_a_drain(journal: Journal) -> None:
    running = platform()

    async def hurry() -> None:
        running.hurry()
        await asyncio.Event().wait()

    journal.on_drain["gateway"] = hurry
    async with running:
        pass
    assert journal.entries == [*OPENED, "drain gateway", *CLOSED]


async def test_a_drain_that_fails_leaves_the_others_theirs(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("no")

    journal.on_drain["gateway"] = fail
    async with platform():
        pass
    assert journal.entries == OPENED + DRAINED + CLOSED
    assert "a service did not drain" in caplog.text


async def test_the_drain_delay_comes_before_the_drain(journal: Journal) -> None:
    loop = asyncio.get_running_loop()
    drained_at: list[float] = []

    async def note() -> None:
        drained_at.append(loop.time())

    journal.on_drain["gateway"] = note
    async with platform(DRAIN_DELAY_S="0.1"):
        left = loop.time()
    assert drained_at[0] - left >= 0.1


async def test_settings_and_reports_reach_a_build(journal: Journal) -> None:
    async def report(context: Context) -> None:
        context.report(f"{context.service} on {context.settings(PlatformSettings).port}")

    journal.on_build["gateway"] = report
    steps: list[str] = []
    async with Platform(NEEDS, Environment({"MODELPLANE_PORT": "7"}), steps.append) as running:
        assert running.settings.port == 7
    assert steps == [
        "starting tokenizer",
        "starting chat_inference",
        "starting gateway",
        "gateway on 7",
        "finishing what is in flight",
    ]


async def test_run_raises_what_the_start_raises(journal: Journal) -> None:
    async def fail(context: Context) -> None:
        raise ValueError("no")

    journal.on_build["gateway"] = fail
    with pytest.raises(ValueError, match="no"):
        await compose.run(NEEDS, Environment({}))


async def test_run_stops_when_what_follows_the_start_fails(journal: Journal) -> None:
    async def started(running: Platform) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await compose.run(NEEDS, Environment({}), started)
    assert journal.entries == OPENED + DRAINED + CLOSED


PROGRAM = """
import asyncio, sys
from services import compose, graph
from services.settings import Environment
from tests.fakes.journal import Journal, NEEDS

journal = Journal(echo=True)
graph.SERVICES = compose.SERVICES = journal.table()

async def for_ever(*_):
    print("waiting", flush=True)
    await asyncio.Event().wait()

async def announce(platform):
    print("started", flush=True)
    await asyncio.Event().wait()

if sys.argv[1] == "slow build":
    journal.on_build["gateway"] = for_ever
if sys.argv[1] == "slow drain":
    journal.on_drain["gateway"] = for_ever
asyncio.run(compose.run(NEEDS, Environment({"MODELPLANE_GRACE_S": "60"}), announce))
print("ended", flush=True)
"""


class Program:
    """A platform in its own process, whose output is its journal."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def read_until(self, line: str) -> list[str]:
        assert self.process.stdout
        lines = []
        for text in self.process.stdout:
            lines.append(text.strip())
            if lines[-1] == line:
                return lines
        raise AssertionError(f"{line!r} did not come: {lines}")

    def rest(self) -> list[str]:
        output, _ = self.process.communicate(timeout=30)
        return output.split("\n")[:-1]


@contextmanager
def program(kind: str) -> Iterator[Program]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, kind], stdout=subprocess.PIPE, text=True)
    try:
        yield Program(process)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_in_order_with_status_0(how: signal.Signals) -> None:
    with program("plain") as running:
        running.read_until("started")
        running.process.send_signal(how)
        assert running.rest() == [*DRAINED, *CLOSED, "ended"]
        assert running.process.returncode == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_starting_ends_the_start_with_status_0(how: signal.Signals) -> None:
    with program("slow build") as running:
        assert running.read_until("waiting") == [*OPENED, "waiting"]
        running.process.send_signal(how)
        assert running.rest() == [*CLOSED, "ended"]
        assert running.process.returncode == 0


def test_a_second_interrupt_hurries_the_stop() -> None:
    with program("slow drain") as running:
        running.read_until("started")
        running.process.send_signal(signal.SIGINT)
        running.read_until("waiting")
        running.process.send_signal(signal.SIGINT)
        assert running.rest() == [*CLOSED, "ended"]
        assert running.process.returncode == 0


def test_a_second_sigterm_does_not_cut_the_grace_period_short() -> None:
    """Orchestrators may repeat it; they send SIGKILL when they mean it."""
    with program("slow drain") as running:
        running.read_until("started")
        running.process.send_signal(signal.SIGTERM)
        running.read_until("waiting")
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(0.3)
        running.process.send_signal(signal.SIGINT)
        assert running.rest() == [*CLOSED, "ended"]
