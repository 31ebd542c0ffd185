"""What is remembered: for whom, how much, and what is forgotten first."""

from modelplane.tokenizer.v1.tokenizer_pb2 import Prompt
from services.tokenizer.segments import SegmentCache, encoded, joined

KNOWN = {"<s>": encoded([1])}
HELLO = {"hello": encoded([7, 300, 70_000])}


def remembered(cache: SegmentCache, text: str, organization: str = "org", model: str = "m") -> bool:
    found, missing = cache.recall(organization, model, [text], {})
    assert (text in found, text in missing) in ((True, False), (False, True))
    return text in found


def test_parts_are_joined_without_a_look_inside() -> None:
    parts = [encoded([1, 2]), encoded([]), encoded([2**32 - 1, 0])]
    whole = joined(parts)
    assert (whole.tokens, whole.ids()) == (4, [1, 2, 2**32 - 1, 0])
    assert list(Prompt.FromString(whole.wire).token_ids) == whole.ids()


def test_each_missing_text_is_named_once() -> None:
    cache = SegmentCache(10_000)
    cache.remember("org", "m", HELLO)
    found, missing = cache.recall("org", "m", ["<s>", "hello", "<s>", "new", "<s>", "new"], KNOWN)
    assert found == KNOWN | HELLO
    assert missing == ["new"]


def test_it_is_remembered_for_its_organisation_and_model_alone() -> None:
    cache = SegmentCache(10_000)
    cache.remember("org", "m", HELLO)
    assert remembered(cache, "hello")
    assert not remembered(cache, "hello", organization="another")
    assert not remembered(cache, "hello", model="another")


def test_the_least_recently_used_is_forgotten_within_the_bound() -> None:
    cache = SegmentCache(2_500)
    for text in "abcde":
        cache.remember("org", "m", {text: encoded([ord(text)])})
    used = cache.bytes
    assert remembered(cache, "a")
    cache.remember("org", "m", {"f": encoded([1])})
    assert cache.bytes == used <= 2_500
    assert [text for text in "abcdef" if remembered(cache, text)] == list("acdef")


def test_remembering_again_takes_no_more() -> None:
    cache = SegmentCache(10_000)
    cache.remember("org", "m", HELLO)
    used = cache.bytes
    cache.remember("org", "m", HELLO)
    assert cache.bytes == used


def test_one_huge_text_does_not_drive_out_the_others() -> None:
    cache = SegmentCache(10_000)
    cache.remember("org", "m", HELLO)
    cache.remember("org", "m", {"x" * 9_000: encoded([1])})
    assert remembered(cache, "hello") and not remembered(cache, "x" * 9_000)


def test_without_memory_nothing_is_remembered() -> None:
    cache = SegmentCache(0)
    cache.remember("org", "m", HELLO)
    assert (remembered(cache, "hello"), cache.bytes) == (False, 0)
