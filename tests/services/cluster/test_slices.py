"""The pods behind a Service are followed through everything that the Kubernetes API does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.cluster.settings import ClusterSettings
from services.cluster.slices import Address, follow
from tests.cluster.network import free_port
from tests.services.cluster.api import Slices, endpoint, kubeconfig, serving

READY: dict[str, Any] = {"ready": True, "serving": True, "terminating": False}
Found = frozenset[Address]


class Follower:
    """What was given last, and all that was given before."""

    def __init__(self) -> None:
        self.given: list[Found] = []

    async def keep(self, states: AsyncIterator[Found]) -> None:
        async for state in states:
            self.given.append(state)

    async def until(self, ips: set[str], timeout_s: float = 30.0) -> Found:
        async with asyncio.timeout(timeout_s):
            while not self.given or {one.ip for one in self.given[-1]} != ips:
                await asyncio.sleep(0.005)
        return self.given[-1]


@asynccontextmanager
async def followed(settings: ClusterSettings, port: str = "http") -> AsyncIterator[Follower]:
    follower = Follower()
    async with aclosing(follow("place", "gateway", port, settings)) as states:  # type: ignore[type-var]
        task = asyncio.create_task(follower.keep(states))
        try:
            yield follower
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def failures(reason: str) -> float:
    labels = {"service": "place/gateway", "reason": reason}
    return REGISTRY.get_sample_value("modelplane_cluster_watch_failures_total", labels) or 0.0


async def test_what_happens_is_given_with_what_each_pod_can_do(tmp_path: Path) -> None:
    slices = Slices()
    await slices.put("s-1", endpoint("10.0.0.1", "a", "z1", **READY), endpoint("10.0.0.2", "b"))
    async with serving(slices) as port, followed(kubeconfig(tmp_path, port)) as follower:
        assert await follower.until({"10.0.0.1", "10.0.0.2"}) == {
            Address("10.0.0.1", 8080, "z1", ready=True, serving=True, terminating=False),
            Address("10.0.0.2", 8080, "", ready=True, serving=True, terminating=False),
        }
        ending = endpoint("10.0.0.1", "a", "z1", ready=False, serving=True, terminating=True)
        await slices.put("s-1", ending, endpoint("10.0.0.3", "c", ready=False, serving=None))
        assert await follower.until({"10.0.0.1", "10.0.0.3"}) == {
            Address("10.0.0.1", 8080, "z1", ready=False, serving=True, terminating=True),
            Address("10.0.0.3", 8080, "", ready=False, serving=False, terminating=False),
        }
        await slices.put("s-2", endpoint("10.0.0.4", "d", **READY))
        await follower.until({"10.0.0.1", "10.0.0.3", "10.0.0.4"})
        await slices.delete("s-1")
        await follower.until({"10.0.0.4"})
    assert slices.lists == [{"labelSelector": "kubernetes.io/service-name=gateway"}]
    assert slices.watches[0]["allowWatchBookmarks"] == "true"
    assert set(slices.tokens) == {"Bearer secret"}


async def test_a_pod_that_moves_between_slices_is_one_and_as_it_was_said_last(tmp_path: Path) -> None:
    slices = Slices()
    await slices.put("s-1", endpoint("10.0.0.1", "a", ready=False))
    await slices.put("s-2", endpoint("10.0.0.2", "b", **READY))
    async with serving(slices) as port, followed(kubeconfig(tmp_path, port)) as follower:
        await follower.until({"10.0.0.1", "10.0.0.2"})
        await slices.put("s-2", endpoint("10.0.0.2", "b", **READY), endpoint("10.0.0.1", "a", **READY))
        async with asyncio.timeout(30):
            while not all(one.ready for one in follower.given[-1]):
                await asyncio.sleep(0.005)
        assert len(follower.given[-1]) == 2


async def test_a_pod_with_addresses_of_both_families_is_one(tmp_path: Path) -> None:
    slices = Slices()
    await slices.put("four", endpoint("10.0.0.1", "a", **READY))
    await slices.put("six", endpoint("fd00::1", "a", **READY), endpoint("fd00::2", "b", **READY), family="IPv6")
    await slices.put("names", endpoint("a.example.com"), family="FQDN")
    async with serving(slices) as port, followed(kubeconfig(tmp_path, port)) as follower:
        await follower.until({"10.0.0.1", "fd00::2"})


async def test_the_port_is_that_of_the_name(tmp_path: Path) -> None:
    slices = Slices()
    await slices.put("s-1", endpoint("10.0.0.1", "a"), ports={"http": 8080, "grpc": 9000})
    await slices.put("s-2", endpoint("10.0.0.2", "b"), ports={"http": 8081, "grpc": 9001})
    await slices.put("s-3", endpoint("10.0.0.3", "c"), ports={"http": 8080})
    async with serving(slices) as port, followed(kubeconfig(tmp_path, port), "grpc") as follower:
        found = await follower.until({"10.0.0.1", "10.0.0.2"})
    assert {one.ip: one.port for one in found} == {"10.0.0.1": 9000, "10.0.0.2": 9001}


async def test_a_service_without_pods_has_none(tmp_path: Path) -> None:
    slices = Slices()
    async with serving(slices) as port, followed(kubeconfig(tmp_path, port)) as follower:
        await follower.until(set())
        await slices.put("s-1", endpoint("10.0.0.1"))
        await follower.until({"10.0.0.1"})


async def test_an_api_server_that_is_away_takes_nobody_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    slices, address = Slices(), free_port()
    await slices.put("s-1", endpoint("10.0.0.1"))
    async with followed(kubeconfig(tmp_path, address)) as follower:
        # It is not there yet.
        await asyncio.sleep(0.3)
        assert follower.given == []
        async with serving(slices, address):
            await follower.until({"10.0.0.1"})
        before = failures("away")
        await asyncio.sleep(0.5)
        assert failures("away") > before
        await slices.put("s-1", endpoint("10.0.0.2"))
        assert len(follower.given) == 1
        async with serving(slices, address):
            await follower.until({"10.0.0.2"})
    # It was asked for what had happened since then, not for everything.
    assert len(slices.lists) == 1
    assert [record.message for record in caplog.records].count("the pods of a Service cannot be followed now") == 2


async def test_a_watch_that_is_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    slices = Slices()
    await slices.put("s-1", endpoint("10.0.0.1"))
    async with serving(slices) as port, followed(kubeconfig(tmp_path, port)) as follower:
        await follower.until({"10.0.0.1"})
        await slices.put("s-1", endpoint("10.0.0.2"))
        await follower.until({"10.0.0.2"})
        await slices.bookmark()
        known = slices.version
        async with asyncio.timeout(30):
            while int(slices.watches[-1]["resourceVersion"]) != known:
                await slices.cut()
                await asyncio.sleep(0.2)
        await slices.put("s-1", endpoint("10.0.0.3"))
        await follower.until({"10.0.0.3"})
    assert len(slices.lists) == 1


@pytest.mark.parametrize("refusal", [410, 403, 500])
async def test_after_a_refusal_everything_is_asked_for_anew(tmp_path: Path, refusal: int) -> None:
    slices = Slices()
    await slices.put("s-1", endpoint("10.0.0.1"))
    async with serving(slices) as port, followed(kubeconfig(tmp_path, port)) as follower:
        await follower.until({"10.0.0.1"})
        slices.refusals = [refusal, refusal]
        await slices.put("s-2", endpoint("10.0.0.2"))
        await slices.cut()
        await follower.until({"10.0.0.1", "10.0.0.2"})
        await asyncio.sleep(0.3)
    assert len(slices.lists) >= 2


async def test_what_was_deleted_while_nobody_remembers_is_not_kept(tmp_path: Path) -> None:
    slices, before = Slices(), failures("behind")
    await slices.put("s-1", endpoint("10.0.0.1"))
    await slices.put("s-2", endpoint("10.0.0.2"))
    async with serving(slices) as port, followed(kubeconfig(tmp_path, port)) as follower:
        await follower.until({"10.0.0.1", "10.0.0.2"})
        slices.impatient = True
        await slices.cut()
        await slices.delete("s-1")
        await slices.forget()
        slices.impatient = False
        await follower.until({"10.0.0.2"})
    assert len(slices.lists) == 2
    assert failures("behind") == before + 1


async def test_an_api_server_that_ends_every_watch_is_not_overrun(tmp_path: Path) -> None:
    slices = Slices()
    slices.impatient = True
    async with serving(slices) as port, followed(kubeconfig(tmp_path, port)) as follower:
        await follower.until(set())
        await asyncio.sleep(1)
    assert 1 < len(slices.watches) < 8


async def test_many_changes_are_given_as_few_and_a_slow_reader_gets_the_newest(tmp_path: Path) -> None:
    slices = Slices()
    async with serving(slices) as port:
        states = follow("place", "gateway", "http", kubeconfig(tmp_path, port))
        assert await anext(states) == frozenset()
        for n in range(300):
            await slices.put(f"s-{n % 10}", endpoint(f"10.0.{n // 256}.{n % 256}"))
        last = {f"10.0.{n // 256}.{n % 256}" for n in range(290, 300)}
        taken = 0
        async with asyncio.timeout(30):
            while {one.ip for one in await anext(states)} != last:
                taken += 1
        assert taken < 10
        await states.aclose()  # type: ignore[attr-defined]


async def test_nothing_runs_on_when_nobody_follows(tmp_path: Path) -> None:
    slices = Slices()
    async with serving(slices) as port, followed(kubeconfig(tmp_path, port)) as follower:
        await follower.until(set())
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("pods of")] == []
