"""Who asks the Kubernetes API, and whom it believes to be it."""

import asyncio
import ssl
from base64 import b64encode
from contextlib import aclosing
from pathlib import Path

import pytest

from services.cluster.access import access
from services.cluster.settings import ClusterSettings
from services.cluster.slices import follow
from services.settings import SettingsError
from tests.cluster.certificates import Authority
from tests.services.cluster.api import Object, Slices, endpoint, kubeconfig, serving


def served_by(authority: Authority) -> ssl.SSLContext:
    """A server's TLS that asks for certificates of the authority, and takes who has none."""
    pair = authority.issue("server", "server", names=("127.0.0.1",))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.pair.certificate))
    tls.load_cert_chain(pair.certificate, pair.key)
    tls.verify_mode = ssl.CERT_OPTIONAL
    return tls


async def first(settings: ClusterSettings) -> set[str]:
    async with aclosing(follow("place", "gateway", "http", settings)) as states:  # type: ignore[type-var]
        async with asyncio.timeout(30):
            return {one.ip for one in await anext(states)}


async def test_a_pod_asks_with_the_token_that_the_kubelet_wrote_last(tmp_path: Path) -> None:
    authority, slices = Authority(tmp_path / "pki", "cluster"), Slices()
    (tmp_path / "ca.crt").write_bytes(authority.pair.certificate.read_bytes())
    (tmp_path / "token").write_text("old\n")
    await slices.put("s-1", endpoint("10.0.0.1"))
    async with serving(slices, tls=served_by(authority)) as port:
        settings = ClusterSettings(server=f"https://127.0.0.1:{port}", account=tmp_path)
        reach = access(settings)
        assert reach.headers() == {"authorization": "Bearer old"}
        (tmp_path / "token").write_text("new\n")
        assert reach.headers() == {"authorization": "Bearer new"}
        assert await first(settings) == {"10.0.0.1"}
    assert set(slices.tokens) == {"Bearer new"}


async def test_an_api_server_of_another_authority_is_told_nothing(tmp_path: Path) -> None:
    slices = Slices()
    (tmp_path / "ca.crt").write_bytes(Authority(tmp_path / "ours", "cluster").pair.certificate.read_bytes())
    (tmp_path / "token").write_text("secret")
    async with serving(slices, tls=served_by(Authority(tmp_path / "theirs", "cluster"))) as port:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await first(ClusterSettings(server=f"https://127.0.0.1:{port}", account=tmp_path))
    assert slices.tokens == []


@pytest.mark.parametrize("inline", [True, False])
async def test_a_user_with_a_certificate(tmp_path: Path, inline: bool) -> None:
    authority, slices = Authority(tmp_path / "pki", "cluster"), Slices()
    pair = authority.issue("me", "me")
    files = {
        "certificate-authority": authority.pair.certificate,
        "client-certificate": pair.certificate,
        "client-key": pair.key,
    }
    given = {
        f"{key}-data" if inline else key: b64encode(path.read_bytes()).decode() if inline else str(path)
        for key, path in files.items()
    }
    tls = served_by(authority)
    tls.verify_mode = ssl.CERT_REQUIRED
    async with serving(slices, tls=tls) as port:
        cluster: Object = {"server": f"https://127.0.0.1:{port}"} | given
        assert await first(kubeconfig(tmp_path, port, given, cluster)) == set()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (lambda path: kubeconfig(path, 1, {"exec": {"command": "login"}}), "comes from a program"),
        (lambda path: kubeconfig(path, 1, cluster={"name": "no server"}), "is no kubeconfig"),
        (lambda path: ClusterSettings(kubeconfig=path / "none"), "No such file"),
        (lambda path: ClusterSettings(account=path), "No such file"),
    ],
)
async def test_what_cannot_be_used_is_said_at_once(tmp_path: Path, settings: object, complaint: str) -> None:
    assert callable(settings)
    with pytest.raises(SettingsError, match=complaint):
        await first(settings(tmp_path))
