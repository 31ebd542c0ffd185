from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Actor(_message.Message):
    __slots__ = ("key_id", "redacted_key", "owner_id", "ip_address", "user_agent", "request_id")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    REDACTED_KEY_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    IP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    redacted_key: str
    owner_id: str
    ip_address: str
    user_agent: str
    request_id: str
    def __init__(self, key_id: _Optional[str] = ..., redacted_key: _Optional[str] = ..., owner_id: _Optional[str] = ..., ip_address: _Optional[str] = ..., user_agent: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class Page(_message.Message):
    __slots__ = ("after", "before", "limit", "ascending")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ASCENDING_FIELD_NUMBER: _ClassVar[int]
    after: str
    before: str
    limit: int
    ascending: bool
    def __init__(self, after: _Optional[str] = ..., before: _Optional[str] = ..., limit: _Optional[int] = ..., ascending: _Optional[bool] = ...) -> None: ...
