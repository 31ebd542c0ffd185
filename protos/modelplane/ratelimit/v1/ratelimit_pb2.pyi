from modelplane.limits.v1 import limits_pb2 as _limits_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReserveRequest(_message.Message):
    __slots__ = ("request_id", "organization_id", "project_id", "model", "input_tokens", "max_output_tokens", "key_id", "usage_tier", "overrides", "images", "audio_bytes", "batch_tokens")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    USAGE_TIER_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    AUDIO_BYTES_FIELD_NUMBER: _ClassVar[int]
    BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    organization_id: str
    project_id: str
    model: str
    input_tokens: int
    max_output_tokens: int
    key_id: str
    usage_tier: int
    overrides: _containers.RepeatedCompositeFieldContainer[_limits_pb2.Override]
    images: int
    audio_bytes: int
    batch_tokens: int
    def __init__(self, request_id: _Optional[str] = ..., organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., model: _Optional[str] = ..., input_tokens: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., key_id: _Optional[str] = ..., usage_tier: _Optional[int] = ..., overrides: _Optional[_Iterable[_Union[_limits_pb2.Override, _Mapping]]] = ..., images: _Optional[int] = ..., audio_bytes: _Optional[int] = ..., batch_tokens: _Optional[int] = ...) -> None: ...

class BucketState(_message.Message):
    __slots__ = ("limit", "remaining", "reset_ms")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    RESET_MS_FIELD_NUMBER: _ClassVar[int]
    limit: int
    remaining: int
    reset_ms: int
    def __init__(self, limit: _Optional[int] = ..., remaining: _Optional[int] = ..., reset_ms: _Optional[int] = ...) -> None: ...

class Reservation(_message.Message):
    __slots__ = ("request_id", "tokens", "requests_state", "tokens_state")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_STATE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_STATE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tokens: int
    requests_state: BucketState
    tokens_state: BucketState
    def __init__(self, request_id: _Optional[str] = ..., tokens: _Optional[int] = ..., requests_state: _Optional[_Union[BucketState, _Mapping]] = ..., tokens_state: _Optional[_Union[BucketState, _Mapping]] = ...) -> None: ...

class ReserveResponse(_message.Message):
    __slots__ = ("reservation",)
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    reservation: Reservation
    def __init__(self, reservation: _Optional[_Union[Reservation, _Mapping]] = ...) -> None: ...

class TopUpRequest(_message.Message):
    __slots__ = ("request_id", "tokens")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tokens: int
    def __init__(self, request_id: _Optional[str] = ..., tokens: _Optional[int] = ...) -> None: ...

class TopUpResponse(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    def __init__(self, tokens: _Optional[int] = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ("request_id", "tokens")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tokens: int
    def __init__(self, request_id: _Optional[str] = ..., tokens: _Optional[int] = ...) -> None: ...

class SettleResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeLimitsRequest(_message.Message):
    __slots__ = ("usage_tier", "overrides")
    USAGE_TIER_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    usage_tier: int
    overrides: _containers.RepeatedCompositeFieldContainer[_limits_pb2.Override]
    def __init__(self, usage_tier: _Optional[int] = ..., overrides: _Optional[_Iterable[_Union[_limits_pb2.Override, _Mapping]]] = ...) -> None: ...

class Limit(_message.Message):
    __slots__ = ("scope", "dimension", "limit")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    scope: _limits_pb2.Scope
    dimension: _limits_pb2.Dimension
    limit: int
    def __init__(self, scope: _Optional[_Union[_limits_pb2.Scope, str]] = ..., dimension: _Optional[_Union[_limits_pb2.Dimension, str]] = ..., limit: _Optional[int] = ...) -> None: ...

class ModelLimits(_message.Message):
    __slots__ = ("model", "group", "limits")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    model: str
    group: str
    limits: _containers.RepeatedCompositeFieldContainer[Limit]
    def __init__(self, model: _Optional[str] = ..., group: _Optional[str] = ..., limits: _Optional[_Iterable[_Union[Limit, _Mapping]]] = ...) -> None: ...

class DescribeLimitsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelLimits]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelLimits, _Mapping]]] = ...) -> None: ...
