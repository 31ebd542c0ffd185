"""The kind ModelPool as Kubernetes learns it: its fields, what they default to, and what is refused with which words.

The vocabulary is the catalogue's (`services/catalog.py`), in Kubernetes' spelling: `contextTokens` is `context_tokens`.
`python -m operators.model_pool.crd` prints it; `charts/modelplane-crds` carries what it prints.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

GROUP: Final = "modelplane.ai"
VERSION: Final = "v1alpha1"
PLURAL: Final = "modelpools"
KIND: Final = "ModelPool"
NAME_LENGTH: Final = 40
"""Longest name of an object: names of pods are made of it, and end at 63."""

RESERVED: Final = "platform"
"""No object's name: entries lie in one folder with the chart's own file, which has this one."""

ABOVE_ZERO: Final = "type(self) == int ? self > 0 : isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))"

Schema = Mapping[str, Any]


def text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def whole(description: str, minimum: int = 0, **more: Any) -> Schema:
    return {"type": "integer", "format": "int32", "minimum": minimum, "description": description, **more}


def number(description: str, **more: Any) -> Schema:
    return {"type": "number", "minimum": 0, "description": description, **more}


def flag(description: str, **more: Any) -> Schema:
    return {"type": "boolean", "description": description, **more}


def record(description: str, properties: Mapping[str, Schema], *rules: tuple[str, str], **more: Any) -> Schema:
    """An object; each rule is a CEL expression that must hold, and what is said when it does not."""
    checks = [{"rule": rule, "message": message} for rule, message in rules]
    checked = {"x-kubernetes-validations": checks} if checks else {}
    return {"type": "object", "description": description, "properties": dict(properties), **checked, **more}


def names(description: str, **items: Any) -> Schema:
    """A list of strings that are all different."""
    item = {"type": "string", "minLength": 1, **items}
    return {
        "type": "array",
        "description": description,
        "items": item,
        "maxItems": 32,
        "x-kubernetes-list-type": "set",
    }


def free_form(description: str) -> Schema:
    return {"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": True}


def quantity(description: str) -> Schema:
    return {
        "x-kubernetes-int-or-string": True,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 32,
        "description": description,
        "x-kubernetes-validations": [
            {"rule": ABOVE_ZERO, "message": "must be a quantity above 0, such as 500m, 4 or 16Gi"}
        ],
    }


MODEL_NAME: Final = {"minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9][A-Za-z0-9._/:-]*$"}


def weights() -> Schema:
    return record(
        "Where the checkpoint comes from. Everything that reads it must see it: replicas, and the services' tokenizer.",
        {
            "source": text(
                "`package`: a model that the image brings, named by `path` (default: the model's name). "
                "`huggingface`: a folder with a Hugging Face checkpoint, absolute, or below models/ in the cache. "
                "`claim`: a folder of a PersistentVolumeClaim.",
                enum=["package", "huggingface", "claim"],
                default="package",
            ),
            "claimName": text("The claim of the source `claim`, in the pool's namespace.", maxLength=253),
            "path": text("The folder: of the claim, absolute, or below models/ in the cache.", maxLength=512),
        },
        (
            "(self.source == 'claim') == has(self.claimName)",
            "weights.claimName is for weights.source claim, which needs it",
        ),
        (
            "self.source != 'huggingface' || (has(self.path) && size(self.path) > 0)",
            "weights.source huggingface needs weights.path",
        ),
        ("!has(self.path) || !self.path.contains('..')", "weights.path must not contain '..'"),
        (
            "self.source != 'claim' || !has(self.path) || !self.path.startsWith('/')",
            "weights.path of a claim is relative to its root",
        ),
        default={"source": "package"},
    )


def resources() -> Schema:
    toleration = {
        "key": text("Taint that is tolerated."),
        "operator": text("Exists or Equal.", enum=["Exists", "Equal"]),
        "value": text("Value of the taint, with Equal."),
        "effect": text("Effect of the taint; empty: all.", enum=["NoSchedule", "PreferNoSchedule", "NoExecute"]),
        "tolerationSeconds": {"type": "integer", "format": "int64"},
    }
    return record(
        "What one replica takes of a node.",
        {
            "cpu": quantity("Processors."),
            "memory": quantity("Memory, the most that it may take too."),
            "gpu": whole("GPUs, the engine's tensor-parallel size.", default=0, maximum=64),
            "gpuResource": text(
                "The extended resource that stands for a GPU.", default="nvidia.com/gpu", maxLength=253, minLength=1
            ),
            "accelerator": {
                "type": "object",
                "description": "Labels of the nodes that replicas run on, such as an accelerator's product.",
                "additionalProperties": {"type": "string"},
                "maxProperties": 16,
            },
            "tolerations": {
                "type": "array",
                "description": "Taints of nodes that do not keep replicas away.",
                "items": record("As a pod's.", toleration),
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
            },
        },
        default={},
    )


def replicas() -> Schema:
    return record(
        "How many replicas there may be.",
        {
            "min": whole(
                "Always there; with 0 the first request waits until one has started.", default=1, maximum=10000
            ),
            "max": whole(
                "At most; with `min` below it the pool follows its queue and its load.", default=1, maximum=10000
            ),
            "surge": whole(
                "Beyond `max` while changed replicas are replaced; 0 where there is no room for one more.",
                default=1,
                maximum=1,
            ),
        },
        ("self.max >= 1", "replicas.max must be at least 1; remove the pool to serve the model no more"),
        ("self.min <= self.max", "replicas.min must not exceed replicas.max"),
        default={"min": 1, "max": 1, "surge": 1},
    )


def autoscaling() -> Schema:
    return record(
        "When the pool grows and shrinks between `min` and `max`. Defaults are those of the service `pools`.",
        {
            "targetTokensPerSecond": number(
                "Output tokens a second that one replica should make. Without it they do not count.",
                exclusiveMinimum=True,
            ),
            "queuedPerReplica": whole("Waiting requests for each replica above which the pool is too small.", 1),
            "scaleUpAfterSeconds": whole("How long it must be too small before it grows.", maximum=86400),
            "scaleDownAfterSeconds": whole("How long it must be larger than needed before it shrinks.", maximum=86400),
        },
        default={},
    )


def script() -> Schema:
    return record(
        "What the scripted engine says.",
        {
            "tokens": whole("Tokens of each answer, unless the client's bound is lower."),
            "firstTokenMs": number("Milliseconds until the first token."),
            "tokenMs": number("Milliseconds between two tokens."),
            "text": text("Said instead, to its end."),
        },
    )


def thinking() -> Schema:
    efforts = {"type": "string", "minLength": 1}
    return record(
        "How a reasoning model marks its thinking, and how it is told to think more or less.",
        {
            "begin": text("Opens the thinking."),
            "end": text("Closes it."),
            "open": flag("The template opens the thinking in the prompt."),
            "efforts": {"type": "array", "items": efforts, "x-kubernetes-list-type": "set", "description": "Taken."},
            "defaultEffort": text("When the client names none."),
            "templateVariable": text("Variable of the template that takes the effort's name."),
            "switchVariable": text("Variable of the template that is false without thinking."),
            "budgetTokens": {
                "type": "object",
                "additionalProperties": {"type": "integer", "minimum": 0},
                "description": "Most tokens of thinking, by effort.",
            },
        },
    )


def vision() -> Schema:
    return record(
        "Only for models that see images.",
        {
            "maxImages": whole("Most images of one request.", 1),
            "maxPixels": {"type": "integer", "format": "int64", "minimum": 1, "description": "Most of one image."},
        },
    )


def spec() -> Schema:
    return record(
        "One model and the pool of its replicas.",
        {
            "model": text(
                "What clients name, and what bills say. It cannot be changed.",
                **MODEL_NAME,
                **{
                    "x-kubernetes-validations": [
                        {"rule": "self == oldSelf", "message": "model cannot be changed: make another pool"}
                    ]
                },
            ),
            "aliases": names("Other names for the same pool.", **MODEL_NAME),
            "engine": text("`scripted` is a stand-in for tests.", enum=["vllm", "scripted"], default="vllm"),
            "weights": weights(),
            "ownedBy": text("Who made the model, shown by /v1/models.", default="modelplane"),
            "contextTokens": whole("Most tokens of prompt and completion together.", 1, default=2048),
            "slots": whole("Requests that one replica runs at once.", 1, default=64),
            "defaultOutputTokens": whole("Most output tokens when the client sets no bound.", 1),
            "defaultTemperature": number("When the client sets none.", maximum=2),
            "defaultTopP": number("When the client sets none.", maximum=1),
            "toolFormat": text(
                "How the model writes tool calls. Empty: it is told in words.",
                enum=["", "hermes", "llama", "mistral", "pythonic"],
            ),
            "thinking": thinking(),
            "vision": vision(),
            "free": flag("The model costs nothing.", default=False),
            "price": free_form('Dollars per million tokens and the like: `input: "0.15"`, `output: "0.60"`.'),
            "resources": resources(),
            "replicas": replicas(),
            "autoscaling": autoscaling(),
            "revision": text("Any text; a new one replaces the replicas one by one.", maxLength=256),
            "image": text("In place of the platform's worker image.", maxLength=512, pattern=r"^\S+$"),
            "spreadZones": flag("Replicas are spread over zones as evenly as room allows.", default=True),
            "engineArgs": free_form("Passed on to vLLM's engine arguments, in its spelling."),
            "script": script(),
        },
        ("!has(self.aliases) || !self.aliases.exists(a, a == self.model)", "aliases must not contain the model's name"),
        ("!(self.free && has(self.price))", "a model is free or has a price, not both"),
        ("self.engine == 'vllm' || self.resources.gpu == 0", "only engine vllm takes a GPU"),
        ("self.engine == 'scripted' || !has(self.script)", "script is for engine scripted"),
        ("self.engine == 'vllm' || !has(self.engineArgs)", "engineArgs are for engine vllm"),
        ("self.engine == 'vllm' || !has(self.vision)", "vision is for engine vllm"),
        ("self.engine == 'vllm' || self.weights.source == 'package'", "weights are for engine vllm"),
        required=["model"],
    )


def status() -> Schema:
    condition = {
        "type": text("Ready, Progressing or Degraded."),
        "status": text("True, False or Unknown.", enum=["True", "False", "Unknown"]),
        "reason": text("One word for programs."),
        "message": text("For people: why it waits, what failed."),
        "lastTransitionTime": text("When `status` changed.", format="date-time"),
        "observedGeneration": {"type": "integer", "format": "int64"},
    }
    conditions = {
        "type": "array",
        "items": record("", condition, required=["type", "status", "reason", "message", "lastTransitionTime"]),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    return record(
        "What is.",
        {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "conditions": conditions,
            "replicas": whole("Replicas in whatever state."),
            "readyReplicas": whole("Replicas that take requests."),
            "wantedReplicas": whole("Replicas that there should be now."),
            "queued": whole("Requests that wait for a slot."),
            "running": whole("Requests that have one."),
            "outputTokensPerSecond": number("Measured over all replicas."),
            "selector": text("Selects the pods of the pool."),
            "generation": text("Of what replicas depend on: those of another one are being replaced."),
            "startupSeconds": number("What the last replica took from the decision to start it until it was ready."),
        },
    )


def columns() -> list[Schema]:
    rows = (
        ("Model", "string", ".spec.model"),
        ("Ready", "integer", ".status.readyReplicas"),
        ("Wanted", "integer", ".status.wantedReplicas"),
        ("Queued", "integer", ".status.queued"),
        ("Throughput", "number", ".status.outputTokensPerSecond"),
        ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason'),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    why = {"name": "Why", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].message', "priority": 1}
    return [*({"name": name, "type": kind, "jsonPath": path} for name, kind, path in rows), why]


def document() -> dict[str, Any]:
    """The CustomResourceDefinition."""
    root = record(
        "A model, and the pool of replicas that serves it.",
        {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec(),
            "status": status(),
        },
        (f"size(self.metadata.name) <= {NAME_LENGTH}", f"a pool's name has at most {NAME_LENGTH} characters"),
        ("!self.metadata.name.contains('.')", "a pool's name has no dots: pods are named after it"),
        (f"self.metadata.name != '{RESERVED}'", f"{RESERVED} is the file of the models that the chart's values name"),
        required=["spec"],
    )
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": root},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas.min",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": columns(),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Whoever removes the chart does not mean to end every model that is served.
        "metadata": {"name": f"{PLURAL}.{GROUP}", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "plural": PLURAL,
                "singular": "modelpool",
                "kind": KIND,
                "listKind": f"{KIND}List",
                "shortNames": ["mp"],
                "categories": ["modelplane"],
            },
            "versions": [version],
        },
    }


def rendered() -> str:
    """The definition as the chart carries it: JSON, which is YAML too, in the order of this file."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(rendered())
