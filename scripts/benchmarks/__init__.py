"""Measure a fleet against stock `mlflow server` on the same machine and the same Postgres.

Every figure is taken from outside: a client's clock, `/proc`, and rows counted in Postgres. The
two sides are measured in turns (A/B/A/B) within one run and compared by medians.
docs/benchmarks.md says how to read and repeat it.
"""
