"""Revocations that wait for the database outlive the process, and a torn last line is no revocation."""

from pathlib import Path

from services.keys.journal import Journal, Revocation

ONE, OTHER = Revocation("org-1", "key_1", b"\x00actor"), Revocation("org-2", "key_1", b"")


def test_it_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "home" / "revocations.jsonl"
    journal = Journal(path)
    assert journal.load() == 0
    journal.add(ONE)
    journal.add(OTHER)
    assert path.stat().st_mode & 0o777 == 0o600
    again = Journal(path)
    assert again.load() == 0
    assert list(again.revocations.values()) == [ONE, OTHER]
    again.remove([ONE])
    third = Journal(path)
    third.load()
    assert list(third.revocations.values()) == [OTHER]
    third.remove([ONE, OTHER])
    assert not path.exists()


def test_a_torn_line_is_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "revocations.jsonl"
    Journal(path).add(ONE)
    whole = path.read_bytes()
    for end in range(1, len(whole) - 1):
        path.write_bytes(whole + whole[:end])
        journal = Journal(path)
        assert journal.load() == 1
        assert list(journal.revocations.values()) == [ONE]
