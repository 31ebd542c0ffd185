"""The audit as a test's last assertion: whatever a journey or a fault did, the ledger adds up afterwards."""

from modelplane.ledger.v1.ledger_pb2 import AuditRequest, AuditResponse
from services.ledger.audit import Auditor
from services.ledger.store.audit import AuditStore
from services.storage import Database


async def assert_clean(database_url: str) -> AuditResponse:
    """Audits what is in the ledger, which what waits in a spool is not; prints what it finds, and fails."""
    database = Database(database_url)
    await database.open()
    try:
        last = AuditResponse()
        async for last in Auditor(AuditStore(database)).audit(AuditRequest()):
            for found in last.findings:
                print(f"{found.kind} {found.organization_id} {found.subject}: {found.detail}")
    finally:
        await database.close()
    assert last.done and not last.findings_total, f"the audit has {last.findings_total} findings; they are printed"
    assert last.usage_nanodollars == last.billed_nanodollars
    return last
