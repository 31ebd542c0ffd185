"""What the gateway counts. Labels hold only resolved model names, never what a client made up."""

from prometheus_client import Gauge

from modelplane.usage.v1.usage_pb2 import Usage
from services.tally import HistogramTally, Tally

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)

REQUESTS = Tally("modelplane_requests", "Requests answered.", ("operation", "model", "status"))
TOKENS = Tally("modelplane_tokens", "Tokens billed.", ("model", "kind"))
DURATION = HistogramTally(
    "modelplane_request_duration_seconds",
    "From a request's arrival to the last byte of its answer.",
    ("operation", "model"),
    buckets=SECONDS,
)
FIRST_TOKEN = HistogramTally(
    "modelplane_time_to_first_token_seconds",
    "From a request's arrival to the first token from the engine.",
    ("model",),
    buckets=SECONDS,
)
IN_FLIGHT = Gauge("modelplane_requests_in_flight", "Requests that have not been settled yet.")


def answered(operation: str, model: str, status: int, duration_s: float) -> None:
    """Counts an answer."""
    REQUESTS.counts[operation, model, str(status)] += 1
    DURATION.observe((operation, model), duration_s)


def billed(usage: Usage) -> None:
    """`input` and `output` are all tokens; `cached_input` is the part of the input that came from the cache."""
    model = usage.model
    TOKENS.counts[model, "input"] += usage.input_tokens
    TOKENS.counts[model, "output"] += usage.output_tokens
    if cached := usage.cached_input_tokens:
        TOKENS.counts[model, "cached_input"] += cached
