from modelplane.admin.v1 import admin_pb2 as _admin_pb2
from modelplane.auth.v1 import auth_pb2 as _auth_pb2
from modelplane.limits.v1 import limits_pb2 as _limits_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Organization(_message.Message):
    __slots__ = ("id", "name", "created_at", "usage_tier", "tier_pinned", "paid_nanodollars", "first_paid_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    USAGE_TIER_FIELD_NUMBER: _ClassVar[int]
    TIER_PINNED_FIELD_NUMBER: _ClassVar[int]
    PAID_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    FIRST_PAID_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    created_at: int
    usage_tier: int
    tier_pinned: bool
    paid_nanodollars: int
    first_paid_at: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., created_at: _Optional[int] = ..., usage_tier: _Optional[int] = ..., tier_pinned: _Optional[bool] = ..., paid_nanodollars: _Optional[int] = ..., first_paid_at: _Optional[int] = ...) -> None: ...

class Project(_message.Message):
    __slots__ = ("id", "organization_id", "name", "created_at", "archived_at", "models", "ip_ranges", "weight", "external_key_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_AT_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    IP_RANGES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    organization_id: str
    name: str
    created_at: int
    archived_at: int
    models: _auth_pb2.ModelPolicy
    ip_ranges: _containers.RepeatedScalarFieldContainer[str]
    weight: int
    external_key_id: str
    def __init__(self, id: _Optional[str] = ..., organization_id: _Optional[str] = ..., name: _Optional[str] = ..., created_at: _Optional[int] = ..., archived_at: _Optional[int] = ..., models: _Optional[_Union[_auth_pb2.ModelPolicy, _Mapping]] = ..., ip_ranges: _Optional[_Iterable[str]] = ..., weight: _Optional[int] = ..., external_key_id: _Optional[str] = ...) -> None: ...

class SpendLimit(_message.Message):
    __slots__ = ("threshold_cents", "enforcing")
    THRESHOLD_CENTS_FIELD_NUMBER: _ClassVar[int]
    ENFORCING_FIELD_NUMBER: _ClassVar[int]
    threshold_cents: int
    enforcing: bool
    def __init__(self, threshold_cents: _Optional[int] = ..., enforcing: _Optional[bool] = ...) -> None: ...

class SpendAlert(_message.Message):
    __slots__ = ("id", "threshold_cents", "email_recipients", "subject_prefix", "webhook_url", "created_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_CENTS_FIELD_NUMBER: _ClassVar[int]
    EMAIL_RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    WEBHOOK_URL_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    threshold_cents: int
    email_recipients: _containers.RepeatedScalarFieldContainer[str]
    subject_prefix: str
    webhook_url: str
    created_at: int
    def __init__(self, id: _Optional[str] = ..., threshold_cents: _Optional[int] = ..., email_recipients: _Optional[_Iterable[str]] = ..., subject_prefix: _Optional[str] = ..., webhook_url: _Optional[str] = ..., created_at: _Optional[int] = ...) -> None: ...

class AuditEvent(_message.Message):
    __slots__ = ("id", "type", "effective_at", "actor", "project_id", "project_name", "resource_id", "details_json")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_AT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_NAME_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    DETAILS_JSON_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    effective_at: int
    actor: _admin_pb2.Actor
    project_id: str
    project_name: str
    resource_id: str
    details_json: bytes
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., effective_at: _Optional[int] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ..., project_id: _Optional[str] = ..., project_name: _Optional[str] = ..., resource_id: _Optional[str] = ..., details_json: _Optional[bytes] = ...) -> None: ...

class BootstrapRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BootstrapResponse(_message.Message):
    __slots__ = ("created", "organization_id", "project_id")
    CREATED_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    created: bool
    organization_id: str
    project_id: str
    def __init__(self, created: _Optional[bool] = ..., organization_id: _Optional[str] = ..., project_id: _Optional[str] = ...) -> None: ...

class CreateOrganizationRequest(_message.Message):
    __slots__ = ("name", "actor")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    actor: _admin_pb2.Actor
    def __init__(self, name: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class CreateOrganizationResponse(_message.Message):
    __slots__ = ("organization", "project")
    ORGANIZATION_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    organization: Organization
    project: Project
    def __init__(self, organization: _Optional[_Union[Organization, _Mapping]] = ..., project: _Optional[_Union[Project, _Mapping]] = ...) -> None: ...

class GetOrganizationRequest(_message.Message):
    __slots__ = ("organization_id",)
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    def __init__(self, organization_id: _Optional[str] = ...) -> None: ...

class GetOrganizationResponse(_message.Message):
    __slots__ = ("organization",)
    ORGANIZATION_FIELD_NUMBER: _ClassVar[int]
    organization: Organization
    def __init__(self, organization: _Optional[_Union[Organization, _Mapping]] = ...) -> None: ...

class ListOrganizationsRequest(_message.Message):
    __slots__ = ("page",)
    PAGE_FIELD_NUMBER: _ClassVar[int]
    page: _admin_pb2.Page
    def __init__(self, page: _Optional[_Union[_admin_pb2.Page, _Mapping]] = ...) -> None: ...

class ListOrganizationsResponse(_message.Message):
    __slots__ = ("organizations", "has_more")
    ORGANIZATIONS_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    organizations: _containers.RepeatedCompositeFieldContainer[Organization]
    has_more: bool
    def __init__(self, organizations: _Optional[_Iterable[_Union[Organization, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class PinTierRequest(_message.Message):
    __slots__ = ("organization_id", "usage_tier", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    USAGE_TIER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    usage_tier: int
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., usage_tier: _Optional[int] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class PinTierResponse(_message.Message):
    __slots__ = ("organization",)
    ORGANIZATION_FIELD_NUMBER: _ClassVar[int]
    organization: Organization
    def __init__(self, organization: _Optional[_Union[Organization, _Mapping]] = ...) -> None: ...

class RecordPaymentRequest(_message.Message):
    __slots__ = ("organization_id", "payment_id", "amount_nanodollars", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PAYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    payment_id: str
    amount_nanodollars: int
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., payment_id: _Optional[str] = ..., amount_nanodollars: _Optional[int] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class RecordPaymentResponse(_message.Message):
    __slots__ = ("organization",)
    ORGANIZATION_FIELD_NUMBER: _ClassVar[int]
    organization: Organization
    def __init__(self, organization: _Optional[_Union[Organization, _Mapping]] = ...) -> None: ...

class CreateProjectRequest(_message.Message):
    __slots__ = ("organization_id", "name", "external_key_id", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    name: str
    external_key_id: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., name: _Optional[str] = ..., external_key_id: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class CreateProjectResponse(_message.Message):
    __slots__ = ("project",)
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    project: Project
    def __init__(self, project: _Optional[_Union[Project, _Mapping]] = ...) -> None: ...

class GetProjectRequest(_message.Message):
    __slots__ = ("organization_id", "project_id")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ...) -> None: ...

class GetProjectResponse(_message.Message):
    __slots__ = ("project",)
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    project: Project
    def __init__(self, project: _Optional[_Union[Project, _Mapping]] = ...) -> None: ...

class ListProjectsRequest(_message.Message):
    __slots__ = ("organization_id", "include_archived", "page")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    include_archived: bool
    page: _admin_pb2.Page
    def __init__(self, organization_id: _Optional[str] = ..., include_archived: _Optional[bool] = ..., page: _Optional[_Union[_admin_pb2.Page, _Mapping]] = ...) -> None: ...

class ListProjectsResponse(_message.Message):
    __slots__ = ("projects", "has_more")
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    projects: _containers.RepeatedCompositeFieldContainer[Project]
    has_more: bool
    def __init__(self, projects: _Optional[_Iterable[_Union[Project, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class UpdateProjectRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "name", "external_key_id", "weight", "ip_ranges", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    IP_RANGES_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    name: str
    external_key_id: str
    weight: int
    ip_ranges: IpRanges
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., name: _Optional[str] = ..., external_key_id: _Optional[str] = ..., weight: _Optional[int] = ..., ip_ranges: _Optional[_Union[IpRanges, _Mapping]] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class IpRanges(_message.Message):
    __slots__ = ("blocks",)
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, blocks: _Optional[_Iterable[str]] = ...) -> None: ...

class UpdateProjectResponse(_message.Message):
    __slots__ = ("project",)
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    project: Project
    def __init__(self, project: _Optional[_Union[Project, _Mapping]] = ...) -> None: ...

class ArchiveProjectRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class ArchiveProjectResponse(_message.Message):
    __slots__ = ("project",)
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    project: Project
    def __init__(self, project: _Optional[_Union[Project, _Mapping]] = ...) -> None: ...

class SetModelPolicyRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "models", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    models: _auth_pb2.ModelPolicy
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., models: _Optional[_Union[_auth_pb2.ModelPolicy, _Mapping]] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class SetModelPolicyResponse(_message.Message):
    __slots__ = ("project",)
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    project: Project
    def __init__(self, project: _Optional[_Union[Project, _Mapping]] = ...) -> None: ...

class GetLimitsRequest(_message.Message):
    __slots__ = ("organization_id", "project_id")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ...) -> None: ...

class GetLimitsResponse(_message.Message):
    __slots__ = ("usage_tier", "overrides")
    USAGE_TIER_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    usage_tier: int
    overrides: _containers.RepeatedCompositeFieldContainer[_limits_pb2.Override]
    def __init__(self, usage_tier: _Optional[int] = ..., overrides: _Optional[_Iterable[_Union[_limits_pb2.Override, _Mapping]]] = ...) -> None: ...

class SetLimitsRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "overrides", "clear", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    CLEAR_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    overrides: _containers.RepeatedCompositeFieldContainer[_limits_pb2.Override]
    clear: bool
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., overrides: _Optional[_Iterable[_Union[_limits_pb2.Override, _Mapping]]] = ..., clear: _Optional[bool] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class SetLimitsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSpendLimitRequest(_message.Message):
    __slots__ = ("organization_id", "project_id")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ...) -> None: ...

class GetSpendLimitResponse(_message.Message):
    __slots__ = ("spend_limit",)
    SPEND_LIMIT_FIELD_NUMBER: _ClassVar[int]
    spend_limit: SpendLimit
    def __init__(self, spend_limit: _Optional[_Union[SpendLimit, _Mapping]] = ...) -> None: ...

class SetSpendLimitRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "spend_limit", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    SPEND_LIMIT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    spend_limit: SpendLimit
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., spend_limit: _Optional[_Union[SpendLimit, _Mapping]] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class SetSpendLimitResponse(_message.Message):
    __slots__ = ("spend_limit",)
    SPEND_LIMIT_FIELD_NUMBER: _ClassVar[int]
    spend_limit: SpendLimit
    def __init__(self, spend_limit: _Optional[_Union[SpendLimit, _Mapping]] = ...) -> None: ...

class DeleteSpendLimitRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class DeleteSpendLimitResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PutSpendAlertRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "spend_alert", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    SPEND_ALERT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    spend_alert: SpendAlert
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., spend_alert: _Optional[_Union[SpendAlert, _Mapping]] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class PutSpendAlertResponse(_message.Message):
    __slots__ = ("spend_alert",)
    SPEND_ALERT_FIELD_NUMBER: _ClassVar[int]
    spend_alert: SpendAlert
    def __init__(self, spend_alert: _Optional[_Union[SpendAlert, _Mapping]] = ...) -> None: ...

class GetSpendAlertRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "spend_alert_id")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    SPEND_ALERT_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    spend_alert_id: str
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., spend_alert_id: _Optional[str] = ...) -> None: ...

class GetSpendAlertResponse(_message.Message):
    __slots__ = ("spend_alert",)
    SPEND_ALERT_FIELD_NUMBER: _ClassVar[int]
    spend_alert: SpendAlert
    def __init__(self, spend_alert: _Optional[_Union[SpendAlert, _Mapping]] = ...) -> None: ...

class ListSpendAlertsRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "page")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    page: _admin_pb2.Page
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., page: _Optional[_Union[_admin_pb2.Page, _Mapping]] = ...) -> None: ...

class ListSpendAlertsResponse(_message.Message):
    __slots__ = ("spend_alerts", "has_more")
    SPEND_ALERTS_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    spend_alerts: _containers.RepeatedCompositeFieldContainer[SpendAlert]
    has_more: bool
    def __init__(self, spend_alerts: _Optional[_Iterable[_Union[SpendAlert, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class DeleteSpendAlertRequest(_message.Message):
    __slots__ = ("organization_id", "project_id", "spend_alert_id", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    SPEND_ALERT_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    project_id: str
    spend_alert_id: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., project_id: _Optional[str] = ..., spend_alert_id: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class DeleteSpendAlertResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAuditEventsRequest(_message.Message):
    __slots__ = ("organization_id", "effective_from", "effective_until", "project_ids", "types", "actor_ids", "actor_emails", "resource_ids", "page")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_FROM_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    PROJECT_IDS_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    ACTOR_IDS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_EMAILS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_IDS_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    effective_from: int
    effective_until: int
    project_ids: _containers.RepeatedScalarFieldContainer[str]
    types: _containers.RepeatedScalarFieldContainer[str]
    actor_ids: _containers.RepeatedScalarFieldContainer[str]
    actor_emails: _containers.RepeatedScalarFieldContainer[str]
    resource_ids: _containers.RepeatedScalarFieldContainer[str]
    page: _admin_pb2.Page
    def __init__(self, organization_id: _Optional[str] = ..., effective_from: _Optional[int] = ..., effective_until: _Optional[int] = ..., project_ids: _Optional[_Iterable[str]] = ..., types: _Optional[_Iterable[str]] = ..., actor_ids: _Optional[_Iterable[str]] = ..., actor_emails: _Optional[_Iterable[str]] = ..., resource_ids: _Optional[_Iterable[str]] = ..., page: _Optional[_Union[_admin_pb2.Page, _Mapping]] = ...) -> None: ...

class ListAuditEventsResponse(_message.Message):
    __slots__ = ("events", "has_more")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[AuditEvent]
    has_more: bool
    def __init__(self, events: _Optional[_Iterable[_Union[AuditEvent, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...
