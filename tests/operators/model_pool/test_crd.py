"""The definition of the kind: the chart carries what the code says, and something follows every field of a pool."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from charts.generate import PATH
from operators.model_pool import crd
from operators.model_pool.entry import AUTOSCALING, MADE, REPLICAS, SAME, parsed, table, toml
from services.catalog import ModelSpec, ScriptSpec, ThinkingSpec, VisionSpec

CREATED = "2026-01-02T03:04:05Z"
FULL: dict[str, Any] = {
    "model": "full",
    "aliases": ["f", "F-latest"],
    "engine": "vllm",
    "weights": {"source": "claim", "claimName": "weights", "path": "a/b"},
    "ownedBy": "us",
    "contextTokens": 4096,
    "slots": 3,
    "defaultOutputTokens": 100,
    "defaultTemperature": 0.5,
    "defaultTopP": 0.75,
    "toolFormat": "hermes",
    "thinking": {
        "begin": "<t>",
        "end": "</t>",
        "open": True,
        "efforts": ["low", "high"],
        "defaultEffort": "low",
        "templateVariable": "effort",
        "switchVariable": "think",
        "budgetTokens": {"low": 5, "high": 50},
    },
    "vision": {"maxImages": 2, "maxPixels": 5000000000},
    "free": False,
    "price": {"input": "0.15", "output": "0.60"},
    "resources": {"cpu": 4, "memory": "16Gi", "gpu": 2, "gpuResource": "nvidia.com/gpu"},
    "replicas": {"min": 0, "max": 4, "surge": 0},
    "autoscaling": {
        "targetTokensPerSecond": 12.5,
        "queuedPerReplica": 2,
        "scaleUpAfterSeconds": 3,
        "scaleDownAfterSeconds": 40,
    },
    "revision": 'a "quoted"\nline\x7f',
    "engineArgs": {"seed": 1, "nested": {"list": [1, 2.5, True, "é"]}},
}


def properties(*path: str) -> dict[str, Any]:
    found = crd.spec()["properties"]
    for name in path:
        found = found[name]["properties"]
    return dict(found)


def snaked(names: Any) -> set[str]:
    return {"".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name) for name in names}


def test_the_chart_carries_what_the_code_says() -> None:
    path = PATH.parents[1] / "modelplane-crds" / "templates" / "modelpools.yaml"
    assert path.read_text() == crd.rendered(), f"python -m operators.model_pool.crd > {path.relative_to(Path.cwd())}"


def test_every_field_of_the_catalogue_can_be_said_or_is_made() -> None:
    ours = {*SAME, *REPLICAS, *AUTOSCALING, *MADE}
    assert ours == {field.name for field in msgspec.structs.fields(ModelSpec)}
    assert set(SAME.values()) <= properties().keys()
    assert set(REPLICAS.values()) == properties("replicas").keys()
    assert {theirs for theirs, _ in AUTOSCALING.values()} == properties("autoscaling").keys()
    for record, kind in (("thinking", ThinkingSpec), ("vision", VisionSpec), ("script", ScriptSpec)):
        assert snaked(properties(record)) == {field.name for field in msgspec.structs.fields(kind)}


def test_a_pool_that_says_everything_becomes_the_model_that_it_means() -> None:
    assert FULL.keys() | {"script", "image", "spreadZones"} == properties().keys()
    model = parsed(toml(table(FULL, CREATED, {"pool-full-01234567": 1.0})), {})
    assert model == ModelSpec(
        name="full",
        aliases=("f", "F-latest"),
        checkpoint="/var/lib/weights/weights/a/b",
        owned_by="us",
        created_at=int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()),
        context_tokens=4096,
        min_replicas=0,
        max_replicas=4,
        target_tokens_per_s=12.5,
        queued_per_replica=2,
        scale_up_after_ms=3000,
        scale_down_after_ms=40000,
        surge=0,
        revision='a "quoted"\nline\x7f',
        slots=3,
        default_output_tokens=100,
        default_temperature=0.5,
        default_top_p=0.75,
        tool_format="hermes",
        thinking=ThinkingSpec(
            begin="<t>",
            end="</t>",
            open=True,
            efforts=("low", "high"),
            default_effort="low",
            template_variable="effort",
            switch_variable="think",
            budget_tokens={"low": 5, "high": 50},
        ),
        vision=VisionSpec(max_images=2, max_pixels=5000000000),
        price={"input": "0.15", "output": "0.60"},
        gpus=2.0,
        resources={"pool-full-01234567": 1.0},
        engine_args={"tensor_parallel_size": 2, "seed": 1, "nested": {"list": [1, 2.5, True, "é"]}},
    )
