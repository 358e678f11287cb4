"""The store of an instance: rows on one connection, hot writes in front, artifacts on disk."""
