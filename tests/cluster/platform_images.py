"""The platform's own images, built from this tree as a release builds them, and kept layer by layer between runs."""

import time
from pathlib import Path

from images.build import main as build
from tests.cluster import tools
from tests.cluster.layouts import exported

TAG = "test"
SERVICES = f"localhost/modelplane:{TAG}"
WORKER = f"localhost/modelplane-worker:{TAG}"


def platform_images() -> dict[str, Path]:
    """Name -> OCI layout. Raises ToolError when they cannot be built."""
    tools.installed({"buildah": "buildah", "mmdebstrap": "mmdebstrap"})
    started = time.monotonic()
    if build(["--engine", "buildah", "--local-base", "--tag", TAG]):
        raise tools.ToolError("the images cannot be built; what buildah said is above")
    built_s = time.monotonic() - started
    layouts = {name: exported(name) for name in (SERVICES, WORKER)}
    print(f"[images] built in {built_s:.0f} s, written after {time.monotonic() - started:.0f} s", flush=True)
    return layouts
