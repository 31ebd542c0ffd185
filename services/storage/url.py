"""A database's url as other programs may be given it."""

from psycopg.conninfo import conninfo_to_dict, make_conninfo


def without_password(url: str) -> tuple[str, str]:
    """A connection string without the password, and the line of a password file that has it; "" when there is none."""
    values = conninfo_to_dict(url)
    password = str(values.pop("password", "") or "")
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    return make_conninfo("", **values), f"*:*:*:*:{escaped}\n" if password else ""
