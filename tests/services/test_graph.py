"""The table of services."""

from importlib import import_module
from pathlib import Path

import pytest

import services
from services.compose import load, load_contract
from services.graph import ALL_IN_ONE, SERVICES, start_order

FOLDER = Path(services.__file__).parent


def test_every_need_is_a_service_with_a_contract() -> None:
    for name, row in SERVICES.items():
        for need in row.needs:
            assert SERVICES[need].contract, f"{name} needs {need}"


def test_no_service_needs_itself_in_a_circle() -> None:
    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        for need in SERVICES[name].needs:
            walk(need, (*path, name))

    for name in SERVICES:
        walk(name, ())


@pytest.mark.parametrize("name", SERVICES)
def test_contracts_load_and_are_named_after_their_service(name: str) -> None:
    row = SERVICES[name]
    if row.contract is None:
        with pytest.raises(LookupError):
            load_contract(name)
        return
    contract = load_contract(name)
    module = import_module(contract.__module__)
    assert module.DESCRIPTORS[contract.__name__].full_name == f"modelplane.{name}.v1.{contract.__name__}"


@pytest.mark.parametrize("name", SERVICES)
def test_every_row_can_be_built(name: str) -> None:
    assert SERVICES[name].build == f"services.{name}.service:build"
    assert callable(load(SERVICES[name].build))


def test_every_service_folder_has_a_row_and_the_other_way_round() -> None:
    folders = {path.parent.name for path in FOLDER.glob("*/service.py")}
    assert folders == set(SERVICES)


def test_a_database_is_for_those_with_a_store() -> None:
    stores = {path.relative_to(FOLDER).parts[0] for path in (*FOLDER.glob("*/store.py"), *FOLDER.glob("*/store/"))}
    assert stores == {name for name, row in SERVICES.items() if row.database}


def test_the_start_order_puts_needs_first() -> None:
    order = start_order(SERVICES)
    assert sorted(order) == sorted(SERVICES)
    for name, row in SERVICES.items():
        for need in row.needs:
            assert order.index(need) < order.index(name)


def test_the_start_order_holds_only_what_is_asked_for() -> None:
    assert start_order(["gateway", "auth", "auth"]) == ["auth", "gateway"]
    assert start_order([]) == []


def test_an_unknown_service() -> None:
    with pytest.raises(KeyError, match=r"unknown service .*nothing.*; there are tenants"):
        start_order(["auth", "nothing"])


def test_model_services_and_an_edge_are_not_started_beside_the_others() -> None:
    assert set(SERVICES) - set(ALL_IN_ONE) == {"chat_inference", "xds"}
