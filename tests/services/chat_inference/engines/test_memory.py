"""What the kernel keeps of files is no memory that a container has used up."""

from pathlib import Path

import pytest

from services.chat_inference.engines.memory import kept_files_bytes

V1 = "cache 90\nactive_file 1\ninactive_file 2\ntotal_active_file 30\ntotal_inactive_file 40\n"
V2 = "anon 900\nfile 80\nactive_file 30\ninactive_file 40\nslab 5\n"


@pytest.mark.parametrize(("file", "text"), [("memory/memory.stat", V1), ("memory.stat", V2)], ids=["v1", "v2"])
def test_files_in_memory_are_counted_in_both_kinds_of_cgroups(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert kept_files_bytes(tmp_path) == 70


def test_without_cgroups_there_are_none(tmp_path: Path) -> None:
    assert kept_files_bytes(tmp_path) == 0
