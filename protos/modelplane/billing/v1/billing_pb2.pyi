from modelplane.usage.v1 import usage_pb2 as _usage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HoldRequest(_message.Message):
    __slots__ = ("request_id", "attribution", "model", "service_tier", "batch", "input_tokens", "expected_output_tokens", "max_output_tokens", "also")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TIER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ALSO_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    attribution: _usage_pb2.Attribution
    model: str
    service_tier: str
    batch: bool
    input_tokens: int
    expected_output_tokens: int
    max_output_tokens: int
    also: _usage_pb2.Usage
    def __init__(self, request_id: _Optional[str] = ..., attribution: _Optional[_Union[_usage_pb2.Attribution, _Mapping]] = ..., model: _Optional[str] = ..., service_tier: _Optional[str] = ..., batch: _Optional[bool] = ..., input_tokens: _Optional[int] = ..., expected_output_tokens: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., also: _Optional[_Union[_usage_pb2.Usage, _Mapping]] = ...) -> None: ...

class HoldResponse(_message.Message):
    __slots__ = ("output_tokens",)
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    output_tokens: int
    def __init__(self, output_tokens: _Optional[int] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("request_id", "output_tokens")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    output_tokens: int
    def __init__(self, request_id: _Optional[str] = ..., output_tokens: _Optional[int] = ...) -> None: ...

class ExtendResponse(_message.Message):
    __slots__ = ("output_tokens",)
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    output_tokens: int
    def __init__(self, output_tokens: _Optional[int] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ("usages",)
    USAGES_FIELD_NUMBER: _ClassVar[int]
    usages: _containers.RepeatedCompositeFieldContainer[_usage_pb2.Usage]
    def __init__(self, usages: _Optional[_Iterable[_Union[_usage_pb2.Usage, _Mapping]]] = ...) -> None: ...

class CheckpointResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RecordRequest(_message.Message):
    __slots__ = ("usages",)
    USAGES_FIELD_NUMBER: _ClassVar[int]
    usages: _containers.RepeatedCompositeFieldContainer[_usage_pb2.Usage]
    def __init__(self, usages: _Optional[_Iterable[_Union[_usage_pb2.Usage, _Mapping]]] = ...) -> None: ...

class RecordResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetUsageRequest(_message.Message):
    __slots__ = ("organization_id", "request_id")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    request_id: str
    def __init__(self, organization_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetUsageResponse(_message.Message):
    __slots__ = ("usage", "nanodollars")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    usage: _usage_pb2.Usage
    nanodollars: int
    def __init__(self, usage: _Optional[_Union[_usage_pb2.Usage, _Mapping]] = ..., nanodollars: _Optional[int] = ...) -> None: ...
