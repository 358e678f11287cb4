"""Properties of arithmetic are about answers, not about how busy the machine is meanwhile."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
