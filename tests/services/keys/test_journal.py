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
    for end in range(2, len(whole)):
        path.write_bytes(whole + whole[:end])
        journal = Journal(path)
        assert journal.load() == 1
        assert list(journal.revocations.values()) == [ONE]
        journal.add(OTHER)
        again = Journal(path)
        assert again.load() == 1
        assert list(again.revocations.values()) == [ONE, OTHER]


def test_a_key_is_revoked_for_its_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "revocations.jsonl")
    journal.add(Revocation("org-1", "key_1", b""))
    journal.add(Revocation("org-2", "key 2", b"", "proj_1"))
    again = Journal(tmp_path / "revocations.jsonl")
    assert again.load() == 0
    assert again.has("org-1", "proj_1", "key_1") and again.has("org-1", "", "key_1")
    assert not again.has("org-2", "proj_1", "key_1")
    assert again.has("org-2", "proj_1", "key 2")
    assert not again.has("org-2", "proj_2", "key 2") and not again.has("org-2", "", "key 2")
