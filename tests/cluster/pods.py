"""Waiting for pods, and saying why they are not ready when they are not."""

import json
import time
from typing import Any

from tests.cluster.control_plane import CommandError, ControlPlane


def wait_for_pods(plane: ControlPlane, namespace: str, selector: str = "", timeout_s: float = 120.0) -> float:
    """Seconds until every pod, of at least one, is ready or has succeeded. Raises TimeoutError with what they said."""
    started = time.monotonic()
    while True:
        pods = plane.get("pods", "--namespace", namespace, "--selector", selector)["items"]
        if pods and all(ready(pod) for pod in pods):
            return time.monotonic() - started
        if time.monotonic() - started > timeout_s:
            waiting = [pod for pod in pods if not ready(pod)]
            said = "\n".join(diagnosis(plane, pod) for pod in waiting) or "there are none"
            raise TimeoutError(f"{len(waiting)} of {len(pods)} pods are not ready after {timeout_s:.0f} s:\n{said}")
        time.sleep(0.5)


def ready(pod: Any) -> bool:
    if pod["status"].get("phase") == "Succeeded":
        return True
    if "deletionTimestamp" in pod["metadata"]:
        return False
    conditions = pod["status"].get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def diagnosis(plane: ControlPlane, pod: Any) -> str:
    """Its states, its events and its last lines."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    lines = [f"--- {namespace}/{name}: {pod['status'].get('phase')} {pod['status'].get('message', '')}"]
    status = pod["status"]
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        lines.append(f"{container['name']}: ready={container['ready']} {json.dumps(container['state'])}")
        for previous in ((), ("--previous",)):
            try:
                logs = ("logs", name, "--namespace", namespace, "--container", container["name"], "--tail", "12")
                lines.append(plane.kubectl(*logs, *previous))
            except CommandError as error:
                if not previous:
                    lines.append(str(error))
    field = f"involvedObject.name={name}"
    events = plane.get("events", "--namespace", namespace, "--field-selector", field)["items"]
    lines += [f"{event['reason']}: {event['message']}" for event in events[-6:]]
    return "\n".join(lines)
