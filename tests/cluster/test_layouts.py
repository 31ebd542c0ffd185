"""A containerd that has most of an image is given the rest alone, and the runner counts what pytest counted."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from tests.cluster.__main__ import summary
from tests.cluster.layouts import write_archive


def write_blob(folder: Path, content: bytes) -> dict[str, str]:
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}"}


def test_layers_that_are_there_are_left_out(tmp_path: Path) -> None:
    layout, store = tmp_path / "layout", tmp_path / "store"
    (layout / "blobs" / "sha256").mkdir(parents=True)
    store.mkdir()
    old, new = (write_blob(layout, content * 100_000) for content in (b"o", b"n"))
    manifest = {"config": write_blob(layout, b"{}"), "layers": [old, new]}
    index = {"manifests": [write_blob(layout, json.dumps(manifest).encode())]}
    (layout / "index.json").write_text(json.dumps(index))
    (store / old["digest"].removeprefix("sha256:")).touch()

    out = io.BytesIO()
    write_archive(layout, "localhost/a:1", store, out)

    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        names = archive.getnames()
        kept = json.load(archive.extractfile("index.json") or io.BytesIO())
    assert f"blobs/sha256/{new['digest'].removeprefix('sha256:')}" in names
    assert f"blobs/sha256/{old['digest'].removeprefix('sha256:')}" not in names
    assert len(names) == 2 + 3
    assert kept["manifests"][0]["annotations"] == {"io.containerd.image.name": "localhost/a:1"}


def test_a_test_that_could_not_start_has_failed() -> None:
    line = "===== 1 failed, 9 passed, 2 skipped, 1 warning, 3 errors in 53.13s ====="
    assert summary(line) == "9 passed, 4 failed, 2 skipped"
    assert summary("===== 1 passed, 1 error in 1.00s =====") == "1 passed, 1 failed, 0 skipped"
