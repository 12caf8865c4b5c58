"""What all unit tests share: property tests without a deadline, as a busy machine is no defect of ours."""

from hypothesis import settings

settings.register_profile("credwire", deadline=None)
settings.load_profile("credwire")
