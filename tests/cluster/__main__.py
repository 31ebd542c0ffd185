"""Runs a tier of the cluster's tests, cleans up after it whatever happened, and prints one last line of figures.

`python -m tests.cluster control-plane` needs root, Go (or KUBEBUILDER_ASSETS) and 2 GiB; `python -m tests.cluster
node` also Debian's containerd and 16 GiB. More arguments go to pytest.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.cluster import node

HERE = Path(__file__).parent
TIERS = {
    "control-plane": [path for path in sorted(HERE.glob("test_*.py")) if not path.name.startswith("test_node")],
    "node": sorted(HERE.glob("test_node*.py")),
}
COUNTED = {"passed": ("passed",), "failed": ("failed", "error", "errors"), "skipped": ("skipped",)}


def run(tier: str, arguments: list[str]) -> int:
    """The status of pytest, whose output is shown as it comes."""
    # Short, for the paths of sockets in it.
    with tempfile.TemporaryDirectory(prefix="mp-node-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-s", "--timeout=1200"]
        command += [*map(str, TIERS[tier]), *arguments]
        environment = {**os.environ, "MODELPLANE_TEST_NODE": folder, "PYTHONUNBUFFERED": "1"}
        last = ""
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            for line in running.stdout:
                print(line, end="", flush=True)
                last = line if re.search(r"\d+ (passed|failed|skipped|errors?)\b", line) else last
        node.clean(Path(folder) / "node")
        left = node.leftovers(Path(folder) / "node") if tier == "node" else []
    print(f"Left behind: {', '.join(left) or 'nothing'}", flush=True)
    print(summary(last), flush=True)
    return running.returncode or bool(left)


def summary(line: str) -> str:
    """`N passed, N failed, N skipped` out of pytest's own last line; a test that could not start has failed."""
    found: Counter[str] = Counter()
    for number, word in re.findall(r"(\d+) (\w+)", line):
        found[word] += int(number)
    return ", ".join(f"{sum(found[word] for word in words)} {name}" for name, words in COUNTED.items())


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in TIERS:
        print(f"usage: python -m tests.cluster {{{','.join(TIERS)}}} [pytest's arguments]", file=sys.stderr)
        return 2
    return run(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
