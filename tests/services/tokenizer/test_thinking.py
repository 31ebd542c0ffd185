"""What a reasoning effort means for a model."""

import pytest

from modelplane.chat_inference.v1.chat_inference_pb2 import Thinking
from services.catalog import ModelSpec, ThinkingSpec
from services.faults import InvalidRequest
from services.tokenizer.thinking import effort_of

PLAIN = ModelSpec(name="plain")


def thinker(how: ThinkingSpec) -> ModelSpec:
    return ModelSpec(name="thinker", thinking=how)


@pytest.mark.parametrize("effort", ["", "none"])
def test_a_model_that_does_not_think_is_told_nothing(effort: str) -> None:
    assert effort_of(PLAIN, effort) == ({}, None)


def test_a_model_that_does_not_think_cannot_be_asked_to() -> None:
    with pytest.raises(InvalidRequest) as refused:
        effort_of(PLAIN, "low")
    assert refused.value.message == "Unrecognized request argument supplied: reasoning_effort"
    assert (refused.value.reason, refused.value.param) == ("unsupported_parameter", "reasoning_effort")


def test_the_effort_is_a_variable_of_the_template() -> None:
    spec = thinker(ThinkingSpec(template_variable="reasoning_effort", budget_tokens={"low": 50}, open=True))
    assert effort_of(spec, "low") == (
        {"reasoning_effort": "low"},
        Thinking(begin="<think>", end="</think>", open=True, budget_tokens=50),
    )
    assert effort_of(spec, "") == (
        {"reasoning_effort": "medium"},
        Thinking(begin="<think>", end="</think>", open=True),
    )


def test_a_switch_turns_thinking_off() -> None:
    spec = thinker(ThinkingSpec(begin="[", end="]", switch_variable="enable_thinking"))
    assert effort_of(spec, "none") == ({"enable_thinking": False}, None)
    assert effort_of(spec, "high") == ({"enable_thinking": True}, Thinking(begin="[", end="]"))


def test_without_a_switch_it_thinks_anyway() -> None:
    assert effort_of(thinker(ThinkingSpec()), "none") == ({}, Thinking(begin="<think>", end="</think>"))


@pytest.mark.parametrize(
    ("efforts", "listed"),
    [(("low",), "'low'"), (("low", "high"), "'low' and 'high'"), (("a", "b", "c"), "'a', 'b', and 'c'")],
)
def test_an_effort_that_the_model_does_not_have(efforts: tuple[str, ...], listed: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        effort_of(thinker(ThinkingSpec(efforts=efforts)), "xhigh")
    assert refused.value.message == (
        "Unsupported value: 'reasoning_effort' does not support 'xhigh' with this model. "
        f"Supported values are: {listed}."
    )
    assert (refused.value.reason, refused.value.param) == ("unsupported_value", "reasoning_effort")
