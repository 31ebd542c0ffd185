"""What a change may say. Pure: each function returns what is to be kept, or raises InvalidRequest."""

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from modelplane.limits.v1 import limits_pb2 as limits
from modelplane.tenants.v1.tenants_pb2 import SpendAlert
from services.asked import MOST_CENTS, is_address, line, number
from services.faults import InvalidRequest

MOST_MODELS = 1000
MOST_BLOCKS = 100
# Of ::ffff:0:0/96, where IPv6 has the addresses of IPv4.
MAPPED_BITS = 96
MOST_RECIPIENTS = 50
MOST_URL = 2048
MOST_WEIGHT = 1000


def name(text: str, param: str = "name") -> str:
    """1 to 256 characters, not all of them white space."""
    if not text.strip():
        raise InvalidRequest("empty_string", f"Invalid '{param}': it must not be empty.", param=param)
    return line(text, param)


def blocks(given: Sequence[str]) -> list[str]:
    """CIDR blocks, each once, as networks are written: `10.1.2.3/8` is `10.0.0.0/8`, an address a block of one, and
    an IPv4 address within IPv6 is what it stands for, as where it is compared."""
    _few(given, MOST_BLOCKS, "ip_ranges")
    found: dict[str, None] = {}
    for block in given:
        try:
            # A zone, as in `fe80::1%eth0`, is the name of a network card.
            network = None if "%" in block else ipaddress.ip_network(block, strict=False)
        except ValueError:
            network = None
        if network is None:
            raise InvalidRequest(
                "invalid_value", f"Invalid 'ip_ranges': '{block}' is not an address or a CIDR block.", param="ip_ranges"
            )
        if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= MAPPED_BITS:
            mapped = network.network_address.ipv4_mapped
            network = network if mapped is None else ipaddress.ip_network((mapped, network.prefixlen - MAPPED_BITS))
        found[str(network)] = None
    return list(found)


def models(given: Sequence[str]) -> list[str]:
    """Names of models, each once; whether there are such models is not looked at."""
    _few(given, MOST_MODELS, "model_ids")
    return list(dict.fromkeys(name(model, "model_ids") for model in given))


def overrides(given: Sequence[limits.Override], scope: limits.Scope) -> list[limits.Override]:
    """Limits of this scope, each of another model or dimension."""
    _few(given, MOST_MODELS, "overrides")
    seen: set[tuple[str, int]] = set()
    for override in given:
        name(override.model, "model")
        number(override.limit, 0, 2**63 - 1, "limit")
        if override.scope != scope:
            raise InvalidRequest(
                "invalid_value", "A limit has another scope than the one whose limits are set.", param="scope"
            )
        if not override.dimension or override.dimension not in limits.Dimension.values():
            raise InvalidRequest("invalid_value", f"There is no dimension {override.dimension}.", param="dimension")
        if (override.model, override.dimension) in seen:
            raise InvalidRequest("invalid_value", f"A limit of '{override.model}' is given twice.", param="overrides")
        seen.add((override.model, override.dimension))
    return list(given)


def alert(given: SpendAlert) -> None:
    """An alert that reaches somebody."""
    number(given.threshold_cents, 0, MOST_CENTS, "threshold_amount")
    line(given.subject_prefix, "subject_prefix")
    _few(given.email_recipients, MOST_RECIPIENTS, "recipients")
    for address in given.email_recipients:
        if not is_address(address):
            raise InvalidRequest("invalid_value", f"'{address}' is not an e-mail address.", param="recipients")
    if given.webhook_url and not _is_web_address(given.webhook_url):
        raise InvalidRequest(
            "invalid_value", "Invalid 'webhook_url': it is not the URL of a web server.", param="webhook_url"
        )
    if not given.email_recipients and not given.webhook_url:
        raise InvalidRequest("empty_array", "An alert needs somebody to tell.", param="recipients")


def _is_web_address(url: str) -> bool:
    if len(url) > MOST_URL or not re.fullmatch(r"[\x21-\x7e]+", url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not match
        return False


def _few(given: Sequence[object], most: int, param: str) -> None:
    if len(given) > most:
        raise InvalidRequest(
            "array_above_max_length",
            f"Invalid '{param}': it has {len(given)} elements; at most {most} are possible.",
            param=param,
        )
