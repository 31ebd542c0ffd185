"""The models that this installation serves, as its operator configured them.

One list, read by whoever needs a model's facts: `pools` starts its replicas, `tokenizer` loads its tokenizer,
the replica loads its weights. An alias is another name for the same pool and never appears in a bill.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from services.settings import PlatformSettings, SettingsError


class ScriptSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the scripted engine says: `tokens` tokens, the first after `first_token_ms`, each next `token_ms` later."""

    tokens: int = 50
    """Tokens of each choice, unless the client's bound is lower."""

    first_token_ms: float = 0.0
    """Time until the first token."""

    token_ms: float = 0.0
    """Time between two tokens."""

    text: str = ""
    """Said instead, in tokens of four characters, to its end unless the client's bound is lower."""


class ThinkingSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a reasoning model marks its thinking, and how it is told to think more or less."""

    begin: str = "<think>"
    """Opens the thinking."""

    end: str = "</think>"
    """Closes it; the answer follows."""

    open: bool = False
    """The model's template opens the thinking in the prompt, so the answer begins inside."""

    efforts: tuple[str, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    """The values of reasoning_effort that the model takes; others are refused."""

    default_effort: str = "medium"
    """The effort when the client names none."""

    template_variable: str = ""
    """Variable of the template that takes the effort's name, such as `reasoning_effort`."""

    switch_variable: str = ""
    """Variable of the template that is false for the effort `none` and true otherwise, such as `enable_thinking`."""

    budget_tokens: dict[str, int] = {}
    """Most tokens of thinking, by effort; an effort that is not here has no bound."""


class VisionSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model that sees images takes. How many tokens an image is, its checkpoint says; see `vision`."""

    max_images: int = 8
    """Most images of one request."""

    max_pixels: int = 50_000_000
    """Most pixels of one image; one with more is refused before it is decoded, which takes 3 bytes for each."""


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model and the pool of its replicas."""

    name: str
    """What clients name, and what bills say."""

    aliases: tuple[str, ...] = ()
    """Other names for the same pool."""

    engine: Literal["vllm", "scripted"] = "vllm"
    """`scripted` is a deterministic stand-in for tests and load tests; it must be asked for by name."""

    checkpoint: str = ""
    """Folder of a Hugging Face checkpoint, or the name of a prepared one in the cache folder. Empty: `name`."""

    owned_by: str = "modelplane"
    """Who made the model, shown by /v1/models."""

    created_at: int = 0
    """Unix seconds, shown by /v1/models."""

    context_tokens: int = 2048
    """Most tokens of prompt and completion together."""

    min_replicas: int = 1
    """Replicas that always run; with 0 the first request waits until one has started."""

    max_replicas: int = 1
    """Most replicas. Between the two the pool follows its queue."""

    slots: int = 64
    """Requests that one replica runs at once; more wait in the router's queue."""

    default_output_tokens: int | None = None
    """Most output tokens when the client sets no bound. Default: what the context window leaves."""

    default_temperature: float = 1.0
    """Temperature when the client sets none. OpenAI's is 1; small models ramble at it."""

    default_top_p: float = 1.0
    """top_p when the client sets none."""

    tool_format: Literal["", "hermes", "llama", "mistral", "pythonic"] = ""
    """How the model was trained to write tool calls. Empty: it was not, and Modelplane tells it in words."""

    thinking: ThinkingSpec | None = None
    """Only for reasoning models."""

    vision: VisionSpec | None = None
    """Only for models that see images: checkpoints of the Idefics3 family, such as SmolVLM's."""

    free: bool = False
    """The model costs nothing. One that is neither free nor priced (here, in the shipped price book, or by
    `modelplane prices set`) is not served."""

    price: dict[str, Any] = {}
    """Dollars per million tokens and the like: `input = 0.15`, `output = 0.60`; see `services/pricing/rates.py`."""

    cpus: float = 0.0
    """Logical CPUs that Ray sets aside for a replica; 0 never waits for any."""

    gpus: float = 0.0
    """GPUs that Ray gives to a replica."""

    engine_args: dict[str, Any] = {}
    """Passed on to vLLM's engine arguments."""

    script: ScriptSpec = ScriptSpec()
    """Only for the scripted engine."""


DEFAULT_MODEL = ModelSpec(
    name="smollm2-135m-instruct",
    owned_by="huggingface",
    created_at=1730419200,
    context_tokens=2048,
    slots=32,
    # Its authors' recommendation, and a bound on what it says to a client that sets none.
    default_temperature=0.2,
    default_top_p=0.9,
    default_output_tokens=512,
)


class Catalog:
    """The configured models, by name and alias."""

    def __init__(self, models: tuple[ModelSpec, ...]) -> None:
        self._models = models
        self._by_name: dict[str, ModelSpec] = {}
        for model in models:
            for name in (model.name, *model.aliases):
                if name in self._by_name:
                    raise SettingsError(f"the model name {name!r} is configured twice")
                self._by_name[name] = model

    def get(self, name: str) -> ModelSpec | None:
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._models)

    @staticmethod
    def load(settings: PlatformSettings) -> "Catalog":
        """Reads the configured file, or serves the default model when there is none."""
        if settings.config is None:
            return Catalog((DEFAULT_MODEL,))
        try:
            tables = tomllib.loads(settings.config.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"MODELPLANE_CONFIG {settings.config}: {error}") from error
        return Catalog(_models(tables, settings.config))


def _models(tables: Mapping[str, Any], path: Path) -> tuple[ModelSpec, ...]:
    try:
        models = msgspec.convert(tables.get("models", []), tuple[ModelSpec, ...])
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: models: {error}") from error
    if not models:
        raise SettingsError(f"{path}: add at least one [[models]] table")
    for model in models:
        if model.vision and model.engine != "vllm":
            raise SettingsError(f"{path}: {model.name}: only models on vLLM see images")
        if not 0 <= model.min_replicas <= model.max_replicas or model.max_replicas < 1 or model.slots < 1:
            raise SettingsError(
                f"{path}: {model.name}: 0 <= min_replicas <= max_replicas, 1 <= max_replicas, 1 <= slots"
            )
    return models


def checkpoint_directory(spec: ModelSpec, cache: Path) -> Path:
    """Where the model's tokenizer and weights lie: an existing folder as given, else in the cache."""
    given = Path(spec.checkpoint or spec.name).expanduser()
    return given if given.is_absolute() or given.is_dir() else cache / "models" / given
