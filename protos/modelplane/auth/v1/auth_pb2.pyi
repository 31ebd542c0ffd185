from modelplane.limits.v1 import limits_pb2 as _limits_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KeyKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_KIND_UNSPECIFIED: _ClassVar[KeyKind]
    KEY_KIND_PROJECT: _ClassVar[KeyKind]
    KEY_KIND_ADMIN: _ClassVar[KeyKind]
    KEY_KIND_SERVICE_ACCOUNT: _ClassVar[KeyKind]

class Access(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCESS_UNSPECIFIED: _ClassVar[Access]
    ACCESS_ALL: _ClassVar[Access]
    ACCESS_READ_ONLY: _ClassVar[Access]
    ACCESS_RESTRICTED: _ClassVar[Access]
KEY_KIND_UNSPECIFIED: KeyKind
KEY_KIND_PROJECT: KeyKind
KEY_KIND_ADMIN: KeyKind
KEY_KIND_SERVICE_ACCOUNT: KeyKind
ACCESS_UNSPECIFIED: Access
ACCESS_ALL: Access
ACCESS_READ_ONLY: Access
ACCESS_RESTRICTED: Access

class ModelPolicy(_message.Message):
    __slots__ = ("mode", "models")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[ModelPolicy.Mode]
        MODE_ALLOW_LIST: _ClassVar[ModelPolicy.Mode]
        MODE_DENY_LIST: _ClassVar[ModelPolicy.Mode]
    MODE_UNSPECIFIED: ModelPolicy.Mode
    MODE_ALLOW_LIST: ModelPolicy.Mode
    MODE_DENY_LIST: ModelPolicy.Mode
    MODE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    mode: ModelPolicy.Mode
    models: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, mode: _Optional[_Union[ModelPolicy.Mode, str]] = ..., models: _Optional[_Iterable[str]] = ...) -> None: ...

class Principal(_message.Message):
    __slots__ = ("organization_id", "project_id", "key_id", "kind", "owner_id", "access", "scopes", "usage_tier", "limits", "models", "ip_ranges", "expires_at_ms", "weight")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    USAGE_TIER_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    IP_RANGES_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    key_id: str
    kind: KeyKind
    owner_id: str
    access: Access
    scopes: _containers.RepeatedScalarFieldContainer[str]
    usage_tier: int
    limits: _containers.RepeatedCompositeFieldContainer[_limits_pb2.Override]
    models: ModelPolicy
    ip_ranges: _containers.RepeatedScalarFieldContainer[str]
    expires_at_ms: int
    weight: int
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., key_id: _Optional[str] = ..., kind: _Optional[_Union[KeyKind, str]] = ..., owner_id: _Optional[str] = ..., access: _Optional[_Union[Access, str]] = ..., scopes: _Optional[_Iterable[str]] = ..., usage_tier: _Optional[int] = ..., limits: _Optional[_Iterable[_Union[_limits_pb2.Override, _Mapping]]] = ..., models: _Optional[_Union[ModelPolicy, _Mapping]] = ..., ip_ranges: _Optional[_Iterable[str]] = ..., expires_at_ms: _Optional[int] = ..., weight: _Optional[int] = ...) -> None: ...

class AuthenticateRequest(_message.Message):
    __slots__ = ("key", "organization", "project", "address")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    key: str
    organization: str
    project: str
    address: str
    def __init__(self, key: _Optional[str] = ..., organization: _Optional[str] = ..., project: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class AuthenticateResponse(_message.Message):
    __slots__ = ("principal",)
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    principal: Principal
    def __init__(self, principal: _Optional[_Union[Principal, _Mapping]] = ...) -> None: ...
