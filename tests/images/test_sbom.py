"""The list of what is in an image says what is installed, and refuses what no lock names."""

import json
import re
import sysconfig
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

from images import sbom

ROOT = Path(__file__).parents[2]


@pytest.fixture
def locks() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for path in (ROOT / "requirements").glob("*.lock"):
        found |= sbom.locked(path.read_text())
    return found


def test_every_installed_distribution_is_listed_with_the_hashes_of_its_lock(locks: dict[str, tuple[str, ...]]) -> None:
    # Not those that a library of another test brought along on sys.path, as Ray does.
    installed = distributions(path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    components = {one["name"]: one for one in sbom.python_components(installed, locks)}
    grpc = components["grpcio"]
    (reference,) = grpc["externalReferences"]
    assert {one["content"] for one in reference["hashes"]} == set(locks[f"grpcio=={grpc['version']}"])
    assert grpc["purl"] == f"pkg:pypi/grpcio@{grpc['version']}"
    assert json.dumps(sbom.document(list(components.values())))


def test_every_pin_of_a_lock_has_hashes(locks: dict[str, tuple[str, ...]]) -> None:
    assert all(locks.values())
    assert all(re.fullmatch(r"[0-9a-f]{64}", one) for hashes in locks.values() for one in hashes)


def test_a_distribution_that_no_lock_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "METADATA").write_text("Metadata-Version: 2.1\nName: Stowaway\nVersion: 1.0\n")
    with pytest.raises(LookupError, match=r"stowaway==1\.0"):
        sbom.python_components([Distribution.at(tmp_path)], {})


def test_debian_packages_are_listed_when_they_are_installed() -> None:
    status = (
        "Package: libnuma1\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.0.16-1\n"
        "Description: text\n more: text\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n"
    )
    (component,) = sbom.debian_components(status)
    assert component["purl"] == "pkg:deb/debian/libnuma1@2.0.16-1?arch=amd64"
