"""The chart's backups: off unless asked for, on a claim of the operator's, in pods as restricted as the others."""

import kubernetes_validate  # type: ignore[import-untyped]

from services.command import parser
from tests.charts.test_chart import TRIAL, Object, helm, rendered

NAME = "modelplane-20261123T031700Z"


def one(objects: list[Object], kind: str, name: str) -> Object:
    [found] = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def assert_fit(pod: Object) -> list[str]:
    """The arguments of the one container."""
    assert pod["enableServiceLinks"] is pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] and pod["restartPolicy"] == "Never"
    [container] = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] and container["resources"]["limits"]["memory"]
    assert {"MODELPLANE_DATABASE_URL", "MODELPLANE_AUTH_PEPPER"} <= {item["name"] for item in container["env"]}
    assert {"name": "backups", "persistentVolumeClaim": {"claimName": "mine"}} in pod["volumes"]
    arguments: list[str] = container["args"]
    parser().parse_args(arguments)
    return arguments


def test_nothing_is_backed_up_unless_it_is_asked_for() -> None:
    kinds = [item["kind"] for item in rendered(*TRIAL)]
    assert "CronJob" not in kinds
    done = helm("template", "x", "charts/modelplane", *(f"--set={value}" for value in (*TRIAL, "backup.enabled=true")))
    assert "backup.claim" in done.stderr


def test_a_schedule() -> None:
    objects = rendered(*TRIAL, "backup.enabled=true", "backup.claim=mine", "backup.keep=3")
    job = one(objects, "CronJob", "modelplane-backup")
    kubernetes_validate.validate(job, "1.35", strict=True)
    arguments = assert_fit(job["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    assert arguments == ["backup", "/backups", "--keep", "3"]
    policy = one(objects, "NetworkPolicy", "modelplane-postgresql")
    assert "backup" in str(policy["spec"]["ingress"])


def test_a_release_that_begins_with_a_backup() -> None:
    """Its services wait for the restored schema and do not make one of their own."""
    objects = rendered(*TRIAL, "backup.claim=mine", f"backup.restore={NAME}")
    job = one(objects, "Job", "modelplane-restore")
    kubernetes_validate.validate(job, "1.35", strict=True)
    assert assert_fit(job["spec"]["template"]["spec"]) == ["restore", f"/backups/{NAME}"]
    for item in objects:
        if "modelplane.ai/services" in item["metadata"].get("annotations", {}):
            variables = {
                env["name"]: env.get("value") for env in item["spec"]["template"]["spec"]["containers"][0]["env"]
            }
            assert ("MODELPLANE_DATABASE_URL" in variables) == (variables.get("MODELPLANE_DATABASE_MIGRATE") == "false")
