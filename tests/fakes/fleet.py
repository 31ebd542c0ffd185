"""A fleet without processes: replicas become ready and end when the test says so."""

from collections.abc import Callable

from services.pools.messages import Command, Connected, Drain, Ended, Event, Found, Kill, Phase, Ready, Start, Waiting


class FakeFleet:
    """Keeps the replicas that run. A drained one ends at once, unless `drains` is False."""

    def __init__(self, outlived: bool = False) -> None:
        self.outlived = outlived
        self.running: dict[str, Start] = {}
        self.draining: list[str] = []
        self.drains = True
        self.closed = False
        self._accept: Callable[[Event], None] = lambda event: None

    async def open(self, accept: Callable[[Event], None]) -> None:
        self._accept = accept

    def send(self, command: Command) -> None:
        match command:
            case Start():
                self.running[command.replica_id] = command
                self._accept(Phase(command.replica_id, 17, "loading weights"))
            case Drain(replica_id):
                self.draining.append(replica_id)
                if self.drains:
                    self.end(replica_id)
            case Kill(replica_id):
                self.end(replica_id, "killed")

    async def close(self) -> None:
        self.closed = True

    def connected(self, *found: Found) -> None:
        self._accept(Connected(1, found))

    def crowded(self, replica_id: str) -> None:
        self._accept(Waiting(replica_id, "no node has pool-m free", True))

    def ready(self, replica_id: str) -> None:
        self._accept(Ready(replica_id, 17, f"{replica_id}:1", "10.0.0.1", "node"))

    def end(self, replica_id: str, error: str = "") -> None:
        del self.running[replica_id]
        self._accept(Ended(replica_id, error))
