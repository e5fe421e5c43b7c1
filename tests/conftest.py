"""What all tests share: how many examples a property gets.

`HYPOTHESIS_PROFILE` chooses: `fast` (default, `make test-fast`), `ci`, `fuzz` (`make fuzz`). A test names a number
of its own only when an example is dear (a process, a database).
Not here: fixtures; they live beside what they set up.
"""

import os
from typing import Final

from hypothesis import HealthCheck, settings

EXAMPLES: Final = {"fast": 60, "ci": 200, "fuzz": 5_000}

for _name, _examples in EXAMPLES.items():
    # No deadline: the machine's load is no property of a parser.
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))
