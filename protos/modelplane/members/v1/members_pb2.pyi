from modelplane.admin.v1 import admin_pb2 as _admin_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class User(_message.Message):
    __slots__ = ("id", "name", "email", "role", "added_at", "created_at", "key_last_used_at", "projects")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ADDED_AT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    KEY_LAST_USED_AT_FIELD_NUMBER: _ClassVar[int]
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    email: str
    role: str
    added_at: int
    created_at: int
    key_last_used_at: int
    projects: _containers.RepeatedCompositeFieldContainer[ProjectRole]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., email: _Optional[str] = ..., role: _Optional[str] = ..., added_at: _Optional[int] = ..., created_at: _Optional[int] = ..., key_last_used_at: _Optional[int] = ..., projects: _Optional[_Iterable[_Union[ProjectRole, _Mapping]]] = ...) -> None: ...

class ProjectRole(_message.Message):
    __slots__ = ("project_id", "project_name", "role")
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    project_name: str
    role: str
    def __init__(self, project_id: _Optional[str] = ..., project_name: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class ProjectUser(_message.Message):
    __slots__ = ("id", "name", "email", "role", "added_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ADDED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    email: str
    role: str
    added_at: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., email: _Optional[str] = ..., role: _Optional[str] = ..., added_at: _Optional[int] = ...) -> None: ...

class Invite(_message.Message):
    __slots__ = ("id", "email", "role", "status", "created_at", "expires_at", "accepted_at", "projects")
    ID_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_AT_FIELD_NUMBER: _ClassVar[int]
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    email: str
    role: str
    status: str
    created_at: int
    expires_at: int
    accepted_at: int
    projects: _containers.RepeatedCompositeFieldContainer[ProjectRole]
    def __init__(self, id: _Optional[str] = ..., email: _Optional[str] = ..., role: _Optional[str] = ..., status: _Optional[str] = ..., created_at: _Optional[int] = ..., expires_at: _Optional[int] = ..., accepted_at: _Optional[int] = ..., projects: _Optional[_Iterable[_Union[ProjectRole, _Mapping]]] = ...) -> None: ...

class AddUserRequest(_message.Message):
    __slots__ = ("organization_id", "email", "name", "role", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    email: str
    name: str
    role: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., email: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class AddUserResponse(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: User
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ...) -> None: ...

class GetUserRequest(_message.Message):
    __slots__ = ("organization_id", "user_id")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    user_id: str
    def __init__(self, organization_id: _Optional[str] = ..., user_id: _Optional[str] = ...) -> None: ...

class GetUserResponse(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: User
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ...) -> None: ...

class ListUsersRequest(_message.Message):
    __slots__ = ("organization_id", "page", "emails")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    EMAILS_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    page: _admin_pb2.Page
    emails: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, organization_id: _Optional[str] = ..., page: _Optional[_Union[_admin_pb2.Page, _Mapping]] = ..., emails: _Optional[_Iterable[str]] = ...) -> None: ...

class ListUsersResponse(_message.Message):
    __slots__ = ("users", "has_more")
    USERS_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[User]
    has_more: bool
    def __init__(self, users: _Optional[_Iterable[_Union[User, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class UpdateUserRequest(_message.Message):
    __slots__ = ("organization_id", "user_id", "role", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    user_id: str
    role: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., user_id: _Optional[str] = ..., role: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class UpdateUserResponse(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: User
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ...) -> None: ...

class RemoveUserRequest(_message.Message):
    __slots__ = ("organization_id", "user_id", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    user_id: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., user_id: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class RemoveUserResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AddProjectUserRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "user_id", "email", "role", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    user_id: str
    email: str
    role: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., user_id: _Optional[str] = ..., email: _Optional[str] = ..., role: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class AddProjectUserResponse(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: ProjectUser
    def __init__(self, user: _Optional[_Union[ProjectUser, _Mapping]] = ...) -> None: ...

class GetProjectUserRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "user_id")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    user_id: str
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., user_id: _Optional[str] = ...) -> None: ...

class GetProjectUserResponse(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: ProjectUser
    def __init__(self, user: _Optional[_Union[ProjectUser, _Mapping]] = ...) -> None: ...

class ListProjectUsersRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "page")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    page: _admin_pb2.Page
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., page: _Optional[_Union[_admin_pb2.Page, _Mapping]] = ...) -> None: ...

class ListProjectUsersResponse(_message.Message):
    __slots__ = ("users", "has_more")
    USERS_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[ProjectUser]
    has_more: bool
    def __init__(self, users: _Optional[_Iterable[_Union[ProjectUser, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class UpdateProjectUserRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "user_id", "role", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    user_id: str
    role: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., user_id: _Optional[str] = ..., role: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class UpdateProjectUserResponse(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: ProjectUser
    def __init__(self, user: _Optional[_Union[ProjectUser, _Mapping]] = ...) -> None: ...

class RemoveProjectUserRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "user_id", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    user_id: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., user_id: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class RemoveProjectUserResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateInviteRequest(_message.Message):
    __slots__ = ("organization_id", "email", "role", "projects", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    email: str
    role: str
    projects: _containers.RepeatedCompositeFieldContainer[ProjectRole]
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., email: _Optional[str] = ..., role: _Optional[str] = ..., projects: _Optional[_Iterable[_Union[ProjectRole, _Mapping]]] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class CreateInviteResponse(_message.Message):
    __slots__ = ("invite",)
    INVITE_FIELD_NUMBER: _ClassVar[int]
    invite: Invite
    def __init__(self, invite: _Optional[_Union[Invite, _Mapping]] = ...) -> None: ...

class GetInviteRequest(_message.Message):
    __slots__ = ("organization_id", "invite_id")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    INVITE_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    invite_id: str
    def __init__(self, organization_id: _Optional[str] = ..., invite_id: _Optional[str] = ...) -> None: ...

class GetInviteResponse(_message.Message):
    __slots__ = ("invite",)
    INVITE_FIELD_NUMBER: _ClassVar[int]
    invite: Invite
    def __init__(self, invite: _Optional[_Union[Invite, _Mapping]] = ...) -> None: ...

class ListInvitesRequest(_message.Message):
    __slots__ = ("organization_id", "page")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    page: _admin_pb2.Page
    def __init__(self, organization_id: _Optional[str] = ..., page: _Optional[_Union[_admin_pb2.Page, _Mapping]] = ...) -> None: ...

class ListInvitesResponse(_message.Message):
    __slots__ = ("invites", "has_more")
    INVITES_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    invites: _containers.RepeatedCompositeFieldContainer[Invite]
    has_more: bool
    def __init__(self, invites: _Optional[_Iterable[_Union[Invite, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class DeleteInviteRequest(_message.Message):
    __slots__ = ("organization_id", "invite_id", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    INVITE_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    invite_id: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., invite_id: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class DeleteInviteResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AcceptInviteRequest(_message.Message):
    __slots__ = ("organization_id", "invite_id", "name", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    INVITE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    invite_id: str
    name: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., invite_id: _Optional[str] = ..., name: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class AcceptInviteResponse(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: User
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ...) -> None: ...
