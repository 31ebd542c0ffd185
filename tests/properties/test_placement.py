"""The choice of a replica, for any loads and prefixes."""

from hypothesis import given
from hypothesis import strategies as st

from services.router.placement import LOAD_BOUND, Seat, choose

hashes = st.integers(min_value=0, max_value=2**64 - 1)


@st.composite
def seats(draw: st.DrawFn, minimum: int = 0) -> list[Seat]:
    made = []
    for number in range(draw(st.integers(minimum, 8))):
        seat = Seat.of(f"replica-{number}", draw(st.integers(1, 8)))
        seat.running = draw(st.integers(0, seat.slots))
        made.append(seat)
    return made


@given(seats(), hashes, st.sets(st.integers(0, 7)))
def test_a_free_allowed_seat_is_found_exactly_when_there_is_one(
    seats: list[Seat], prefix_hash: int, numbers: set[int]
) -> None:
    excluded = [f"replica-{number}" for number in numbers]
    chosen = choose(seats, prefix_hash, excluded)
    allowed = [seat for seat in seats if seat.running < seat.slots and seat.replica_id not in excluded]
    assert (chosen is None) == (not allowed)
    assert chosen is None or any(chosen is seat for seat in allowed)


@given(seats(minimum=1), hashes)
def test_no_seat_is_loaded_beyond_the_bound_while_another_is_less_loaded(seats: list[Seat], prefix_hash: int) -> None:
    chosen = choose(seats, prefix_hash)
    if chosen is None:
        return
    mean = sum(seat.running for seat in seats) / len(seats)
    least = min(seat.running / seat.slots for seat in seats if seat.running < seat.slots)
    assert chosen.running <= LOAD_BOUND * mean + 1 or chosen.running / chosen.slots == least


@given(st.integers(2, 8), hashes.filter(bool), st.integers(0, 7))
def test_losing_a_replica_moves_only_its_own_prefixes(count: int, prefix_hash: int, number: int) -> None:
    seats = [Seat.of(f"replica-{index}", 4) for index in range(count)]
    before = choose(seats, prefix_hash)
    lost = seats[number % count]
    after = choose([seat for seat in seats if seat is not lost], prefix_hash)
    assert before is lost or after is before


def test_prefixes_spread_evenly() -> None:
    seats = [Seat.of(f"replica-{index}", 4) for index in range(4)]
    chosen = [choose(seats, prefix_hash) for prefix_hash in range(1, 4001)]
    assert all(850 < chosen.count(seat) < 1150 for seat in seats)
