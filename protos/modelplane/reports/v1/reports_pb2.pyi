from modelplane.usage.v1 import usage_pb2 as _usage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Endpoint(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENDPOINT_UNSPECIFIED: _ClassVar[Endpoint]
    ENDPOINT_COMPLETIONS: _ClassVar[Endpoint]
    ENDPOINT_EMBEDDINGS: _ClassVar[Endpoint]
    ENDPOINT_MODERATIONS: _ClassVar[Endpoint]
    ENDPOINT_IMAGES: _ClassVar[Endpoint]
    ENDPOINT_AUDIO_SPEECHES: _ClassVar[Endpoint]
    ENDPOINT_AUDIO_TRANSCRIPTIONS: _ClassVar[Endpoint]
    ENDPOINT_VECTOR_STORES: _ClassVar[Endpoint]
    ENDPOINT_CODE_INTERPRETER_SESSIONS: _ClassVar[Endpoint]
    ENDPOINT_FILE_SEARCH_CALLS: _ClassVar[Endpoint]
    ENDPOINT_WEB_SEARCH_CALLS: _ClassVar[Endpoint]
ENDPOINT_UNSPECIFIED: Endpoint
ENDPOINT_COMPLETIONS: Endpoint
ENDPOINT_EMBEDDINGS: Endpoint
ENDPOINT_MODERATIONS: Endpoint
ENDPOINT_IMAGES: Endpoint
ENDPOINT_AUDIO_SPEECHES: Endpoint
ENDPOINT_AUDIO_TRANSCRIPTIONS: Endpoint
ENDPOINT_VECTOR_STORES: Endpoint
ENDPOINT_CODE_INTERPRETER_SESSIONS: Endpoint
ENDPOINT_FILE_SEARCH_CALLS: Endpoint
ENDPOINT_WEB_SEARCH_CALLS: Endpoint

class Filters(_message.Message):
    __slots__ = ("project_ids", "user_ids", "api_key_ids", "models", "batch", "sources", "sizes")
    PROJECT_IDS_FIELD_NUMBER: _ClassVar[int]
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    API_KEY_IDS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    project_ids: _containers.RepeatedScalarFieldContainer[str]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    api_key_ids: _containers.RepeatedScalarFieldContainer[str]
    models: _containers.RepeatedScalarFieldContainer[str]
    batch: bool
    sources: _containers.RepeatedScalarFieldContainer[str]
    sizes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, project_ids: _Optional[_Iterable[str]] = ..., user_ids: _Optional[_Iterable[str]] = ..., api_key_ids: _Optional[_Iterable[str]] = ..., models: _Optional[_Iterable[str]] = ..., batch: _Optional[bool] = ..., sources: _Optional[_Iterable[str]] = ..., sizes: _Optional[_Iterable[str]] = ...) -> None: ...

class QueryUsageRequest(_message.Message):
    __slots__ = ("organization_id", "endpoint", "start_time", "end_time", "bucket_s", "filters", "group_by", "limit", "page")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    BUCKET_S_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    endpoint: Endpoint
    start_time: int
    end_time: int
    bucket_s: int
    filters: Filters
    group_by: _containers.RepeatedScalarFieldContainer[str]
    limit: int
    page: str
    def __init__(self, organization_id: _Optional[str] = ..., endpoint: _Optional[_Union[Endpoint, str]] = ..., start_time: _Optional[int] = ..., end_time: _Optional[int] = ..., bucket_s: _Optional[int] = ..., filters: _Optional[_Union[Filters, _Mapping]] = ..., group_by: _Optional[_Iterable[str]] = ..., limit: _Optional[int] = ..., page: _Optional[str] = ...) -> None: ...

class UsageResult(_message.Message):
    __slots__ = ("project_id", "user_id", "api_key_id", "model", "batch", "service_tier", "size", "source", "requests", "input_tokens", "cached_input_tokens", "cache_write_tokens", "input_audio_tokens", "input_image_tokens", "output_tokens", "output_audio_tokens", "output_image_tokens", "images", "audio_ms", "characters", "tool_calls", "stored_byte_seconds")
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    API_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TIER_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_WRITE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INPUT_AUDIO_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INPUT_IMAGE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_AUDIO_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_IMAGE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    AUDIO_MS_FIELD_NUMBER: _ClassVar[int]
    CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    user_id: str
    api_key_id: str
    model: str
    batch: bool
    service_tier: str
    size: str
    source: str
    requests: int
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    input_audio_tokens: int
    input_image_tokens: int
    output_tokens: int
    output_audio_tokens: int
    output_image_tokens: int
    images: int
    audio_ms: int
    characters: int
    tool_calls: int
    stored_byte_seconds: int
    def __init__(self, project_id: _Optional[str] = ..., user_id: _Optional[str] = ..., api_key_id: _Optional[str] = ..., model: _Optional[str] = ..., batch: _Optional[bool] = ..., service_tier: _Optional[str] = ..., size: _Optional[str] = ..., source: _Optional[str] = ..., requests: _Optional[int] = ..., input_tokens: _Optional[int] = ..., cached_input_tokens: _Optional[int] = ..., cache_write_tokens: _Optional[int] = ..., input_audio_tokens: _Optional[int] = ..., input_image_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., output_audio_tokens: _Optional[int] = ..., output_image_tokens: _Optional[int] = ..., images: _Optional[int] = ..., audio_ms: _Optional[int] = ..., characters: _Optional[int] = ..., tool_calls: _Optional[int] = ..., stored_byte_seconds: _Optional[int] = ...) -> None: ...

