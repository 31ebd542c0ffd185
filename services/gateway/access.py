"""Who may do what at the edge: a principal for every guarded call, before anything of its body is read.

Every route names the scope that its callers need (`application.Route`), so that no endpoint can forget to ask.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from modelplane.auth.v1.auth_api import AuthService
from modelplane.auth.v1.auth_pb2 import AuthenticateRequest, ModelPolicy, Principal
from services import telemetry
from services.faults import NotFound
from services.gateway.calls import Call
from services.networks import check_address, network, within
from services.scopes import check
from services.settings import SettingsError

FORWARDED = b"x-forwarded-for"
MOST_NETWORKS: Final = 10_000


class Access:
    """Turns calls into principals. `trusted_proxies` are CIDR blocks whose X-Forwarded-For is believed; `aliases` say
    which model each is another name of.

    Raises SettingsError for what is no CIDR block.
    """

    def __init__(
        self, auth: AuthService, trusted_proxies: Sequence[str] = (), aliases: Mapping[str, str] | None = None
    ) -> None:
        self._auth = auth
        self._aliases = aliases or {}
        # To read a block takes 3 us, and a project may have a hundred.
        self._network = lru_cache(MOST_NETWORKS)(network)
        try:
            self._trusted = tuple(network(block) for block in trusted_proxies)
        except ValueError as error:
            raise SettingsError(f"MODELPLANE_GATEWAY_TRUSTED_PROXIES: {error}") from error

    async def principal(self, call: Call, scope: str) -> Principal:
        """Raises Unauthenticated (the key, the headers, or where the call comes from) or PermissionDenied."""
        key, organization, project = call.credentials()
        address = self.address(call)
        request = AuthenticateRequest(key=key, organization=organization, project=project, address=address)
        with telemetry.span("authenticate"):
            principal = (await self._auth.authenticate(request)).principal
        if principal.ip_ranges:
            check_address(address, [self._network(block) for block in principal.ip_ranges])
        check(principal, scope)
        return self._by_name(principal)

    def _by_name(self, principal: Principal) -> Principal:
        """The same, with no alias in its policy: who may not use a model may not use it by another name either."""
        policy = principal.models
        if not policy.mode or self._aliases.keys().isdisjoint(policy.models):
            return principal
        # A copy, because the answer of `auth` is everybody's.
        named = Principal()
        named.CopyFrom(principal)
        named.models.models[:] = [self._aliases.get(name, name) for name in policy.models]
        return named

    def address(self, call: Call) -> str:
        """Where the call comes from: the last address that no trusted proxy has added; "" when that is unknown."""
        address = call.peer
        if self._trusted and within(address, self._trusted):
            for hop in reversed(call.header(FORWARDED).split(",")):
                address = hop.strip() or address
                if not within(address, self._trusted):
                    break
        return address


def may_use(policy: ModelPolicy, name: str) -> bool:
    """Whether a project may use the model of this name, which is no alias."""
    if policy.mode == ModelPolicy.MODE_UNSPECIFIED:
        return True
    return (policy.mode == ModelPolicy.MODE_ALLOW_LIST) == (name in policy.models)


def check_model(principal: Principal, asked: str, resolved: str) -> None:
    """Raises NotFound, the same as for a model that does not exist, when the project may not use the model that
    `asked`, its name or an alias, was resolved to."""
    if principal.models.mode and not may_use(principal.models, resolved):
        raise no_model(asked)


def no_model(name: str) -> NotFound:
    return NotFound(
        "model_not_found", f"The model `{name}` does not exist or you do not have access to it.", param="model"
    )
