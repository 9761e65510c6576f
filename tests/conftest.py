"""What holds for every test: the loop that must not swallow errors, and how Hypothesis searches."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.kafka_server.fixtures"]

# No deadline: a slow machine must not turn a right answer into a failure. On a build machine the examples are
# the same for the same code, so a red run can be repeated.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
