"""`modelplane credits`: what an organisation has and owes, credits that nobody paid for, and what was booked."""

import argparse
from datetime import UTC, datetime
from typing import Final

from modelplane.ledger.v1.ledger_pb2 import (
    Credit,
    GetBalanceRequest,
    GrantCreditsRequest,
    ListPostingsRequest,
    RefundUsageRequest,
)
from services.cli.amounts import positive
from services.cli.audit import seconds
from services.cli.output import Answer, Row, moment
from services.cli.platform import ACTOR, Noun, Platform, Subcommands
from services.pricing.rates import dollars

MOST_POSTINGS: Final = 1000


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane credits` and its verbs."""
    noun = Noun(subcommands, "credits", "what organizations have and owe")
    noun.verb("show", "show what the organization has, owes and may still spend", show)
    noun.verb("list", "show the credits that have something left, in the order in which they are used", list_all)
    grant_ = noun.verb("grant", "give credits that nobody paid for", grant)
    grant_.add_argument("dollars", type=positive, help="for example 50")
    grant_.add_argument("--id", default="", help="granted once; default: a new one")
    grant_.add_argument("--expires", type=seconds, default=0, metavar="DATE", help="in UTC; default: never")
    grant_.add_argument("--description", default="", help="what for")
    refund_ = noun.verb("refund", "give back, as credits, what a request was billed", refund)
    refund_.add_argument("request", help="the request's id, req_...")
    refund_.add_argument("--reason", default="", help="for the audit log")
    history_ = noun.verb("history", "show what was booked, the newest first", history)
    history_.add_argument("--usage", action="store_true", help="also each request")
    history_.add_argument("--transaction", default="", metavar="ID", help="only of a request, a payment, a grant")
    history_.add_argument("--limit", type=int, default=100, help=f"at most {MOST_POSTINGS}; default: 100")


async def show(platform: Platform, options: argparse.Namespace) -> Answer:
    """The sums; what there is of each credit, `list` shows."""
    organization_id = await platform.organization(options)
    found = await platform.ledger.get_balance(GetBalanceRequest(organization_id=organization_id))
    return {
        "organization": organization_id,
        "terms": "prepaid" if found.prepaid else "invoiced",
        "credits_dollars": dollars(found.credits_nanodollars),
        "owed_dollars": dollars(found.owed_nanodollars),
        "on_hold_dollars": dollars(found.reserved_nanodollars),
        "used_this_month_dollars": dollars(found.month_nanodollars),
        "available_dollars": (
            dollars(found.available_nanodollars) if found.HasField("available_nanodollars") else None
        ),
    }


async def list_all(platform: Platform, options: argparse.Namespace) -> Answer:
    request = GetBalanceRequest(organization_id=await platform.organization(options))
    return [row(credit) for credit in (await platform.ledger.get_balance(request)).credits]


async def grant(platform: Platform, options: argparse.Namespace) -> Answer:
    """The credits, which may have been granted before under this id."""
    granted = await platform.ledger.grant_credits(
        GrantCreditsRequest(
            organization_id=await platform.organization(options),
            grant_id=options.id,
            nanodollars=options.dollars,
            expires_at=options.expires,
            description=options.description,
            actor=ACTOR,
        )
    )
    return row(granted.credit)


async def refund(platform: Platform, options: argparse.Namespace) -> Answer:
    refunded = await platform.ledger.refund_usage(
        RefundUsageRequest(
            organization_id=await platform.organization(options),
            request_id=options.request,
            reason=options.reason,
            actor=ACTOR,
        )
    )
    return {"request": options.request, "dollars": dollars(refunded.nanodollars)}


async def history(platform: Platform, options: argparse.Namespace) -> Answer:
    """One page, as long as it was asked to be."""
    found = await platform.ledger.list_postings(
        ListPostingsRequest(
            organization_id=await platform.organization(options),
            transaction_id=options.transaction,
            usage=options.usage,
            limit=options.limit,
        )
    )
    return [
        {
            "at": datetime.fromtimestamp(posting.occurred_at_ms / 1000, UTC),
            "transaction": posting.transaction_id,
            "line": posting.line,
            "debit": posting.debit,
            "credit": posting.credit,
            "dollars": dollars(posting.nanodollars),
            "model": posting.model,
            "project": posting.project_id,
        }
        for posting in found.postings
    ]


def row(credit: Credit) -> Row:
    return {
        "id": credit.id,
        "kind": credit.kind,
        "dollars": dollars(credit.nanodollars),
        "left_dollars": dollars(credit.remaining_nanodollars),
        "created": moment(credit.created_at),
        "expires": moment(credit.expires_at),
        "description": credit.description,
    }
