"""How many people a call to a crowd has: the most that are allowed take half a minute a test (`make test-crowds`)."""

import os

CROWD = int(os.environ.get("TEST_CROWD", "5000"))
