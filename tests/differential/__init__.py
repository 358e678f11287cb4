"""The differential suite: one sequence of calls to a stock server and to a fleet, one result.

`side` sends, `comparison` decides what is equal, `pair` does a call on both sides and fails on the
first difference that `exceptions.toml` does not list.
"""
