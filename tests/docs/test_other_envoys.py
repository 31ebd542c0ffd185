"""What the page on other Envoys tells people to write, taken by a real Envoy."""

import json
import re
import subprocess
from pathlib import Path

import yaml

from tests.fakes.envoys import BINARY, cluster, configuration

PAGE = Path(__file__).parents[2] / "docs" / "kubernetes" / "other-envoys.md"


def test_a_real_envoy_takes_what_the_page_shows(tmp_path: Path) -> None:
    who, how_much = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)
    filters, _, of_the_route = how_much.partition("# of the route:\n")
    written = yaml.safe_load(who + filters)["http_filters"]
    assert [one["name"].rpartition(".")[2] for one in written] == ["ext_authz", "ratelimit"]
    route = {"route": {"cluster": "upstream", **yaml.safe_load(of_the_route)}}
    clusters = [cluster("upstream", 1)]
    clusters += [cluster(f"modelplane-{name}", 1, grpc=True) for name in ("auth", "ratelimit")]
    config = tmp_path / "envoy.json"
    config.write_text(json.dumps(configuration(1, route, written, clusters)))
    done = subprocess.run(
        [str(BINARY), "--mode", "validate", "--config-path", str(config), "--log-level", "warning"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
