"""`modelplane payments`: what organisations pay and are paid back. For operators: no key can do this."""

import argparse

from modelplane.ledger.v1.ledger_pb2 import RecordPaymentRequest
from services.cli.amounts import positive
from services.cli.audit import seconds
from services.cli.output import Answer
from services.cli.platform import ACTOR, Noun, Platform, Subcommands
from services.pricing.rates import dollars


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane payments` and its verbs."""
    noun = Noun(subcommands, "payments", "what organizations pay")
    record_ = noun.verb("record", "book a payment as credits; the usage tier follows", record)
    refund_ = noun.verb("refund", "book that a payment, or what is left of it, was paid back", refund)
    for parser in (record_, refund_):
        parser.add_argument("dollars", type=positive, help="for example 49.90")
        parser.add_argument("--id", required=True, help="the payer's or the provider's; booked once")
    record_.add_argument(
        "--expires", type=seconds, default=0, metavar="DATE", help="when the credits expire, in UTC; default: never"
    )


async def record(platform: Platform, options: argparse.Namespace) -> Answer:
    return await _book(platform, options, options.dollars, options.expires)


async def refund(platform: Platform, options: argparse.Namespace) -> Answer:
    return await _book(platform, options, -options.dollars, 0)


async def _book(platform: Platform, options: argparse.Namespace, nanodollars: int, expires_at: int) -> Answer:
    organization_id = await platform.organization(options)
    answer = await platform.ledger.record_payment(
        RecordPaymentRequest(
            organization_id=organization_id,
            payment_id=options.id,
            nanodollars=nanodollars,
            expires_at=expires_at,
            actor=ACTOR,
        )
    )
    return {
        "id": options.id,
        "organization": organization_id,
        "dollars": dollars(nanodollars),
        "booked_now": answer.booked,
        "tier": answer.usage_tier,
        "paid_dollars": dollars(answer.paid_nanodollars),
    }
