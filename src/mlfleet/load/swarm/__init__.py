"""The one home of Locust: users, shapes, listeners and its page."""
