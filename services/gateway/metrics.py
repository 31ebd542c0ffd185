"""What the gateway counts. Labels hold only resolved model names, never what a client made up."""

from prometheus_client import Counter, Gauge, Histogram

from modelplane.usage.v1.usage_pb2 import Usage

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)

REQUESTS = Counter("modelplane_requests", "Requests answered.", ("operation", "model", "status"))
TOKENS = Counter("modelplane_tokens", "Tokens billed.", ("model", "kind"))
DURATION = Histogram(
    "modelplane_request_duration_seconds",
    "From a request's arrival to the last byte of its answer.",
    ("operation", "model"),
    buckets=SECONDS,
)
FIRST_TOKEN = Histogram(
    "modelplane_time_to_first_token_seconds",
    "From a request's arrival to the first token from the engine.",
    ("model",),
    buckets=SECONDS,
)
IN_FLIGHT = Gauge("modelplane_requests_in_flight", "Requests that have not been settled yet.")


class Meters:
    """Remembers the series that were used, since finding one by its labels costs more than counting in it."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._first_tokens: dict[str, Histogram] = {}
        self._tokens: dict[str, tuple[Counter, Counter, Counter]] = {}

    def answered(self, operation: str, model: str, status: int, duration_s: float) -> None:
        meters = self._requests.get((operation, model, status))
        if meters is None:
            meters = REQUESTS.labels(operation, model, str(status)), DURATION.labels(operation, model)
            self._requests[operation, model, status] = meters
        meters[0].inc()
        meters[1].observe(duration_s)

    def first_token(self, model: str, after_s: float) -> None:
        meter = self._first_tokens.get(model)
        if meter is None:
            meter = self._first_tokens[model] = FIRST_TOKEN.labels(model)
        meter.observe(after_s)

    def billed(self, usage: Usage) -> None:
        """`input` and `output` are all tokens; `cached_input` is the part of the input that came from the cache."""
        meters = self._tokens.get(usage.model)
        if meters is None:
            kinds = ("input", "output", "cached_input")
            first, second, third = (TOKENS.labels(usage.model, kind) for kind in kinds)
            meters = self._tokens[usage.model] = (first, second, third)
        meters[0].inc(usage.input_tokens)
        meters[1].inc(usage.output_tokens)
        if usage.cached_input_tokens:
            meters[2].inc(usage.cached_input_tokens)
