from modelplane.admin.v1 import admin_pb2 as _admin_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Price(_message.Message):
    __slots__ = ("id", "model", "effective_at", "source", "rates_json")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_AT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    RATES_JSON_FIELD_NUMBER: _ClassVar[int]
    id: int
    model: str
    effective_at: int
    source: str
    rates_json: bytes
    def __init__(self, id: _Optional[int] = ..., model: _Optional[str] = ..., effective_at: _Optional[int] = ..., source: _Optional[str] = ..., rates_json: _Optional[bytes] = ...) -> None: ...

class ListPricesRequest(_message.Message):
    __slots__ = ("model", "at", "history")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    model: str
    at: int
    history: bool
    def __init__(self, model: _Optional[str] = ..., at: _Optional[int] = ..., history: _Optional[bool] = ...) -> None: ...

class ListPricesResponse(_message.Message):
    __slots__ = ("prices",)
    PRICES_FIELD_NUMBER: _ClassVar[int]
    prices: _containers.RepeatedCompositeFieldContainer[Price]
    def __init__(self, prices: _Optional[_Iterable[_Union[Price, _Mapping]]] = ...) -> None: ...

class SetPriceRequest(_message.Message):
    __slots__ = ("model", "effective_at", "rates_json", "actor")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_AT_FIELD_NUMBER: _ClassVar[int]
    RATES_JSON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    model: str
    effective_at: int
    rates_json: bytes
    actor: _admin_pb2.Actor
    def __init__(self, model: _Optional[str] = ..., effective_at: _Optional[int] = ..., rates_json: _Optional[bytes] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class SetPriceResponse(_message.Message):
    __slots__ = ("price",)
    PRICE_FIELD_NUMBER: _ClassVar[int]
    price: Price
    def __init__(self, price: _Optional[_Union[Price, _Mapping]] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("id", "kind", "nanodollars", "remaining_nanodollars", "created_at", "expires_at", "description")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    nanodollars: int
    remaining_nanodollars: int
    created_at: int
    expires_at: int
    description: str
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., nanodollars: _Optional[int] = ..., remaining_nanodollars: _Optional[int] = ..., created_at: _Optional[int] = ..., expires_at: _Optional[int] = ..., description: _Optional[str] = ...) -> None: ...

class GetBalanceRequest(_message.Message):
    __slots__ = ("organization_id",)
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    def __init__(self, organization_id: _Optional[str] = ...) -> None: ...

class GetBalanceResponse(_message.Message):
    __slots__ = ("prepaid", "credits_nanodollars", "owed_nanodollars", "reserved_nanodollars", "month_nanodollars", "available_nanodollars", "credits")
    PREPAID_FIELD_NUMBER: _ClassVar[int]
    CREDITS_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    OWED_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    MONTH_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    prepaid: bool
    credits_nanodollars: int
    owed_nanodollars: int
    reserved_nanodollars: int
    month_nanodollars: int
    available_nanodollars: int
    credits: _containers.RepeatedCompositeFieldContainer[Credit]
    def __init__(self, prepaid: _Optional[bool] = ..., credits_nanodollars: _Optional[int] = ..., owed_nanodollars: _Optional[int] = ..., reserved_nanodollars: _Optional[int] = ..., month_nanodollars: _Optional[int] = ..., available_nanodollars: _Optional[int] = ..., credits: _Optional[_Iterable[_Union[Credit, _Mapping]]] = ...) -> None: ...

class SetTermsRequest(_message.Message):
    __slots__ = ("organization_id", "prepaid", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PREPAID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    prepaid: bool
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., prepaid: _Optional[bool] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class SetTermsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GrantCreditsRequest(_message.Message):
    __slots__ = ("organization_id", "grant_id", "nanodollars", "expires_at", "description", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    grant_id: str
    nanodollars: int
    expires_at: int
    description: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., grant_id: _Optional[str] = ..., nanodollars: _Optional[int] = ..., expires_at: _Optional[int] = ..., description: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class GrantCreditsResponse(_message.Message):
    __slots__ = ("credit",)
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    credit: Credit
    def __init__(self, credit: _Optional[_Union[Credit, _Mapping]] = ...) -> None: ...

class RecordPaymentRequest(_message.Message):
    __slots__ = ("organization_id", "payment_id", "nanodollars", "expires_at", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    PAYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    payment_id: str
    nanodollars: int
    expires_at: int
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., payment_id: _Optional[str] = ..., nanodollars: _Optional[int] = ..., expires_at: _Optional[int] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class RecordPaymentResponse(_message.Message):
    __slots__ = ("booked", "usage_tier", "paid_nanodollars")
    BOOKED_FIELD_NUMBER: _ClassVar[int]
    USAGE_TIER_FIELD_NUMBER: _ClassVar[int]
    PAID_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    booked: bool
    usage_tier: int
    paid_nanodollars: int
    def __init__(self, booked: _Optional[bool] = ..., usage_tier: _Optional[int] = ..., paid_nanodollars: _Optional[int] = ...) -> None: ...

class RefundUsageRequest(_message.Message):
    __slots__ = ("organization_id", "request_id", "reason", "actor")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    request_id: str
    reason: str
    actor: _admin_pb2.Actor
    def __init__(self, organization_id: _Optional[str] = ..., request_id: _Optional[str] = ..., reason: _Optional[str] = ..., actor: _Optional[_Union[_admin_pb2.Actor, _Mapping]] = ...) -> None: ...

class RefundUsageResponse(_message.Message):
    __slots__ = ("nanodollars",)
    NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    nanodollars: int
    def __init__(self, nanodollars: _Optional[int] = ...) -> None: ...

class Posting(_message.Message):
    __slots__ = ("transaction_id", "line", "project_id", "key_id", "model", "debit", "credit", "nanodollars", "occurred_at_ms")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEBIT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    transaction_id: str
    line: str
    project_id: str
    key_id: str
    model: str
    debit: str
    credit: str
    nanodollars: int
    occurred_at_ms: int
    def __init__(self, transaction_id: _Optional[str] = ..., line: _Optional[str] = ..., project_id: _Optional[str] = ..., key_id: _Optional[str] = ..., model: _Optional[str] = ..., debit: _Optional[str] = ..., credit: _Optional[str] = ..., nanodollars: _Optional[int] = ..., occurred_at_ms: _Optional[int] = ...) -> None: ...

class ListPostingsRequest(_message.Message):
    __slots__ = ("organization_id", "transaction_id", "usage", "limit", "page")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    transaction_id: str
    usage: bool
    limit: int
    page: str
    def __init__(self, organization_id: _Optional[str] = ..., transaction_id: _Optional[str] = ..., usage: _Optional[bool] = ..., limit: _Optional[int] = ..., page: _Optional[str] = ...) -> None: ...

class ListPostingsResponse(_message.Message):
    __slots__ = ("postings", "next_page")
    POSTINGS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    postings: _containers.RepeatedCompositeFieldContainer[Posting]
    next_page: str
    def __init__(self, postings: _Optional[_Iterable[_Union[Posting, _Mapping]]] = ..., next_page: _Optional[str] = ...) -> None: ...

class InvoiceLine(_message.Message):
    __slots__ = ("model", "line", "quantity", "nanodollars", "project_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    line: str
    quantity: int
    nanodollars: int
    project_id: str
    def __init__(self, model: _Optional[str] = ..., line: _Optional[str] = ..., quantity: _Optional[int] = ..., nanodollars: _Optional[int] = ..., project_id: _Optional[str] = ...) -> None: ...

class Invoice(_message.Message):
    __slots__ = ("id", "organization_id", "organization_name", "month", "issued_at", "lines", "total_nanodollars", "credits_nanodollars")
    ID_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_NAME_FIELD_NUMBER: _ClassVar[int]
    MONTH_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    id: str
    organization_id: str
    organization_name: str
    month: str
    issued_at: int
    lines: _containers.RepeatedCompositeFieldContainer[InvoiceLine]
    total_nanodollars: int
    credits_nanodollars: int
    def __init__(self, id: _Optional[str] = ..., organization_id: _Optional[str] = ..., organization_name: _Optional[str] = ..., month: _Optional[str] = ..., issued_at: _Optional[int] = ..., lines: _Optional[_Iterable[_Union[InvoiceLine, _Mapping]]] = ..., total_nanodollars: _Optional[int] = ..., credits_nanodollars: _Optional[int] = ...) -> None: ...

class ListInvoicesRequest(_message.Message):
    __slots__ = ("organization_id",)
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    def __init__(self, organization_id: _Optional[str] = ...) -> None: ...

class ListInvoicesResponse(_message.Message):
    __slots__ = ("invoices",)
    INVOICES_FIELD_NUMBER: _ClassVar[int]
    invoices: _containers.RepeatedCompositeFieldContainer[Invoice]
    def __init__(self, invoices: _Optional[_Iterable[_Union[Invoice, _Mapping]]] = ...) -> None: ...

class GetInvoiceRequest(_message.Message):
    __slots__ = ("organization_id", "invoice_id", "pdf")
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    INVOICE_ID_FIELD_NUMBER: _ClassVar[int]
    PDF_FIELD_NUMBER: _ClassVar[int]
    organization_id: str
    invoice_id: str
    pdf: bool
    def __init__(self, organization_id: _Optional[str] = ..., invoice_id: _Optional[str] = ..., pdf: _Optional[bool] = ...) -> None: ...

class GetInvoiceResponse(_message.Message):
    __slots__ = ("invoice", "pdf")
    INVOICE_FIELD_NUMBER: _ClassVar[int]
    PDF_FIELD_NUMBER: _ClassVar[int]
    invoice: Invoice
    pdf: bytes
    def __init__(self, invoice: _Optional[_Union[Invoice, _Mapping]] = ..., pdf: _Optional[bytes] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ("until",)
    FROM_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    until: int
    def __init__(self, until: _Optional[int] = ..., **kwargs) -> None: ...

class Finding(_message.Message):
    __slots__ = ("kind", "organization_id", "subject", "detail")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    kind: str
    organization_id: str
    subject: str
    detail: str
    def __init__(self, kind: _Optional[str] = ..., organization_id: _Optional[str] = ..., subject: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class AuditResponse(_message.Message):
    __slots__ = ("records", "findings", "done", "usage_nanodollars", "billed_nanodollars", "findings_total")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    USAGE_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    BILLED_NANODOLLARS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    records: int
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    done: bool
    usage_nanodollars: int
    billed_nanodollars: int
    findings_total: int
    def __init__(self, records: _Optional[int] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., done: _Optional[bool] = ..., usage_nanodollars: _Optional[int] = ..., billed_nanodollars: _Optional[int] = ..., findings_total: _Optional[int] = ...) -> None: ...
