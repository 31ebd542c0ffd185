"""Signatures of webhooks, held against the example of the Standard Webhooks specification's libraries."""

import pytest

from services.webhooks import SecretError, headers, secrets_of, signature

# The test vector of the specification's reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_known_example() -> None:
    [secret] = secrets_of(SECRET)
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY) == SIGNATURE


def test_each_secret_signs() -> None:
    found = headers(secrets_of(f"{SECRET},{SECRET}"), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY)
    assert found["webhook-signature"] == f"{SIGNATURE} {SIGNATURE}"
    assert "webhook-signature" not in headers(secrets_of(" "), "a", 1, b"")


@pytest.mark.parametrize("text", ["whsec_!", "whsec_a", "whsec_ä"])
def test_no_secret(text: str) -> None:
    with pytest.raises(SecretError):
        secrets_of(text)
