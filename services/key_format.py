"""What a key looks like, how it is shown and how it is hashed. Pure: randomness is an argument.

A key is `sk-proj-`, `sk-svcacct-` or `sk-admin-` and 40 URL-safe characters: 26 random bytes and the CRC-32 of prefix
and bytes. The checksum lets a mistyped key be refused without a look-up; it is no secret and proves nothing.
"""

import re
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import blake2b
from typing import ClassVar

from modelplane.auth.v1 import auth_pb2
from services.settings import Group

PREFIXES: Mapping[auth_pb2.KeyKind, str] = {
    auth_pb2.KEY_KIND_PROJECT: "sk-proj-",
    auth_pb2.KEY_KIND_SERVICE_ACCOUNT: "sk-svcacct-",
    auth_pb2.KEY_KIND_ADMIN: "sk-admin-",
}
RANDOM_BYTES = 26
BODY_LENGTH = 40
SHOWN = 4
MASK = "****"
BODY = re.compile(f"[A-Za-z0-9_-]{{{BODY_LENGTH}}}")


class KeySettings(Group, frozen=True, kw_only=True):
    """How keys are kept; the same in every process that makes or checks them."""

    group: ClassVar[str] = "auth"

    pepper: str = ""
    """Secret that is mixed into the hash of every key, the same in every process. With it, a stolen database
    cannot even confirm a key. Changing it invalidates all keys. Empty is safe: keys are 208 random bits."""

    @property
    def hash_key(self) -> bytes:
        """The pepper, of any length as configured, as the 64 bytes that the keyed hash takes."""
        return blake2b(self.pepper.encode()).digest()


def generate(kind: auth_pb2.KeyKind, random: bytes) -> str:
    """The key of RANDOM_BYTES random bytes."""
    assert len(random) == RANDOM_BYTES
    prefix = PREFIXES[kind]
    return prefix + urlsafe_b64encode(random + checksum(prefix, random)).decode()


def parse(key: str) -> auth_pb2.KeyKind | None:
    """The kind of a well-formed key, else None; whether the key exists is for the database to say."""
    for kind, prefix in PREFIXES.items():
        body = key.removeprefix(prefix)
        if body != key and BODY.fullmatch(body):
            content = urlsafe_b64decode(body)
            random, check = content[:RANDOM_BYTES], content[RANDOM_BYTES:]
            return kind if check == checksum(prefix, random) else None
    return None


def checksum(prefix: str, random: bytes) -> bytes:
    return zlib.crc32(prefix.encode() + random).to_bytes(4, "big")


def redact(key: str) -> str:
    """What may be shown of a key, or of anything sent as one, for example `sk-proj-****abcd`.

    The end is shown only of what is long enough for the rest to stay a secret.
    """
    prefix = next((prefix for prefix in (*PREFIXES.values(), "sk-") if key.startswith(prefix)), "")
    end = key[-SHOWN:] if len(key) - len(prefix) >= BODY_LENGTH // 2 else ""
    return prefix + MASK + (end if re.fullmatch(r"[\x21-\x7e]*", end) else "")


def digest(key: str, pepper: bytes) -> bytes:
    """What is stored and looked up instead of the key: keyed BLAKE2b, 32 bytes. `pepper` has at most 64 bytes."""
    return blake2b(key.encode(), digest_size=32, key=pepper).digest()
