"""What a lease hands out, and when one is asked for. `test_law` shows that leases keep the law of the limit."""

from services.ratelimit.gcra import Claim, Rate
from services.ratelimit.shared.leases import Demand, Lease


def test_what_is_handed_out_has_its_place_in_the_queue() -> None:
    lease = Lease(Rate(100, 10), Claim(0, 1_000, 5_000, 7), left=20, holder=1, asked_ns=0)
    assert lease.hand_out(4) == Claim(4, 1_000, 5_000, 7)
    assert lease.hand_out(6) == Claim(6, 1_000, 5_040, 7)
    assert (lease.left, lease.handed_out, lease.handed_out_ns) == (10, 10, 100)


def test_a_renewed_lease_covers_what_was_handed_out_meanwhile() -> None:
    lease = Lease(Rate(100, 10), Claim(0, 1_000, 5_000, 7), left=20, holder=1, asked_ns=0)
    lease.hand_out(4)
    lease.hand_out(6)
    lease.renew(Claim(0, 2_000, 5_040, 9), left=16, asked_ns=50, told=4)
    assert (lease.left, lease.handed_out) == (10, 6)
    assert lease.hand_out(1) == Claim(1, 2_000, 5_100, 9)


def test_a_lease_is_asked_for_only_when_many_ask() -> None:
    demand = Demand(span_ns=1_000)
    for now_ns in (5_000, 5_300):
        demand.note(20, now_ns)
    assert demand.lease_units() == 0
    demand.note(20, 5_600)
    assert demand.lease_units() == 60
    demand.note(20, 6_100)
    assert demand.lease_units() == 60
    demand.note(20, 9_000)
    assert demand.lease_units() == 0
    assert Demand(span_ns=0, calls=9, units=9).lease_units() == 0
