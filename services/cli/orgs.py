"""`modelplane orgs`: organisations, their usage tiers and what they have paid. For operators: no key can do this."""

import argparse
from typing import Final

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.ledger.v1.ledger_pb2 import SetTermsRequest
from modelplane.tenants.v1.tenants_pb2 import (
    CreateOrganizationRequest,
    GetOrganizationRequest,
    ListOrganizationsRequest,
    Organization,
    PinTierRequest,
)
from services.cli.output import Answer, Row, moment
from services.cli.platform import ACTOR, Noun, Platform, Subcommands, everything
from services.pricing.rates import dollars

AUTOMATIC: Final = "auto"
PREPAID: Final = "prepaid"
INVOICED: Final = "invoiced"


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane orgs` and its verbs."""
    noun = Noun(subcommands, "orgs", "organizations, their usage tiers and terms of payment")
    noun.verb("list", "show all organizations", list_all, of_one_organization=False)
    about = "make an organization with a default project; its usage tier is Free"
    noun.verb("create", about, create, of_one_organization=False).add_argument("name", help="for people to read")
    noun.verb("show", "show one organization", show)
    tier = noun.verb("tier", "fix the usage tier, or let it follow the payments again", pin_tier)
    tier.add_argument(
        "tier", choices=[*map(str, range(6)), AUTOMATIC], help=f"0 is Free; {AUTOMATIC} follows the payments"
    )
    terms = noun.verb("terms", "say whether the organization pays before or after", set_terms)
    terms.add_argument(
        "terms",
        choices=[PREPAID, INVOICED],
        help=f"{PREPAID}: refused when its credits are used up; {INVOICED}: asked to pay each month",
    )


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


async def set_terms(platform: Platform, options: argparse.Namespace) -> Answer:
    organization_id = await platform.organization(options)
    prepaid = options.terms == PREPAID
    await platform.ledger.set_terms(SetTermsRequest(organization_id=organization_id, prepaid=prepaid, actor=ACTOR))
    return {"id": organization_id, "terms": options.terms}


def row(organization: Organization) -> Row:
    return {
        "id": organization.id,
        "name": organization.name,
        "tier": organization.usage_tier,
        "pinned": organization.tier_pinned,
        "paid_dollars": dollars(organization.paid_nanodollars),
        "first_paid": moment(organization.first_paid_at),
        "created": moment(organization.created_at),
    }
