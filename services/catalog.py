"""The models that this installation serves, as its operator configured them.

One list, read by whoever needs a model's facts: `pools` starts its replicas, `tokenizer` loads its tokenizer,
the gateway knows its aliases. An alias is another name for the same pool and never appears in a bill.

The list is live: `following` gives a process's catalogue what its files say now. What it keeps true: it changes as
a whole and only to a list that is valid; a model that did not change stays the same object; whoever subscribed is
told after each change. What a model says at one moment may be gone at the next, so nobody keeps a copy.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

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
    """Most replicas. Between the two the pool follows its queue and its load."""

    target_tokens_per_s: float = 0.0
    """Output tokens a second that one replica should make: above it the pool grows, well below it the pool shrinks.
    0: the pool follows only how many of its slots are taken, and its queue."""

    queued_per_replica: int | None = None
    """Waiting requests per replica above which the pool is too small. Default, as for the next two: the setting of that
    name of the service `pools`."""

    scale_up_after_ms: int | None = None
    """How long the pool must be too small before it grows."""

    scale_down_after_ms: int | None = None
    """How long the pool must be larger than needed before it shrinks."""

    surge: int = 1
    """Replicas beyond `max_replicas` that may run while a changed model's replicas are replaced: 1, or 0 on a machine
    that has no room for one more, where each is stopped before its successor starts."""

    revision: str = ""
    """Any text. A new one replaces the replicas one by one, as every change does that they depend on: for what no
    other key shows, such as new files in the folder of the weights or another image of the machines."""

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

    resources: dict[str, float] = {}
    """Ray's custom resources that a replica takes, such as `{ "pool-small" = 1 }`: it runs where they are offered."""

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


Listener = Callable[[], None]
MappedT = TypeVar("MappedT")

# What a replica does not depend on: to change one of these starts nothing anew.
_BESIDE: Final = frozenset(
    (
        *("aliases", "owned_by", "created_at", "min_replicas", "max_replicas", "target_tokens_per_s"),
        *("queued_per_replica", "scale_up_after_ms", "scale_down_after_ms"),
        *("surge", "free", "price", "default_output_tokens"),
    )
)


def generation(spec: ModelSpec) -> str:
    """A mark that changes when something changes that a replica of the model depends on."""
    facts = {name: getattr(spec, name) for name in spec.__struct_fields__ if name not in _BESIDE}
    return sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()[:10]


