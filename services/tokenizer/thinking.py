"""What a reasoning effort means for a model: variables of its template, and how its thinking is to be read."""

from typing import Any, NamedTuple

from modelplane.chat_inference.v1.chat_inference_pb2 import Thinking
from services.catalog import ModelSpec
from services.faults import InvalidRequest

_FIELD = "reasoning_effort"


class Effort(NamedTuple):
    """What one effort means for one model."""

    variables: dict[str, Any]
    """For the template."""

    thinking: Thinking | None
    """None where the model does not think."""


def effort_of(spec: ModelSpec, effort: str) -> Effort:
    """What the client's effort (empty: it named none) means for the model.

    Raises unsupported_parameter for a model that does not think, and unsupported_value for an effort that it does not
    have.
    """
    how = spec.thinking
    if how is None:
        if effort not in ("", "none"):
            raise InvalidRequest(
                "unsupported_parameter", f"Unrecognized request argument supplied: {_FIELD}", param=_FIELD
            )
        return Effort({}, None)
    if effort and effort not in how.efforts:
        raise InvalidRequest(
            "unsupported_value",
            f"Unsupported value: '{_FIELD}' does not support '{effort}' with this model. "
            f"Supported values are: {_listed(how.efforts)}.",
            param=_FIELD,
        )
    effort = effort or how.default_effort
    variables: dict[str, Any] = {}
    if how.template_variable:
        variables[how.template_variable] = effort
    if how.switch_variable:
        variables[how.switch_variable] = effort != "none"
        if effort == "none":
            return Effort(variables, None)
    budget = how.budget_tokens.get(effort, 0)
    return Effort(variables, Thinking(begin=how.begin, end=how.end, open=how.open, budget_tokens=budget))


def _listed(names: tuple[str, ...]) -> str:
    quoted = [f"'{name}'" for name in names]
    if len(quoted) > 2:
        quoted[-1] = f"and {quoted[-1]}"
        return ", ".join(quoted)
    return " and ".join(quoted)
