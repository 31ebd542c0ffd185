"""The clusters that these tests run on: one of each kind for a whole run, each in a network of its own."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cluster import tools
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.kwok import node, played_nodes
from tests.cluster.network import isolated
from tests.cluster.node import ADDRESS, Node, bridge, real_node
from tests.cluster.platform_images import platform_images
from tests.cluster.trial_images import trial_images

NODES = 20
MANIFESTS = Path(__file__).parent / "manifests"


@pytest.fixture(scope="session")
def played() -> Iterator[ControlPlane]:
    """A control plane with 20 played nodes in three zones."""
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    with ExitStack() as stack:
        try:
            # Everything that has to be downloaded, while there is still a network to do it.
            for get in (tools.helm, tools.kubernetes, tools.kwok):
                get()
        except tools.ToolError as error:
            pytest.fail(str(error))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelplane-cluster-")))
        stack.enter_context(isolated())
        plane = stack.enter_context(control_plane(folder))
        stack.enter_context(played_nodes(plane))
        plane.apply(*(node(f"node-{n}", zone="abc"[n % 3]) for n in range(NODES)))
        yield plane


@pytest.fixture(scope="session")
def real() -> Iterator[Node]:
    """A control plane with one real node, which has the platform's images, those of a trial, and DNS."""
    if os.geteuid() != 0:
        pytest.skip("a node needs root")
    with ExitStack() as stack:
        try:
            tools.helm()
            tools.kubernetes()
            tools.installed(tools.NODE_PACKAGES)
            images = trial_images() | platform_images()
        except tools.ToolError as error:
            pytest.fail(str(error))
        folder = Path(os.environ.get("MODELPLANE_TEST_NODE") or stack.enter_context(_folder()))
        stack.enter_context(isolated())
        bridge()
        plane = stack.enter_context(control_plane(folder, ADDRESS))
        node = stack.enter_context(real_node(plane, images))
        plane.kubectl("apply", "--filename", str(MANIFESTS / "coredns.yaml"))
        plane.kubectl("rollout", "status", "--namespace", "kube-system", "deployment/coredns", "--timeout=60s")
        yield node


@contextmanager
def _folder() -> Iterator[str]:
    # Short, for the paths of sockets in it.
    with tempfile.TemporaryDirectory(prefix="mp-node-", dir="/tmp") as folder:
        yield folder
