from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Dimension(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIMENSION_UNSPECIFIED: _ClassVar[Dimension]
    DIMENSION_REQUESTS_PER_MINUTE: _ClassVar[Dimension]
    DIMENSION_REQUESTS_PER_DAY: _ClassVar[Dimension]
    DIMENSION_TOKENS_PER_MINUTE: _ClassVar[Dimension]
    DIMENSION_TOKENS_PER_DAY: _ClassVar[Dimension]
    DIMENSION_IMAGES_PER_MINUTE: _ClassVar[Dimension]
    DIMENSION_AUDIO_MEGABYTES_PER_MINUTE: _ClassVar[Dimension]
    DIMENSION_BATCH_TOKENS_PER_DAY: _ClassVar[Dimension]

class Scope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCOPE_UNSPECIFIED: _ClassVar[Scope]
    SCOPE_ORGANIZATION: _ClassVar[Scope]
    SCOPE_PROJECT: _ClassVar[Scope]
DIMENSION_UNSPECIFIED: Dimension
DIMENSION_REQUESTS_PER_MINUTE: Dimension
DIMENSION_REQUESTS_PER_DAY: Dimension
DIMENSION_TOKENS_PER_MINUTE: Dimension
DIMENSION_TOKENS_PER_DAY: Dimension
DIMENSION_IMAGES_PER_MINUTE: Dimension
DIMENSION_AUDIO_MEGABYTES_PER_MINUTE: Dimension
DIMENSION_BATCH_TOKENS_PER_DAY: Dimension
SCOPE_UNSPECIFIED: Scope
SCOPE_ORGANIZATION: Scope
SCOPE_PROJECT: Scope

class Override(_message.Message):
    __slots__ = ("scope", "model", "dimension", "limit")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    model: str
    dimension: Dimension
    limit: int
    def __init__(self, scope: _Optional[_Union[Scope, str]] = ..., model: _Optional[str] = ..., dimension: _Optional[_Union[Dimension, str]] = ..., limit: _Optional[int] = ...) -> None: ...
