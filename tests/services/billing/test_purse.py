"""What a purse does about writes that it does not know the end of yet, and who is admitted."""

from services.billing.purse import Bound, Need, Purse, admit, pace, size, tightest


def purse(lease: int) -> Purse:
    made = Purse()
    made.resize(lease, lease)
    made.settle_lease(written=True)
    return made


def test_a_drain_counts_the_lease_that_is_about_to_be_known() -> None:
    one = purse(100)
    one.settle(0, 0, 40)
    one.resize(200, 1000)
    assert one.left == 60
    # The lease of 240 is committed; this process learns of it after the drain has written.
    assert one.leased_after(40) == 200
    one.settle_lease(written=True)
    one.drain(40)
    assert (one.lease, one.left) == (200, 200)


def test_what_is_won_counts_when_it_is_written_and_what_is_given_up_at_once() -> None:
    one = purse(100)
    assert one.resize(300, 1000) == 300
    assert one.left == 100
    one.settle_lease(written=False)
    assert one.left == 100
    assert one.resize(30, 1000) == 30
    assert one.left == 30
    one.settle_lease(written=False)
    assert one.left == 30


def test_what_costs_more_than_was_held_is_a_debt_until_it_is_drained() -> None:
    one = purse(100)
    one.take(100, 0)
    one.settle(100, 0, 150)
    assert one.left == -50
    assert not one.affords(1)
    assert one.leased_after(150) == 0
    one.drain(150)
    assert (one.lease, one.left, one.undrained) == (0, 0, 0)


def test_running_requests_are_leased_for_whatever_the_bound_says() -> None:
    one = purse(100)
    one.take(80, 0)
    assert one.resize(size(-500, 10, 10), -500) == 80


def test_worst_cases_are_held_only_out_of_what_is_to_spare() -> None:
    one = purse(800)
    assert one.spares(10, 100)
    one.take(110, 100)
    assert not one.spares(10, 1)
    one.settle(110, 100, 0)
    assert not one.spares(10, 101)
    one.bounded = False
    assert one.spares(10, 10**9)


def test_it_is_short_only_of_what_nobody_had() -> None:
    one = Purse()
    assert not one.is_short_of(10**9)
    one.resize(30, 100)
    one.settle_lease(written=True)
    assert not one.is_short_of(100)
    assert one.is_short_of(101)
    one.bounded = False
    assert not one.is_short_of(101)


def test_who_does_not_fit_does_not_keep_out_who_does() -> None:
    needs = [Need("a", 60), Need("b", 50), Need("a", 40), Need("", 10)]
    assert admit(needs, 100, {}) == {"": 100, "a": 100}
    assert admit(needs, 1000, {"a": 70}) == {"": 120, "a": 60, "b": 50}
    assert admit(needs, -5, {}) == {"": 0}


def test_a_lease_gets_smaller_as_the_bound_comes_nearer() -> None:
    assert size(8000, 10, 100) == 100
    assert size(400, 10, 100) == 50
    assert size(40, 10, 100) == 10
    assert size(5, 10, 100) == 5


def test_the_pace_follows_use() -> None:
    assert pace(0, 1000, 10.0) == 100
    assert pace(100, 0, 10.0) == 50
    # Of an instant nothing is concluded.
    assert pace(0, 1000, 0.001) == 1000


def test_the_tightest_bound_is_told() -> None:
    assert tightest([Bound("limit", 5), Bound("cap", 3)]).name == "cap"
