from modelplane.admin.v1 import admin_pb2 as _admin_pb2
from modelplane.auth.v1 import auth_pb2 as _auth_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OwnerAccess(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OWNER_ACCESS_UNSPECIFIED: _ClassVar[OwnerAccess]
    OWNER_ACCESS_ACTIVE: _ClassVar[OwnerAccess]
    OWNER_ACCESS_INACTIVE: _ClassVar[OwnerAccess]
OWNER_ACCESS_UNSPECIFIED: OwnerAccess
OWNER_ACCESS_ACTIVE: OwnerAccess
OWNER_ACCESS_INACTIVE: OwnerAccess

class Key(_message.Message):
    __slots__ = ("id", "organization_id", "project_id", "kind", "name", "redacted", "owner_id", "owner_name", "owner_email", "owner_role", "owner_created_at", "access", "scopes", "created_at", "last_used_at", "expires_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REDACTED_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_EMAIL_FIELD_NUMBER: _ClassVar[int]
    OWNER_ROLE_FIELD_NUMBER: _ClassVar[int]
    OWNER_CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    organization_id: str
    project_id: str
    kind: _auth_pb2.KeyKind
    name: str
    redacted: str
    owner_id: str
    owner_name: str
    owner_email: str
    owner_role: str
    owner_created_at: int
    access: _auth_pb2.Access
    scopes: _containers.RepeatedScalarFieldContainer[str]
    created_at: int
    last_used_at: int
    expires_at: int
    def __init__(self, id: _Optional[str] = ..., organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., kind: _Optional[_Union[_auth_pb2.KeyKind, str]] = ..., name: _Optional[str] = ..., redacted: _Optional[str] = ..., owner_id: _Optional[str] = ..., owner_name: _Optional[str] = ..., owner_email: _Optional[str] = ..., owner_role: _Optional[str] = ..., owner_created_at: _Optional[int] = ..., access: _Optional[_Union[_auth_pb2.Access, str]] = ..., scopes: _Optional[_Iterable[str]] = ..., created_at: _Optional[int] = ..., last_used_at: _Optional[int] = ..., expires_at: _Optional[int] = ...) -> None: ...

class ServiceAccount(_message.Message):
    __slots__ = ("id", "organization_id", "project_id", "name", "role", "created_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    organization_id: str
    project_id: str
    name: str
    role: str
    created_at: int
    def __init__(self, id: _Optional[str] = ..., organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[str] = ..., created_at: _Optional[int] = ...) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    def __init__(self, digest: _Optional[bytes] = ...) -> None: ...

class ResolveResponse(_message.Message):
    __slots__ = ("principal",)
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    principal: _auth_pb2.Principal
    def __init__(self, principal: _Optional[_Union[_auth_pb2.Principal, _Mapping]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("all", "organization_id", "project_id", "key_id", "revoked")
    ALL_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    all: bool
    organization_id: str
    project_id: str
    key_id: str
    revoked: bool
    def __init__(self, all: _Optional[bool] = ..., organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., key_id: _Optional[str] = ..., revoked: _Optional[bool] = ...) -> None: ...

class TouchRequest(_message.Message):
    __slots__ = ("used_at_ms",)
    class UsedAtMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    USED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    used_at_ms: _containers.ScalarMap[str, int]
    def __init__(self, used_at_ms: _Optional[_Mapping[str, int]] = ...) -> None: ...

class TouchResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateKeyRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "kind", "name", "owner_id", "access", "scopes", "expires_at", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    kind: _auth_pb2.KeyKind
    name: str
    owner_id: str
    access: _auth_pb2.Access
    scopes: _containers.RepeatedScalarFieldContainer[str]
    expires_at: int
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., kind: _Optional[_Union[_auth_pb2.KeyKind, str]] = ..., name: _Optional[str] = ..., owner_id: _Optional[str] = ..., access: _Optional[_Union[_auth_pb2.Access, str]] = ..., scopes: _Optional[_Iterable[str]] = ..., expires_at: _Optional[int] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class CreateKeyResponse(_message.Message):
    __slots__ = ("key", "secret")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    key: Key
    secret: str
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., secret: _Optional[str] = ...) -> None: ...

class GetKeyRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "key_id")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    key_id: str
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., key_id: _Optional[str] = ...) -> None: ...

class GetKeyResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: Key
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ...) -> None: ...

class ListKeysRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "page", "owner_access")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    OWNER_ACCESS_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    page: _admin_pb2.Page
    owner_access: OwnerAccess
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., page: _Optional[_Union[_admin_pb2.Page, _Mapping]] = ..., owner_access: _Optional[_Union[OwnerAccess, str]] = ...) -> None: ...

class ListKeysResponse(_message.Message):
    __slots__ = ("keys", "has_more")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[Key]
    has_more: bool
    def __init__(self, keys: _Optional[_Iterable[_Union[Key, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class RevokeKeyRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "key_id", "actor", "kind")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    key_id: str
    actor: _admin_pb2.Actor
    kind: _auth_pb2.KeyKind
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., key_id: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ..., kind: _Optional[_Union[_auth_pb2.KeyKind, str]] = ...) -> None: ...

class RevokeKeyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateServiceAccountRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "name", "role", "with_key", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    WITH_KEY_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    name: str
    role: str
    with_key: bool
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[str] = ..., with_key: _Optional[bool] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class CreateServiceAccountResponse(_message.Message):
    __slots__ = ("service_account", "key", "secret")
    SERVICE_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    service_account: ServiceAccount
    key: Key
    secret: str
    def __init__(self, service_account: _Optional[_Union[ServiceAccount, _Mapping]] = ..., key: _Optional[_Union[Key, _Mapping]] = ..., secret: _Optional[str] = ...) -> None: ...

class GetServiceAccountRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "service_account_id")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    service_account_id: str
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., service_account_id: _Optional[str] = ...) -> None: ...

class GetServiceAccountResponse(_message.Message):
    __slots__ = ("service_account",)
    SERVICE_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    service_account: ServiceAccount
    def __init__(self, service_account: _Optional[_Union[ServiceAccount, _Mapping]] = ...) -> None: ...

class ListServiceAccountsRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "page")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    page: _admin_pb2.Page
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., page: _Optional[_Union[_admin_pb2.Page, _Mapping]] = ...) -> None: ...

class ListServiceAccountsResponse(_message.Message):
    __slots__ = ("service_accounts", "has_more")
    SERVICE_ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    service_accounts: _containers.RepeatedCompositeFieldContainer[ServiceAccount]
    has_more: bool
    def __init__(self, service_accounts: _Optional[_Iterable[_Union[ServiceAccount, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class UpdateServiceAccountRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "service_account_id", "name", "role", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    service_account_id: str
    name: str
    role: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., service_account_id: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class UpdateServiceAccountResponse(_message.Message):
    __slots__ = ("service_account",)
    SERVICE_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    service_account: ServiceAccount
    def __init__(self, service_account: _Optional[_Union[ServiceAccount, _Mapping]] = ...) -> None: ...

class DeleteServiceAccountRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "service_account_id", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    service_account_id: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., service_account_id: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class DeleteServiceAccountResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
