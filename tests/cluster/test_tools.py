"""The programs that were got are what they say they are."""

import subprocess

from tests.cluster import tools


def said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_helm_and_kubectl_are_the_reviewed_versions() -> None:
    assert said(str(tools.helm()), "version", "--short").startswith("v4.1.4")
    assert "v1.35.2" in said(str(tools.kubectl()), "version", "--client")


def test_kubernetes_is_the_pinned_version() -> None:
    programs = tools.kubernetes()
    assert said(str(programs.apiserver), "--version").strip() == f"Kubernetes {tools.KUBERNETES}"
    assert said(str(programs.kubelet), "--version").strip() == f"Kubernetes {tools.KUBERNETES}"
    assert "etcd Version" in said(str(programs.etcd), "--version")
