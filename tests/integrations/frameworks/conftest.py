"""The adapters of frameworks, tested where these are installed: `make test-integrations`. Elsewhere nothing is here."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("langchain_tests") else ["test_*.py"]
