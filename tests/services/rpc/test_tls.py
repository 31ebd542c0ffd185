"""Mutual TLS between processes, over real sockets: who gets in, and what a renewal does to calls that run."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest, SessionRequest
from modelplane.tokenizer.v1.tokenizer_api import TokenizerService
from modelplane.tokenizer.v1.tokenizer_pb2 import Message, RenderRequest
from services import context
from services.faults import DeadlineExceeded, Fault, Unavailable
from services.rpc import certificates
from services.rpc.certificates import Certificates
from services.rpc.connect import connect
from services.rpc.settings import RpcSettings
from services.settings import SettingsError
from tests.cluster.certificates import Authority
from tests.services.rpc.authorities import Secret
from tests.services.rpc.servers import Probes, probes

REQUEST = RenderRequest(model="m", messages=[Message(role="user")])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority", "first")


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "other", "second")


@pytest.fixture
def here(tmp_path: Path, authority: Authority) -> Secret:
    """The client's."""
    return Secret(tmp_path / "here", authority)


@pytest.fixture
def there(tmp_path: Path, authority: Authority) -> Secret:
    """The server's."""
    return Secret(tmp_path / "there", authority)


@pytest.fixture(autouse=True)
def look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.0)


@asynccontextmanager
async def client(p: Probes, settings: RpcSettings) -> AsyncIterator[TokenizerService]:
    async with connect(TokenizerService, p.server.address, settings) as remote:
        yield remote


async def refused(p: Probes, settings: RpcSettings) -> None:
    """Nothing of a call by such a client arrives."""
    async with client(p, settings) as stranger:
        with context.call("req_1", 0.5), pytest.raises((DeadlineExceeded, Unavailable)):
            await stranger.render(REQUEST)
        with pytest.raises(Unavailable):
            await stranger.ping()  # type: ignore[attr-defined]
    assert not p.tokenizer.started.is_set()


async def test_all_kinds_of_calls_work(here: Secret, there: Secret) -> None:
    async with probes(there.settings) as p:
        await p.server.serving(True)
        async with client(p, here.settings) as tokenizer:
            assert (await tokenizer.render(REQUEST)).prompt.model == "m"
            await tokenizer.ping()  # type: ignore[attr-defined]
        async with connect(ChatInferenceService, p.server.address, here.settings) as inference:
            request = GenerateRequest(request_id="req_1")
            request.sampling.max_output_tokens = 3
            assert len([delta async for delta in inference.generate(request)]) == 3


async def test_an_address_with_an_ip_of_which_the_certificate_says_nothing(here: Secret, there: Secret) -> None:
    async with probes(msgspec.structs.replace(there.settings, listen="127.0.0.2:0")) as p:
        assert p.server.address.startswith("127.0.0.2:")
        async with client(p, here.settings) as tokenizer:
            await tokenizer.render(REQUEST)


async def test_strangers_are_refused(tmp_path: Path, there: Secret, other: Authority) -> None:
    foreign = Secret(tmp_path / "foreign", other)
    gullible = Secret(tmp_path / "gullible", other)
    authority = Authority(tmp_path / "authority-2", "first")
    gullible.trust(other, authority)
    async with probes(there.settings) as p:
        await refused(p, RpcSettings())
        await refused(p, foreign.settings)
        await refused(p, gullible.settings)


async def test_a_server_of_another_authority_is_refused(tmp_path: Path, here: Secret, other: Authority) -> None:
    async with probes(Secret(tmp_path / "impostor", other).settings) as p:
        await refused(p, here.settings)


async def test_a_server_for_another_name_is_refused(tmp_path: Path, here: Secret, authority: Authority) -> None:
    there = Secret(tmp_path / "misnamed", authority)
    issued = authority.issue("misnamed", "a process", names=("elsewhere.internal",))
    for name, path in (("tls.crt", issued.certificate), ("tls.key", issued.key)):
        (there.folder / name).unlink()
        (there.folder / name).write_bytes(path.read_bytes())
    async with probes(there.settings) as p:
        await refused(p, here.settings)


async def test_a_socket_file_stays_plain(tmp_path: Path, here: Secret, there: Secret) -> None:
    listen = f"unix:{os.path.relpath(tmp_path)}/s"
    async with probes(msgspec.structs.replace(there.settings, listen=listen)) as p:
        async with client(p, RpcSettings()) as plain:
            await plain.render(REQUEST)
        async with client(p, here.settings) as ours:
            await ours.render(REQUEST)


