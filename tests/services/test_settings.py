"""The environment as typed groups."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec
import pytest

from services.settings import Environment, Group, PlatformSettings, SettingsError


class Sample(Group, frozen=True, kw_only=True):
    """A group with a field of every kind that is in use."""

    group: ClassVar[str] = "sample"

    blocks: tuple[str, ...] = ()
    text: str = "default"
    count: Annotated[int, msgspec.Meta(ge=1)] = 3
    share: float = 0.5
    wanted: bool = False
    folder: Path = Path("here")
    maybe: str | None = None
    maybe_folder: Path | None = None
    level: Literal["low", "high"] = "low"


def group(**variables: str) -> Sample:
    return Environment({f"MODELPLANE_SAMPLE_{name}": value for name, value in variables.items()}).group(Sample)


def test_defaults() -> None:
    assert group() == Sample()


def test_every_kind_of_field() -> None:
    assert group(
        TEXT="x", COUNT="7", SHARE="0.25", WANTED="true", FOLDER="/a/b", MAYBE="m", MAYBE_FOLDER="/c", LEVEL="high"
    ) == Sample(
        text="x",
        count=7,
        share=0.25,
        wanted=True,
        folder=Path("/a/b"),
        maybe="m",
        maybe_folder=Path("/c"),
        level="high",
    )


def test_several_values_are_told_apart_by_commas() -> None:
    assert group(BLOCKS="10.0.0.0/8, 192.168.0.0/16,").blocks == ("10.0.0.0/8", "192.168.0.0/16")


def test_an_empty_variable_is_an_unset_one() -> None:
    assert group(COUNT="", TEXT="") == Sample()


def test_a_home_folder_is_expanded() -> None:
    assert group(FOLDER="~/x").folder == Path.home() / "x"


@pytest.mark.parametrize(
    ("name", "value"), [("COUNT", "many"), ("COUNT", "0"), ("SHARE", "x"), ("WANTED", "perhaps"), ("LEVEL", "middle")]
)
def test_what_does_not_fit_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"MODELPLANE_SAMPLE_{name}='{value}'"):
        group(**{name: value})


def test_groups_are_frozen() -> None:
    with pytest.raises(AttributeError):
        group().count = 4  # type: ignore[misc]


def test_the_platforms_own_group_has_no_middle_name() -> None:
    environment = Environment({"MODELPLANE_PORT": "1234", "MODELPLANE_SAMPLE_COUNT": "5"})
    assert environment.group(PlatformSettings).port == 1234
    assert environment.group(PlatformSettings).host == "127.0.0.1"


def test_capture_takes_only_our_variables_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPLANE_SAMPLE_COUNT", "5")
    monkeypatch.setenv("UNRELATED", "x")
    environment = Environment.capture({"MODELPLANE_SAMPLE_TEXT": "given"})
    monkeypatch.setenv("MODELPLANE_SAMPLE_COUNT", "6")
    assert (environment.group(Sample).count, environment.group(Sample).text) == (5, "given")
    assert "UNRELATED" not in environment.variables


def test_more_variables_leave_the_first_environment_as_it_was() -> None:
    first = Environment({"MODELPLANE_SAMPLE_COUNT": "5"})
    second = first.with_variables({"MODELPLANE_SAMPLE_COUNT": "6"})
    assert (first.group(Sample).count, second.group(Sample).count) == (5, 6)


def test_addresses_of_other_processes() -> None:
    environment = Environment({"MODELPLANE_RATELIMIT_ADDRESS": "host:1"})
    assert environment.address_of("ratelimit") == "host:1"
    assert environment.address_of("billing") is None


def test_slips_are_found_and_other_processes_settings_are_let_be() -> None:
    names = {
        "MODELPLANE_PROT": "MODELPLANE_PORT",
        "MODELPLANE_SAMPLE_TXET": "MODELPLANE_SAMPLE_TEXT",
        "MODELPLANE_SMAPLE_FOLDER": "MODELPLANE_SAMPLE_FOLDER",
        "MODELPLANE_SAMPLE_COLOUR_OF_ALL": "",
    }
    right = ("MODELPLANE_HOME", "MODELPLANE_SAMPLE_TEXT", "MODELPLANE_SAMPLE_ADDRESS", "MODELPLANE_ELSEWHERE_SIZE")
    assert Environment(dict.fromkeys((*names, *right), "1")).misspelt() == names


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert PlatformSettings(cache=tmp_path).cache_directory() == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert PlatformSettings().cache_directory() == tmp_path / "modelplane"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert PlatformSettings().cache_directory() == Path.home() / ".cache" / "modelplane"
