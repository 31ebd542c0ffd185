"""Who may do what at the edge: a principal for every guarded call, before anything of its body is read.

Every route names the scope that its callers need (`application.Route`), so that no endpoint can forget to ask.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from modelplane.auth.v1.auth_api import AuthService
from modelplane.auth.v1.auth_pb2 import AuthenticateRequest, ModelPolicy, Principal
from services import telemetry
from services.faults import NotFound, PermissionDenied, Unauthenticated
from services.gateway.calls import Call
from services.scopes import SCOPES, allows, fits
from services.settings import SettingsError

FORWARDED = b"x-forwarded-for"
MOST_NETWORKS: Final = 10_000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
            self._check_address(address, principal)
        if not fits(scope, principal.kind):
            raise PermissionDenied("insufficient_permissions", _WRONG_KIND[SCOPES[scope].administrative])
        if not allows(principal, scope):
            raise PermissionDenied(
                "missing_scope",
                f"You have insufficient permissions for this operation. Missing scopes: {scope}. Check that you have "
                "the correct role in your organization and project, and if you're using a restricted API key, that it "
                "has the necessary scopes.",
            )
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
        if self._trusted and _within(address, self._trusted):
            for hop in reversed(call.header(FORWARDED).split(",")):
                address = hop.strip() or address
                if not _within(address, self._trusted):
                    break
        return address

    def _check_address(self, address: str, principal: Principal) -> None:
        if not _within(address, [self._network(block) for block in principal.ip_ranges]):
            raise Unauthenticated(
                "ip_not_authorized",
                f"Your IP address ({address or 'unknown'}) is not among those that this project allows.",
            )


_WRONG_KIND: Final[Mapping[bool, str]] = {
    False: "This key may not use models. Use a project's key (sk-proj-... or sk-svcacct-...).",
    True: "This key may not administer the organization. Use an admin key (sk-admin-...).",
}


def network(block: str) -> Network:
    """Raises ValueError for what is no CIDR block and no address."""
    return ipaddress.ip_network(block)


def _within(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed in block for block in networks)


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
