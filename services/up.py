"""`modelplane up`: the whole platform on one machine, from nothing to a key and a curl line that work.

It keeps secrets and state in the home, prepares the default model's weights once, starts every service in this
process with the model replicas under Ray, and shows what it is doing until the first request can be answered.
"""

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.auth.v1 import auth_pb2
from modelplane.keys.v1 import keys_pb2
from modelplane.keys.v1.keys_api import KeysService
from modelplane.pools.v1 import pools_pb2
from modelplane.pools.v1.pools_api import PoolsService
from modelplane.tenants.v1 import tenants_pb2
from modelplane.tenants.v1.tenants_api import TenantsService
from services import compose, telemetry
from services.catalog import DEFAULT_MODEL, Catalog, checkpoint_directory
from services.compose import Platform
from services.faults import Fault, Unavailable
from services.graph import ALL_IN_ONE, EDGE
from services.home import Credentials, Home
from services.progress import Progress
from services.rpc.settings import RpcSettings
from services.settings import Environment, PlatformSettings, SettingsError
from services.xds.settings import XdsSettings

POLL_S = 0.2


async def up(environment: Environment, *, edge: bool = False) -> None:
    """Serves until SIGINT or SIGTERM, with `edge` behind an Envoy. Raises SettingsError or OSError when the platform
    cannot start."""
    settings = environment.group(PlatformSettings)
    home = Home(settings.home)
    home.create()
    environment = Environment({**home.variables(), **environment.variables}).with_variables(
        {"MODELPLANE_HOME": str(home.path)}
    )
    targets = ALL_IN_ONE
    url = f"http://{settings.host}:{settings.port}"
    if edge:
        targets = (*ALL_IN_ONE, EDGE)
        environment, url = _behind(environment, home)
    print("Starting Modelplane. Logs are in", home.path / "logs", file=sys.stderr, flush=True)
    async with contextlib.AsyncExitStack() as outer:
        outer.enter_context(telemetry.configured(environment, targets, home=home.path, to_file=True))
        progress = await outer.enter_async_context(Progress())
        await _prepare(Catalog.load(settings), settings, progress)

        async def started(platform: Platform) -> None:
            if edge:
                # It ends after the platform: what is in flight goes through it.
                await outer.enter_async_context(_envoy(platform, home))
            await _announce(platform, home, url, progress)

        try:
            await compose.run(targets, environment, started, progress.step)
        finally:
            home.remove_rpc_address()
    print("Modelplane has stopped.", file=sys.stderr)


def _behind(environment: Environment, home: Home) -> tuple[Environment, str]:
    """Has Envoy listen where the gateway would, and the gateway where nobody else gets to; gives the URL of Envoy."""
    settings, edge = environment.group(PlatformSettings), environment.group(XdsSettings)
    # Envoys share a port with one another without a word.
    listen, _ = _free_port(settings.host, settings.port)
    tls = edge.certificate_folder is not None
    variables = {
        "MODELPLANE_HOST": "127.0.0.1",
        "MODELPLANE_PORT": str(_free_port("127.0.0.1", 0)[1]),
        "MODELPLANE_GATEWAY_TRUSTED_PROXIES": "127.0.0.1",
        "MODELPLANE_XDS_HOST": listen,
        "MODELPLANE_XDS_HTTP_PORT": "0" if tls else str(settings.port),
        "MODELPLANE_XDS_HTTPS_PORT": str(settings.port) if tls else "0",
        "MODELPLANE_XDS_ACCESS_LOG": "false",
    }
    if folder := environment.group(RpcSettings).tls_folder:
        from services.xds import process

        certificate, authority = process.write_inside(_folder(home), folder)
        variables |= {"MODELPLANE_XDS_INSIDE_CERTIFICATE": certificate, "MODELPLANE_XDS_INSIDE_AUTHORITY": authority}
    return environment.with_variables(variables), f"http{'s' if tls else ''}://{settings.host}:{settings.port}"


