"""Decide whether and when a stock client sends a request again.

Pure. What mlflow 3.17.2 does, with urllib3 2: every method, `runs/create` included, is sent again
after 408, 429, 500, 502, 503, 504 and after a lost connection, seven times at most; at once the
first time, then after 4, 8, … s and up to 1 s more, at most 120 s; a Retry-After header goes first.
"""

import random

TRANSIENT = frozenset({0, 408, 429, 500, 502, 503, 504})
"""Statuses after which a client tries again; 0 is an answer that never came."""
MOST = 7
_FACTOR_S = 2.0
_JITTER_S = 1.0
_LONGEST_S = 120.0


def pause_s(
    status: int, failures: int, retry_after_s: float | None, draw: random.Random
) -> float | None:
    """Return how long to wait before the next try, or None if there is none.

    Args:
        status: of the try that ended.
        failures: tries of this request that failed, this one included.
    """
    if status not in TRANSIENT or failures > MOST:
        return None
    if retry_after_s is not None:
        return retry_after_s
    if failures == 1:
        return 0.0
    wait_s: float = _FACTOR_S * 2 ** (failures - 1) + draw.random() * _JITTER_S
    return min(wait_s, _LONGEST_S)
