"""`modelplane audit`: proves that what was used is what was billed. For operators, and for whoever watches over them:
the exit status is 0 when nothing is wrong, 1 when something is, and 2 when it could not be found out."""

import argparse
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.ledger.v1.ledger_pb2 import AuditRequest, AuditResponse, Finding
from services.cli.advice import explained
from services.cli.output import Row, show
from services.cli.platform import Subcommands
from services.faults import Fault
from services.pricing.rates import NANO

COMMAND: Final = "audit"
CLEAN: Final = 0
FINDINGS: Final = 1
UNKNOWN: Final = 2


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane audit`, which has no verbs."""
    about = "prove that what was used is what was billed, or show where it is not"
    parser = subcommands.add_parser(
        COMMAND,
        help=about,
        description=f"{about}; exits with 0 when nothing is wrong, 1 when something is, 2 when it could not find out",
    )
    dates = "for example 2026-11-01, or 2026-11-01T12:00, in UTC"
    parser.add_argument("--from", dest="since", type=seconds, default=0, metavar="DATE", help=f"{dates}; default: all")
    parser.add_argument("--until", type=seconds, default=0, metavar="DATE", help="the first moment that is not meant")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


async def run(ledger: LedgerService, options: argparse.Namespace) -> int:
    """Prints findings as they come, how far it is on stderr, and at last the sums; the result is the exit status."""
    findings: list[Row] = []
    last = AuditResponse()
    try:
        async for last in ledger.audit(AuditRequest(**{"from": options.since, "until": options.until})):
            _progress(last)
            for finding in last.findings:
                findings.append(row(finding))
                if not options.json:
                    print(" ".join(str(value) for value in findings[-1].values()), flush=True)
    except Fault as fault:
        print(f"modelplane: {explained(fault)}", file=sys.stderr)
        return UNKNOWN
    if not last.done:
        print("modelplane: The audit ended before it was done.", file=sys.stderr)
        return UNKNOWN
    sums: Row = {
        "records": last.records,
        "usage_dollars": dollars(last.usage_nanodollars),
        "billed_dollars": dollars(last.billed_nanodollars),
        "findings_total": last.findings_total,
    }
    show({**sums, "findings": findings} if options.json else sums, as_json=options.json)
    return FINDINGS if last.findings_total or last.usage_nanodollars != last.billed_nanodollars else CLEAN


def seconds(text: str) -> int:
    """Unix seconds of a date or a time, in UTC where it names no other offset. Raises ArgumentTypeError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2026-11-01") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def dollars(nanodollars: int) -> str:
    return f"{Decimal(nanodollars) / NANO:f}"


def row(finding: Finding) -> Row:
    return {
        "kind": finding.kind,
        "organization": finding.organization_id,
        "subject": finding.subject,
        "detail": finding.detail,
    }


def _progress(answer: AuditResponse) -> None:
    """A line that rewrites itself, where somebody looks on."""
    if sys.stderr.isatty():
        end = "\n" if answer.done else ""
        print(f"\r\x1b[K{answer.records:,} records", end=end, file=sys.stderr, flush=True)
