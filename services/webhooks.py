"""Signs webhooks as the Standard Webhooks specification has it, so that receivers can use its libraries.

Pure. A secret is `whsec_` and base64; what is signed is the id, the time and the body, so that none of them can be
changed and an old message cannot be passed off as a new one.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

PREFIX: Final = "whsec_"


class SecretError(ValueError):
    """A text that is no secret; the message does not quote it."""


def secrets_of(text: str) -> Sequence[bytes]:
    """The secrets that a setting names, by commas. Raises SecretError."""
    try:
        return [
            base64.b64decode(secret.strip().removeprefix(PREFIX), validate=True)
            for secret in text.split(",")
            if secret.strip()
        ]
    except ValueError as error:
        raise SecretError(f"a secret is {PREFIX} and base64") from error


def signature(secret: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """As it stands in `webhook-signature`."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp_s, body)
    return f"v1,{base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}"


def headers(secrets: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes) -> Mapping[str, str]:
    """The headers of a message; one signature for each secret, none without."""
    found = {"webhook-id": message_id, "webhook-timestamp": str(timestamp_s)}
    if secrets:
        found["webhook-signature"] = " ".join(signature(secret, message_id, timestamp_s, body) for secret in secrets)
    return found
