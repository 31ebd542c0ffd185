"""`modelplane orgs`: organisations, their usage tiers and what they have paid. For operators: no key can do this."""

import argparse
from decimal import Decimal, InvalidOperation
from typing import Final

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.tenants.v1.tenants_pb2 import (
    CreateOrganizationRequest,
    GetOrganizationRequest,
    ListOrganizationsRequest,
    Organization,
    PinTierRequest,
    RecordPaymentRequest,
)
from services.cli.output import Answer, Row, moment
from services.cli.platform import ACTOR, Noun, Platform, Subcommands, everything

AUTOMATIC: Final = "auto"
NANODOLLARS: Final = 10**9


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane orgs` and its verbs."""
    noun = Noun(subcommands, "orgs", "organizations, their usage tiers and payments")
    noun.verb("list", "show all organizations", list_all)
    noun.verb("create", "make an organization with a default project", create).add_argument("name")
    noun.verb("show", "show one organization", show)
    tier = noun.verb("tier", "fix the usage tier, or let it follow the payments again", pin_tier)
    tier.add_argument("tier", choices=[*map(str, range(6)), AUTOMATIC], help="0 is free")
    payment = noun.verb("payment", "record a payment; the usage tier follows", pay)
    payment.add_argument("payment_id", help="the payer's or the provider's; recorded once")
    payment.add_argument("dollars", type=nanodollars, help="for example 49.90; below 0 for a refund")


async def list_all(platform: Platform, options: argparse.Namespace) -> Answer:
    async def fetch(page: Page) -> tuple[list[Organization], bool]:
        found = await platform.tenants.list_organizations(ListOrganizationsRequest(page=page))
        return list(found.organizations), found.has_more

    return [row(organization) for organization in await everything(fetch, lambda organization: organization.id)]


async def create(platform: Platform, options: argparse.Namespace) -> Answer:
    made = await platform.tenants.create_organization(CreateOrganizationRequest(name=options.name, actor=ACTOR))
    return {"id": made.organization.id, "name": made.organization.name, "project": made.project.id}


async def show(platform: Platform, options: argparse.Namespace) -> Answer:
    organization_id = await platform.organization(options)
    found = await platform.tenants.get_organization(GetOrganizationRequest(organization_id=organization_id))
    return row(found.organization)


async def pin_tier(platform: Platform, options: argparse.Namespace) -> Answer:
    pinned = await platform.tenants.pin_tier(
        PinTierRequest(
            organization_id=await platform.organization(options),
            usage_tier=None if options.tier == AUTOMATIC else int(options.tier),
            actor=ACTOR,
        )
    )
    return row(pinned.organization)


async def pay(platform: Platform, options: argparse.Namespace) -> Answer:
    paid = await platform.tenants.record_payment(
        RecordPaymentRequest(
            organization_id=await platform.organization(options),
            payment_id=options.payment_id,
            amount_nanodollars=options.dollars,
            actor=ACTOR,
        )
    )
    return row(paid.organization)


def nanodollars(dollars: str) -> int:
    """Raises ArgumentTypeError for what is no amount of whole nanodollars."""
    try:
        amount = Decimal(dollars) * NANODOLLARS
        if amount == amount.to_integral_value() and abs(amount) < 2**63:
            return int(amount)
    except InvalidOperation:
        pass
    raise argparse.ArgumentTypeError(f"{dollars!r} is not an amount of dollars")


def row(organization: Organization) -> Row:
    return {
        "id": organization.id,
        "name": organization.name,
        "tier": organization.usage_tier,
        "pinned": organization.tier_pinned,
        "paid_dollars": f"{(Decimal(organization.paid_nanodollars) / NANODOLLARS).normalize():f}",
        "first_paid": moment(organization.first_paid_at),
        "created": moment(organization.created_at),
    }
