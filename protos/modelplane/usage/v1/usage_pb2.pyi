from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_COMPLETED: _ClassVar[Outcome]
    OUTCOME_ABORTED: _ClassVar[Outcome]
    OUTCOME_FAILED: _ClassVar[Outcome]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_COMPLETED: Outcome
OUTCOME_ABORTED: Outcome
OUTCOME_FAILED: Outcome

class Attribution(_message.Message):
    __slots__ = ("organization_id", "project_id", "key_id", "user_id")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    key_id: str
    user_id: str
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., key_id: _Optional[str] = ..., user_id: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("request_id", "attribution", "model", "service_tier", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "outcome", "started_at_ms", "finished_at_ms", "operation", "input_image_tokens", "cache_write_tokens", "input_audio_tokens", "output_audio_tokens", "output_image_tokens", "images", "image_size", "image_quality", "audio_ms", "characters", "tools", "stored_byte_seconds", "batch")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TIER_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    INPUT_IMAGE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_WRITE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INPUT_AUDIO_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_AUDIO_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_IMAGE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_QUALITY_FIELD_NUMBER: _ClassVar[int]
    AUDIO_MS_FIELD_NUMBER: _ClassVar[int]
    CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    attribution: Attribution
    model: str
    service_tier: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    outcome: Outcome
    started_at_ms: int
    finished_at_ms: int
    operation: str
    input_image_tokens: int
    cache_write_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    output_image_tokens: int
    images: int
    image_size: str
    image_quality: str
    audio_ms: int
    characters: int
    tools: _containers.RepeatedCompositeFieldContainer[ToolUsage]
    stored_byte_seconds: int
    batch: bool
    def __init__(self, request_id: _Optional[str] = ..., attribution: _Optional[_Union[Attribution, _Mapping]] = ..., model: _Optional[str] = ..., service_tier: _Optional[str] = ..., input_tokens: _Optional[int] = ..., cached_input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., reasoning_tokens: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., started_at_ms: _Optional[int] = ..., finished_at_ms: _Optional[int] = ..., operation: _Optional[str] = ..., input_image_tokens: _Optional[int] = ..., cache_write_tokens: _Optional[int] = ..., input_audio_tokens: _Optional[int] = ..., output_audio_tokens: _Optional[int] = ..., output_image_tokens: _Optional[int] = ..., images: _Optional[int] = ..., image_size: _Optional[str] = ..., image_quality: _Optional[str] = ..., audio_ms: _Optional[int] = ..., characters: _Optional[int] = ..., tools: _Optional[_Iterable[_Union[ToolUsage, _Mapping]]] = ..., stored_byte_seconds: _Optional[int] = ..., batch: _Optional[bool] = ...) -> None: ...

class ToolUsage(_message.Message):
    __slots__ = ("tool", "calls")
    TOOL_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    tool: str
    calls: int
    def __init__(self, tool: _Optional[str] = ..., calls: _Optional[int] = ...) -> None: ...
