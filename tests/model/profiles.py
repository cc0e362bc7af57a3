"""How many examples of the model run: a slice for the test suite, or all.

The slice is derandomized: the same sequences on each machine, others only when the model changes.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

EXAMPLES, STEPS = 200, 40
CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)

settings.register_profile(
    "model-slice",
    max_examples=2,
    stateful_step_count=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=CHECKS,
)
settings.register_profile(
    "model",
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    database=None,
    deadline=None,
    suppress_health_check=CHECKS,
    phases=(Phase.generate, Phase.shrink),
)
SLICE = settings.get_profile("model-slice")
WHOLE = settings.get_profile("model")
