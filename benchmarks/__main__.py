"""The command `encvec` with this checkout's data sets by name: `python -m benchmarks bench --data banking77`."""

from benchmarks.corpora import find
from encvec_store.cli import main
from encvec_store.cli.bench_data import FINDERS

FINDERS.append(find)
main()
