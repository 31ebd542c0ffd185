"""Usage records as files, a row for each: CSV, or Parquet for what reads columns."""

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from modelplane.reports.v1.reports_pb2 import PricedUsage
from modelplane.usage.v1.usage_pb2 import Outcome, Usage
from services.settings import SettingsError

_WHO: Final = ("organization_id", "project_id", "key_id", "user_id")
_OUTCOME: Final = "OUTCOME_"
# Everything else is a number, and one that may be missing.
_TEXTS: Final = frozenset(
    ("request_id", *_WHO, "model", "service_tier", "operation", "image_size", "image_quality", "outcome", "tools")
)
_FLAGS: Final = frozenset(("batch",))


def row(record: PricedUsage) -> Mapping[str, Any]:
    """By the names of the columns; `tools` is a JSON object, and `price_id` None for what had no price."""
    usage = record.usage
    counts = {
        field.name: getattr(usage, field.name)
        for field in Usage.DESCRIPTOR.fields
        if field.name not in ("request_id", "attribution", "outcome", "tools")
    }
    return {
        "request_id": usage.request_id,
        **{name: getattr(usage.attribution, name) for name in _WHO},
        **counts,
        "outcome": Outcome.Name(usage.outcome).removeprefix(_OUTCOME).lower(),
        "tools": msgspec.json.encode({used.tool: used.calls for used in usage.tools}).decode(),
        "price_id": record.price_id if record.HasField("price_id") else None,
        "nanodollars": record.nanodollars,
    }


COLUMNS: Final = tuple(row(PricedUsage()))


class UsageFile(AbstractContextManager["UsageFile"], ABC):
    """A file that is being written. It has its name only when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")

    @abstractmethod
    def add(self, records: Iterable[PricedUsage]) -> None:
        """Appends a row for each."""

    @abstractmethod
    def close(self) -> None:
        """Ends the file."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)


class CsvFile(UsageFile):
    """With a line of names. Raises OSError."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = self._partial.open("w", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._file, COLUMNS)
        self._rows.writeheader()

    def add(self, records: Iterable[PricedUsage]) -> None:
        self._rows.writerows(map(row, records))

    def close(self) -> None:
        self._file.close()


class ParquetFile(UsageFile):
    """A row group for each page of records. Raises OSError, and SettingsError without the library."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise SettingsError("Parquet needs the package pyarrow: pip install pyarrow") from error
        super().__init__(path)
        kinds = {True: pyarrow.string(), False: pyarrow.int64()}
        self._schema = pyarrow.schema(
            [(name, pyarrow.bool_() if name in _FLAGS else kinds[name in _TEXTS]) for name in COLUMNS]
        )
        self._table = pyarrow.Table.from_pylist
        self._writer = parquet.ParquetWriter(self._partial, self._schema)

    def add(self, records: Iterable[PricedUsage]) -> None:
        self._writer.write_table(self._table(list(map(row, records)), self._schema))

    def close(self) -> None:
        self._writer.close()


FORMATS: Final[Mapping[str, type[CsvFile] | type[ParquetFile]]] = {"csv": CsvFile, "parquet": ParquetFile}
