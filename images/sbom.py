"""Writes what an image contains as CycloneDX 1.5 JSON: every Python distribution and every Debian package.

It runs inside the build with nothing but the standard library. Kept true: a Python component names the hashes that
its lock allows, so what is listed can be held against an index; a distribution that no lock names is an error; the
same image gives the same text, without times or random numbers.

`python sbom.py LOCK...` prints it.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

DPKG = Path("/var/lib/dpkg/status")
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)")
HASH = re.compile(r"--hash=sha256:(?P<hash>[0-9a-f]{64})")
# Some packages put the text of their licence where its name belongs.
NAME_CHARACTERS = 100
# Comes with Python's own venv module, not from a lock.
UNLOCKED = frozenset({"pip", "setuptools", "wheel", "modelplane"})


def normalized(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, tuple[str, ...]]:
    """`name==version` -> the SHA-256 hashes that a lock allows for it."""
    found: dict[str, tuple[str, ...]] = {}
    pin = ""
    for line in text.splitlines():
        if match := PIN.match(line):
            pin = f"{normalized(match['name'])}=={match['version']}"
            found[pin] = ()
        if pin and (match := HASH.search(line)):
            found[pin] += (match["hash"],)
    return found


def python_component(distribution: Distribution, hashes: tuple[str, ...]) -> dict[str, Any]:
    name = normalized(distribution.metadata["Name"])
    component: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": distribution.version,
        "purl": f"pkg:pypi/{name}@{distribution.version}",
        "bom-ref": f"pkg:pypi/{name}@{distribution.version}",
    }
    metadata = distribution.metadata
    if "License-Expression" in metadata:
        component["licenses"] = [{"expression": metadata["License-Expression"]}]
    elif "License" in metadata and len(metadata["License"]) < NAME_CHARACTERS:
        component["licenses"] = [{"license": {"name": metadata["License"]}}]
    if hashes:
        reference = {"type": "distribution", "url": f"https://pypi.org/project/{name}/{distribution.version}/"}
        component["externalReferences"] = [
            {**reference, "hashes": [{"alg": "SHA-256", "content": one} for one in hashes]}
        ]
    return component


def python_components(found: Iterable[Distribution], locks: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Raises LookupError for a distribution that no lock names."""
    components = {}
    for distribution in found:
        name = normalized(distribution.metadata["Name"])
        pin = f"{name}=={distribution.version}"
        if pin not in locks and name not in UNLOCKED:
            raise LookupError(f"{pin} is installed, but no lock names it")
        components[pin] = python_component(distribution, locks.get(pin, ()))
    return [components[pin] for pin in sorted(components)]


def debian_components(status: str) -> Iterator[dict[str, Any]]:
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
        if fields.get("Status") != "install ok installed":
            continue
        purl = f"pkg:deb/debian/{fields['Package']}@{fields['Version']}?arch={fields['Architecture']}"
        yield {
            "type": "library",
            "name": fields["Package"],
            "version": fields["Version"],
            "purl": purl,
            "bom-ref": purl,
        }


def document(components: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "modelplane"}},
        "components": components,
    }


def main(paths: list[str]) -> None:
    locks: dict[str, tuple[str, ...]] = {}
    for path in paths:
        locks |= locked(Path(path).read_text())
    components = python_components(distributions(), locks)
    if DPKG.exists():
        components += debian_components(DPKG.read_text())
    json.dump(document(components), sys.stdout, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
