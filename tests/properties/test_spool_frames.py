"""Whatever happens to a spool file, whole records are found and nothing else is taken for one."""

from hypothesis import example, given
from hypothesis import strategies as st

from services.billing.frames import MAGIC, Damage, Record, decode, encode

payloads = st.lists(st.binary(max_size=200) | st.just(MAGIC * 3), max_size=12)
file_and_payloads = payloads.map(lambda items: (b"".join(map(encode, items)), items))


def records(data: bytes) -> list[bytes]:
    return [item.payload for item in decode(data) if isinstance(item, Record)]


def damages(data: bytes) -> list[Damage]:
    return [item for item in decode(data) if isinstance(item, Damage)]


def spans(items: list[bytes]) -> list[tuple[int, int]]:
    """Where each record's frame lies."""
    found, position = [], 0
    for item in items:
        found.append((position, position + len(encode(item))))
        position = found[-1][1]
    return found


@given(payloads)
def test_what_is_written_is_read(items: list[bytes]) -> None:
    data = b"".join(map(encode, items))
    assert records(data) == items
    assert not damages(data)


@given(payloads, st.data())
def test_a_cut_costs_only_the_record_it_cuts_and_is_known_as_torn(items: list[bytes], draw: st.DataObject) -> None:
    data = b"".join(map(encode, items))
    length = draw.draw(st.integers(0, len(data)))
    whole = [item for item, (_, end) in zip(items, spans(items), strict=True) if end <= length]
    assert records(data[:length]) == whole
    found = damages(data[:length])
    rest = length - sum(len(encode(item)) for item in whole)
    assert [(item.end - item.start, item.torn) for item in found] == ([(rest, True)] if rest else [])


@given(payloads.filter(bool), st.data())
def test_flipped_bits_cost_only_the_records_they_hit(items: list[bytes], draw: st.DataObject) -> None:
    data = bytearray(b"".join(map(encode, items)))
    bits = draw.draw(st.sets(st.integers(0, len(data) * 8 - 1), min_size=1, max_size=8))
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
    untouched = [
        item
        for item, (start, end) in zip(items, spans(items), strict=True)
        if not any(start <= bit // 8 < end for bit in bits)
    ]
    assert records(bytes(data)) == untouched
    assert damages(bytes(data))
    # Damage that more records follow is never taken for the end of a write that was cut off.
    assert not any(item.torn for item in damages(bytes(data)) if item.end < len(data))


@given(st.binary(max_size=300), payloads, st.binary(max_size=300))
@example(bytes(300), [b"x"], bytes(300))
def test_garbage_around_records(before: bytes, items: list[bytes], after: bytes) -> None:
    data = before + b"".join(map(encode, items)) + after
    assert [item for item in records(data) if item in items] == items


@given(st.binary(max_size=500) | file_and_payloads.map(lambda pair: pair[0][3:-3]))
def test_records_and_damage_cover_everything_once(data: bytes) -> None:
    position = 0
    for item in decode(data):
        if isinstance(item, Damage):
            assert item.start == position
        assert item.end > position
        position = item.end
    assert position == len(data)