class UsageBucket(_message.Message):
    __slots__ = ("start_time", "end_time", "results")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    start_time: int
    end_time: int
    results: _containers.RepeatedCompositeFieldContainer[UsageResult]
    def __init__(self, start_time: _Optional[int] = ..., end_time: _Optional[int] = ..., results: _Optional[_Iterable[_Union[UsageResult, _Mapping]]] = ...) -> None: ...

class QueryUsageResponse(_message.Message):
    __slots__ = ("buckets", "next_page")
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    buckets: _containers.RepeatedCompositeFieldContainer[UsageBucket]
    next_page: str
    def __init__(self, buckets: _Optional[_Iterable[_Union[UsageBucket, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class QueryCostsRequest(_message.Message):
    __slots__ = ("organization_id", "start_time", "end_time", "project_ids", "api_key_ids", "group_by", "limit", "page")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    PROJECT_IDS_FIELD_NUMBER: _ClassVar[int]
    API_KEY_IDS_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    start_time: int
    end_time: int
    project_ids: _containers.RepeatedScalarFieldContainer[str]
    api_key_ids: _containers.RepeatedScalarFieldContainer[str]
    group_by: _containers.RepeatedScalarFieldContainer[str]
    limit: int
    page: str
    def __init__(self, organization_id: _Optional[str] = ..., start_time: _Optional[int] = ..., end_time: _Optional[int] = ..., project_ids: _Optional[_Iterable[str]] = ..., api_key_ids: _Optional[_Iterable[str]] = ..., group_by: _Optional[_Iterable[str]] = ..., limit: _Optional[int] = ..., page: _Optional[str] = ...) -> None: ...

class CostResult(_message.Message):
    __slots__ = ("project_id", "api_key_id", "line_item", "nanodollars", "quantity", "quantity_unit")
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    API_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    LINE_ITEM_FIELD_NUMBER: _ClassVar[int]
    NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_UNIT_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    api_key_id: str
    line_item: str
    nanodollars: int
    quantity: float
    quantity_unit: str
    def __init__(self, project_id: _Optional[str] = ..., api_key_id: _Optional[str] = ..., line_item: _Optional[str] = ..., nanodollars: _Optional[int] = ..., quantity: _Optional[float] = ..., quantity_unit: _Optional[str] = ...) -> None: ...

class CostBucket(_message.Message):
    __slots__ = ("start_time", "end_time", "results")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    start_time: int
    end_time: int
    results: _containers.RepeatedCompositeFieldContainer[CostResult]
    def __init__(self, start_time: _Optional[int] = ..., end_time: _Optional[int] = ..., results: _Optional[_Iterable[_Union[CostResult, _Mapping]]] = ...) -> None: ...

class QueryCostsResponse(_message.Message):
    __slots__ = ("buckets", "next_page")
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    buckets: _containers.RepeatedCompositeFieldContainer[CostBucket]
    next_page: str
    def __init__(self, buckets: _Optional[_Iterable[_Union[CostBucket, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class ExportUsageRequest(_message.Message):
    __slots__ = ("organization_id", "start_time", "end_time")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    start_time: int
    end_time: int
    def __init__(self, organization_id: _Optional[str] = ..., start_time: _Optional[int] = ..., end_time: _Optional[int] = ...) -> None: ...

class ExportUsageResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[PricedUsage]
    def __init__(self, records: _Optional[_Iterable[_Union[PricedUsage, _Mapping]]] = ...) -> None: ...

class PricedUsage(_message.Message):
    __slots__ = ("usage", "nanodollars", "price_id")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    PRICE_ID_FIELD_NUMBER: _ClassVar[int]
    usage: _usage_pb2.Usage
    nanodollars: int
    price_id: int
    def __init__(self, usage: _Optional[_Union[_usage_pb2.Usage, _Mapping]] = ..., nanodollars: _Optional[int] = ..., price_id: _Optional[int] = ...) -> None: ...

class RebuildRequest(_message.Message):
    __slots__ = ("start_time", "end_time")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    start_time: int
    end_time: int
    def __init__(self, start_time: _Optional[int] = ..., end_time: _Optional[int] = ...) -> None: ...

class RebuildResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: int
    def __init__(self, records: _Optional[int] = ...) -> None: ...
