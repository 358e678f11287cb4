"""Measure a fleet under load by thousands of users, and write what came out into the docs.

Each row starts a fleet of its own, runs `mlfleet load …` on it as a person would, and reads the
run's folder. docs/load.md says what each figure means.
"""
