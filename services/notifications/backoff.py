"""How long to wait after a delivery that failed. Pure."""

FIRST_WAIT_S = 1.0


def wait_s(failures: int, most_s: float) -> float:
    """After so many failures in a row, 1 or more: each wait is twice the one before."""
    return min(most_s, FIRST_WAIT_S * 2.0 ** min(failures - 1, 32))