class Catalog:
    """The configured models, by name and alias. Raises SettingsError for a name that is there twice.

    `tables` is everything that the files say, for those who read other tables of them. In a `fluid` one models come
    and go at any time, so one that cannot be served, or that is not there yet, must not keep the others from work.
    """

    def __init__(
        self, models: tuple[ModelSpec, ...], tables: Mapping[str, Any] | None = None, fluid: bool = False
    ) -> None:
        self._models = models
        self._by_name = _named(models)
        self.tables: Mapping[str, Any] = tables or {}
        self.fluid = fluid
        self._listeners: list[Listener] = []

    def get(self, name: str) -> ModelSpec | None:
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._models)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` after each change until what this returns is called. It must not raise."""
        self._listeners.append(listener)

        def end() -> None:
            with suppress(ValueError):
                self._listeners.remove(listener)

        return end

    def replace(self, other: "Catalog") -> None:
        """Takes over what another catalogue says, and tells everyone."""
        models = tuple(self._kept(spec) for spec in other)
        self._by_name = _named(models)
        self._models, self.tables = models, other.tables
        for listener in list(self._listeners):
            listener()

    def _kept(self, spec: ModelSpec) -> ModelSpec:
        known = self._by_name.get(spec.name)
        return known if known == spec else spec

    @staticmethod
    def load(settings: PlatformSettings) -> "Catalog":
        """Reads the configured file or folder, or serves the default model when there is none."""
        if settings.config is None:
            return Catalog((DEFAULT_MODEL,))
        return Catalog.parse(read(settings.config), settings.config)

    @staticmethod
    def parse(files: Mapping[Path, bytes], config: Path) -> "Catalog":
        """The catalogue of what `read` gave. Raises SettingsError naming what cannot be used."""
        tables: dict[str, Any] = {}
        models: list[ModelSpec] = []
        for path, content in files.items():
            try:
                own = tomllib.loads(content.decode())
            except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise SettingsError(f"MODELPLANE_CONFIG {path}: {error}") from error
            models += _models(own, path)
            _join(tables, own, path)
        fluid = config not in files
        # A folder may be empty until the first model is put there.
        if not models and not fluid:
            raise SettingsError(f"{config}: add at least one [[models]] table")
        try:
            return Catalog(tuple(models), tables, fluid)
        except SettingsError as error:
            raise SettingsError(f"{config}: {error}") from error


def read(config: Path) -> Mapping[Path, bytes]:
    """The contents of the configured file, or of every *.toml of the configured folder, in the order of their names.

    A folder that is mounted from Kubernetes is read through its link `..data`, which moves at once, so that what
    belongs together is seen together. Raises SettingsError.
    """
    try:
        if not config.is_dir():
            return {config: config.read_bytes()}
        linked = config / "..data"
        folder = linked.resolve(strict=True) if linked.is_symlink() else config
        paths = sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))
        return {config / path.name: path.read_bytes() for path in paths}
    except OSError as error:
        raise SettingsError(f"MODELPLANE_CONFIG {config}: {error}") from error


def _join(tables: dict[str, Any], more: Mapping[str, Any], path: Path) -> None:
    """Adds a file's tables: lists become one list, and anything else is said once."""
    for name, value in more.items():
        if name not in tables:
            tables[name] = value
        elif isinstance(value, list) and isinstance(tables[name], list):
            tables[name] = [*tables[name], *value]
        else:
            raise SettingsError(f"MODELPLANE_CONFIG {path}: {name!r} is in another file too")


def _named(models: tuple[ModelSpec, ...]) -> dict[str, ModelSpec]:
    by_name: dict[str, ModelSpec] = {}
    for model in models:
        for name in (model.name, *model.aliases):
            if name in by_name:
                raise SettingsError(f"the model name {name!r} is configured twice")
            by_name[name] = model
    return by_name


def _models(tables: Mapping[str, Any], path: Path) -> tuple[ModelSpec, ...]:
    try:
        models = msgspec.convert(tables.get("models", []), tuple[ModelSpec, ...])
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: models: {error}") from error
    for model in models:
        if complaint := _complaint(model):
            raise SettingsError(f"{path}: {model.name}: {complaint}")
    return models


def _complaint(model: ModelSpec) -> str:
    """What is wrong with a model's values, "" when nothing is."""
    if not model.name:
        return "a model needs a name"
    if model.vision and model.engine != "vllm":
        return "only models on vLLM see images"
    if not 0 <= model.min_replicas <= model.max_replicas or model.max_replicas < 1 or model.slots < 1:
        return "0 <= min_replicas <= max_replicas, 1 <= max_replicas, 1 <= slots"
    own = (model.queued_per_replica, model.scale_up_after_ms, model.scale_down_after_ms)
    if model.surge not in (0, 1) or model.target_tokens_per_s < 0 or any((value or 0) < 0 for value in own):
        return "surge is 0 or 1, and what the pool is scaled by is not negative"
    if any(not name or amount <= 0 for name, amount in model.resources.items()):
        return "resources have names, and amounts above 0"
    return ""


class Derived(Mapping[str, MappedT]):
    """A mapping that is made from the catalogue, and made anew when that has changed."""

    def __init__(self, catalog: Catalog, make: Callable[[Catalog], Mapping[str, MappedT]]) -> None:
        self._now = make(catalog)

        def renew() -> None:
            self._now = make(catalog)

        catalog.subscribe(renew)

    def __getitem__(self, key: str) -> MappedT:
        return self._now[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now)

    def __len__(self) -> int:
        return len(self._now)


def checkpoint_directory(spec: ModelSpec, cache: Path) -> Path:
    """Where the model's tokenizer and weights lie: an existing folder as given, else in the cache."""
    given = Path(spec.checkpoint or spec.name).expanduser()
    return given if given.is_absolute() or given.is_dir() else cache / "models" / given