def _envoy(platform: Platform, home: Home) -> contextlib.AbstractAsyncContextManager[object]:
    # Every command of the program passes by this module, and few have an Envoy.
    from services.xds import process
    from services.xds.bootstrap import ControlPlane

    edge = platform.environment.group(XdsSettings)
    control = ControlPlane(
        platform.server.address, platform.rpc_settings.token, edge.inside_certificate, edge.inside_authority
    )
    return process.running(_folder(home), control, home.path / "logs" / "envoy.log")


def _folder(home: Home) -> Path:
    return home.path / "envoy"


def _free_port(host: str, port: int) -> tuple[str, int]:
    """The address, and the port or for 0 one that is free. Raises SettingsError for one that is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}; set MODELPLANE_PORT") from error
        address: tuple[str, int] = probe.getsockname()[:2]
        return address


async def _prepare(catalog: Catalog, settings: PlatformSettings, progress: Progress) -> None:
    """Converts the default model's weights when they are wanted, in a process of its own: it needs gigabytes."""
    cache = settings.cache_directory()
    wanted = checkpoint_directory(DEFAULT_MODEL, cache)
    if not any(m.engine == "vllm" and checkpoint_directory(m, cache) == wanted for m in catalog):
        return
    progress.step("preparing the model's weights")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.chat_inference.engines.checkpoints",
        "--cache",
        str(cache),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        errors = asyncio.create_task(process.stderr.read()) if process.stderr else None
        while process.stdout and (line := await process.stdout.readline()):
            progress.step(line.decode().strip())
        complaint = (await errors).decode() if errors else ""
        if await process.wait() != 0:
            raise SettingsError(f"the default model could not be prepared:\n{complaint[-2000:]}")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _announce(platform: Platform, home: Home, url: str, progress: Progress) -> None:
    """Waits until the models answer, and tells the user how to call them."""
    credentials = await _credentials(platform, home, f"{url}/v1")
    home.write_rpc_address(platform.server.address)
    await _ready(platform, progress)
    progress.end()
    print(_banner(credentials, next(iter(platform.catalog), DEFAULT_MODEL).name), flush=True)


async def _credentials(platform: Platform, home: Home, base_url: str) -> Credentials:
    """The first run's credentials; new keys when the file was lost or belongs to another database."""
    kept = home.credentials()
    made = await platform.local(TenantsService).bootstrap(tenants_pb2.BootstrapRequest())
    if kept is None or kept.organization != made.organization_id:
        keys = platform.local(KeysService)
        kept = Credentials(
            base_url=base_url,
            api_key=await _new_key(keys, auth_pb2.KEY_KIND_PROJECT, made, "Default key"),
            admin_key=await _new_key(keys, auth_pb2.KEY_KIND_ADMIN, made, "Default admin key"),
            organization=made.organization_id,
            project=made.project_id,
        )
    kept.base_url = base_url
    home.write_credentials(kept)
    return kept


async def _new_key(keys: KeysService, kind: auth_pb2.KeyKind, owner: tenants_pb2.BootstrapResponse, name: str) -> str:
    """Its secret."""
    request = keys_pb2.CreateKeyRequest(
        organization_id=owner.organization_id,
        project_id="" if kind == auth_pb2.KEY_KIND_ADMIN else owner.project_id,
        kind=kind,
        name=name,
        actor=Actor(user_agent="modelplane up"),
    )
    return (await keys.create_key(request)).secret


async def _ready(platform: Platform, progress: Progress) -> None:
    """Returns when every ping succeeds; until then shows what the replicas are doing."""
    pools = platform.local(PoolsService)
    while True:
        listed = await pools.list_replicas(pools_pb2.ListReplicasRequest())
        starting = [r for r in listed.replicas if r.state == pools_pb2.REPLICA_STATE_STARTING]
        for replica in starting[:1]:
            progress.step(f"{replica.model}: {replica.phase or 'starting a replica'}")
        try:
            for ping in platform.pings.values():
                await ping()
            return
        except Unavailable:
            await asyncio.sleep(POLL_S)
        except Fault as fault:
            raise SettingsError(fault.message) from fault


def _banner(credentials: Credentials, model: str) -> str:
    url, key = credentials.base_url, credentials.api_key
    return f"""
Modelplane is ready.

  base URL  {url}
  API key   {key}

  curl {url}/chat/completions \\
    -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'

Press Ctrl-C to stop."""
