"""Histograms against the samples themselves."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfleet.load.histogram import Histogram, bucket

latencies = st.floats(1e-6, 600, exclude_min=True)
samples = st.lists(latencies, min_size=1, max_size=200)
shares = st.floats(0, 1)


def exact(values: list[float], share: float) -> float:
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


def counted(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(values=samples, share=shares)
def test_a_percentile_is_within_two_and_a_half_percent_of_the_exact_one(values, share):
    assert counted(values).percentile(share) == pytest.approx(exact(values, share), rel=0.025)


@given(parts=st.lists(samples, min_size=1, max_size=5))
def test_merged_histograms_equal_one_of_all_samples(parts):
    merged = Histogram.merged(map(counted, parts))
    assert merged.counts == counted([value for part in parts for value in part]).counts


@given(values=samples)
def test_json_loses_nothing(values):
    histogram = counted(values)
    assert Histogram.from_json(json.loads(json.dumps(histogram.to_json()))).counts == (
        histogram.counts
    )


@given(one=latencies, other=latencies)
def test_a_longer_latency_is_never_in_an_earlier_bucket(one, other):
    assert (bucket(one) <= bucket(other)) or one > other


def test_without_samples_there_is_no_percentile():
    assert Histogram().percentile(0.5) is None
