"""`modelplane up`: the whole platform on one machine, from nothing to a key and a curl line that work.

It keeps secrets and state in the home, prepares the default model's weights once, starts every service in this
process with the model replicas under Ray, and shows what it is doing until the first request can be answered.
"""

import asyncio
import contextlib
import sys

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
from services.graph import ALL_IN_ONE
from services.home import Credentials, Home
from services.progress import Progress
from services.settings import Environment, PlatformSettings, SettingsError

POLL_S = 0.2


async def up(environment: Environment) -> None:
    """Serves until SIGINT or SIGTERM. Raises SettingsError or OSError when the platform cannot start."""
    settings = environment.group(PlatformSettings)
    home = Home(settings.home)
    home.create()
    environment = Environment({**home.variables(), **environment.variables}).with_variables(
        {"MODELPLANE_HOME": str(home.path)}
    )
    print("Starting Modelplane. Logs are in", home.path / "logs", file=sys.stderr, flush=True)
    with telemetry.configured(environment, ALL_IN_ONE, home=home.path, to_file=True):
        async with Progress() as progress:
            await _prepare(Catalog.load(settings), settings, progress)

            async def started(platform: Platform) -> None:
                await _announce(platform, home, progress)

            try:
                await compose.run(ALL_IN_ONE, environment, started, progress.step)
            finally:
                home.remove_rpc_address()
    print("Modelplane has stopped.", file=sys.stderr)


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


async def _announce(platform: Platform, home: Home, progress: Progress) -> None:
    """Waits until the models answer, and tells the user how to call them."""
    settings = platform.settings
    credentials = await _credentials(platform, home, f"http://{settings.host}:{settings.port}/v1")
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
