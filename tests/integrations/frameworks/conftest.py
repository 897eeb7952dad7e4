"""What needs other projects' packages, tested where these are: `make test-integrations`. Elsewhere nothing is here."""

import os
from importlib.util import find_spec

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

collect_ignore_glob = [] if find_spec("langchain_tests") else ["test_*.py"]