@asynccontextmanager
async def session(p: Probes, settings: RpcSettings) -> AsyncIterator[asyncio.Queue[str]]:
    """A session that asks ten times a second; the ids that were answered."""
    answered: asyncio.Queue[str] = asyncio.Queue()

    async def requests() -> AsyncIterator[SessionRequest]:
        number = 0
        while True:
            yield SessionRequest(starts=[GenerateRequest(request_id=f"req_{number}")])
            number += 1
            await asyncio.sleep(0.1)

    async def talk() -> None:
        async with (
            connect(ChatInferenceService, p.server.address, settings) as inference,
            aclosing(inference.session(requests())) as frames,  # type: ignore[type-var]
        ):
            async for frame in frames:
                answered.put_nowait(frame.deltas[0].request_id)

    talking = asyncio.create_task(talk())
    try:
        await answered.get()
        yield answered
        while not answered.empty():
            answered.get_nowait()
        await asyncio.wait_for(answered.get(), 30)
        assert not talking.done()
    finally:
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


@asynccontextmanager
async def calls(p: Probes, settings: RpcSettings) -> AsyncIterator[list[Fault]]:
    """Calls without a pause, on a client that stays and on new ones; what failed."""
    failed: list[Fault] = []
    made = 0

    async def call() -> None:
        nonlocal made
        async with client(p, settings) as lasting:
            while True:
                async with client(p, settings) as fresh:
                    for one in (lasting, fresh):
                        try:
                            await one.render(REQUEST)
                            made += 1
                        except Fault as fault:
                            failed.append(fault)

    calling = asyncio.create_task(call())
    try:
        yield failed
        before = made
        async with asyncio.timeout(30):
            while made < before + 10:
                await asyncio.sleep(0.01)
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


async def test_certificates_and_authority_are_renewed_under_load(
    here: Secret, there: Secret, authority: Authority, other: Authority, tmp_path: Path
) -> None:
    outdated = Secret(tmp_path / "outdated", authority)
    async with (
        probes(there.settings) as p,
        session(p, here.settings),
        calls(p, here.settings) as failed,
    ):
        steps: tuple[tuple[Secret, Callable[[Secret], None]], ...] = (
            *((one, lambda one: one.renew()) for one in (here, there)),
            *((one, lambda one: one.trust(authority, other)) for one in (there, here)),
            *((one, lambda one: one.renew(other)) for one in (here, there)),
            *((one, lambda one: one.trust(other)) for one in (there, here)),
        )
        for one, step in steps:
            step(one)
            await asyncio.sleep(0.3)
        p.tokenizer.started.clear()
    assert failed == []
    async with probes(there.settings) as p:
        await refused(p, outdated.settings)


async def test_open_calls_end_where_they_began(here: Secret, there: Secret) -> None:
    async with probes(there.settings) as p, client(p, here.settings) as tokenizer:
        p.tokenizer.released.clear()
        slow = asyncio.create_task(tokenizer.render(REQUEST))
        await p.tokenizer.started.wait()
        here.renew()
        quick = asyncio.create_task(tokenizer.render(REQUEST))
        await asyncio.sleep(0.2)
        p.tokenizer.released.set()
        await asyncio.wait_for(asyncio.gather(slow, quick), 30)


async def test_files_that_do_not_fit_together_are_left_alone(
    here: Secret, there: Secret, caplog: pytest.LogCaptureFixture
) -> None:
    async with probes(there.settings) as p, client(p, here.settings) as tokenizer:
        key = (here.folder / "tls.key").resolve()
        whole = key.read_bytes()
        for broken in (whole[:40], b"", (there.folder / "tls.key").read_bytes()):
            key.write_bytes(broken)
            await tokenizer.render(REQUEST)
        key.unlink()
        await tokenizer.render(REQUEST)
        assert "renewed certificates cannot be used" in caplog.text
        here.renew()
        await tokenizer.render(REQUEST)


def test_a_folder_that_cannot_be_used_says_so(tmp_path: Path, here: Secret) -> None:
    with pytest.raises(SettingsError, match="MODELPLANE_RPC_TLS_FOLDER"):
        Certificates(tmp_path / "none")
    (here.folder / "ca.crt").unlink()
    with pytest.raises(SettingsError, match=r"ca\.crt"):
        Certificates(here.folder)


def test_files_are_looked_at_once_a_second(here: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    now_s = 0.0
    found = Certificates(here.folder, lambda: now_s)
    first = found.current()
    here.renew()
    now_s = 0.9
    assert found.current() is first
    now_s = 1.0
    assert found.current() is not first
