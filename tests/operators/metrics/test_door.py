"""When a certificate ends is read as a library reads it."""

from pathlib import Path

from cryptography import x509

from operators.metrics.door import ends_at_s
from tests.cluster.certificates import Authority


def test_the_end_of_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "an authority")
    for pair in (authority.pair, authority.issue("leaf", "leaf", names=("a.example",))):
        pem = pair.certificate.read_bytes()
        end = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
        # Others may follow in the file, and words before them.
        assert ends_at_s((b"words\n" + pem + authority.pair.certificate.read_bytes()).decode()) == end
