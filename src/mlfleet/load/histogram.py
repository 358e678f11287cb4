"""Latencies as counts per bucket: small enough to keep for each second, exact enough to trust.

Pure. Each bucket is 5 % wider than the one before, and a value is told by the middle of its bucket,
so a percentile is at most 2.5 % away from that of the samples themselves. Histograms add up without
loss: seconds to minutes, processes to a run. Averages or percentiles of seconds would not.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

RATIO = 1.05
LEAST_S = 1e-6
"""What is shorter counts as this: bucket 0."""
_LOG_RATIO = math.log(RATIO)


def bucket(latency_s: float) -> int:
    """Return the number of the bucket of a latency: 283 for a second, 381 for two minutes."""
    if latency_s <= LEAST_S:
        return 0
    return int(math.log(latency_s / LEAST_S) / _LOG_RATIO)


def middle_s(number: int) -> float:
    """Return the geometric middle of a bucket, which is at most 2.5 % from all that is in it."""
    return LEAST_S * math.exp((number + 0.5) * _LOG_RATIO)


class Histogram:
    """Counts of latencies."""

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        """Start with counts by bucket number, or with none."""
        self.counts: Counter[int] = Counter(counts or {})

    def add(self, latency_s: float) -> None:
        """Count one latency."""
        self.counts[bucket(latency_s)] += 1

    def merge(self, other: "Histogram") -> None:
        """Count everything that another one counted."""
        self.counts.update(other.counts)

    def __len__(self) -> int:
        return self.counts.total()

    def percentile(self, share: float) -> float | None:
        """Return the smallest latency in seconds that this share of all do not exceed.

        Args:
            share: from 0 to 1; 0.99 for p99.

        Returns:
            None without a sample.
        """
        rank = max(1, math.ceil(share * len(self)))
        for number in sorted(self.counts):
            rank -= self.counts[number]
            if rank <= 0:
                return middle_s(number)
        return None

    def to_json(self) -> dict[str, int]:
        """Return the counts with keys that JSON allows."""
        return {str(number): count for number, count in sorted(self.counts.items())}

    @classmethod
    def from_json(cls, counts: Mapping[str, int]) -> "Histogram":
        """Return what `to_json` was made of."""
        return cls({int(number): count for number, count in counts.items()})

    @classmethod
    def merged(cls, histograms: "Iterable[Histogram]") -> "Histogram":
        """Return one that counted what all of them counted."""
        total = cls()
        for histogram in histograms:
            total.merge(histogram)
        return total
