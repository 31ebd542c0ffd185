"""Says a request's sampling in vLLM's words. Imported with vLLM only."""

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from modelplane.chat_inference.v1.chat_inference_pb2 import Sampling
from services.catalog import ModelSpec

# vLLM takes -1 for "no seed" and adds a choice's number to it, so seeds are kept positive and well below 2^63.
_SEED_MASK = 2**62 - 1

# vLLM wants top_p above 0; OpenAI admits 0, which keeps the likeliest token alone, as this does.
_LEAST_TOP_P = 1e-9


class CheckedSamplingParams(SamplingParams):  # type: ignore[misc]
    """Parameters whose constraint was tried by `Grammars`: vLLM would parse it again, on the replica's loop."""

    def _validate_structured_outputs(self, *_: object) -> None:
        self.structured_outputs._backend = "xgrammar"


def sampling_params(sampling: Sampling, spec: ModelSpec, tag: str | None) -> SamplingParams:
    """`tag` is the structural tag that binds the answer."""
    temperature = sampling.temperature if sampling.HasField("temperature") else spec.default_temperature
    top_k = 0
    if not temperature and sampling.n > 1:
        # vLLM has no greedy choices in the plural; the likeliest token alone is the same.
        temperature, top_k = 1.0, 1
    logprobs = sampling.top_logprobs if sampling.HasField("top_logprobs") else None
    return (SamplingParams if tag is None else CheckedSamplingParams)(
        n=sampling.n,
        temperature=temperature,
        top_p=max(sampling.top_p, _LEAST_TOP_P) if sampling.HasField("top_p") else spec.default_top_p,
        top_k=top_k,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        logit_bias=dict(sampling.logit_bias) or None,
        seed=sampling.seed & _SEED_MASK if sampling.HasField("seed") else None,
        stop=list(sampling.stop),
        # To read the prompt alone, vLLM still has to say a token.
        max_tokens=sampling.max_output_tokens or 1,
        logprobs=logprobs,
        prompt_logprobs=logprobs if sampling.echo else None,
        structured_outputs=None if tag is None else StructuredOutputsParams(structural_tag=tag),
        # Where a format's marks are special tokens, they are what its parser looks for.
        skip_special_tokens=shows_no_special_tokens(spec),
        output_kind=RequestOutputKind.DELTA,
    )


def shows_no_special_tokens(spec: ModelSpec) -> bool:
    return spec.tool_format not in ("llama", "mistral") and spec.thinking is None
