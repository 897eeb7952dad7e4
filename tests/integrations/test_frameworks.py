"""Adapters of frameworks that are not installed say which extra is missing. `frameworks/` tests them in full."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "package"),
    [("langchain", "langchain_core"), ("llamaindex", "llama_index"), ("haystack", "haystack"), ("mcp", "mcp")],
)
def test_a_missing_extra_is_named(monkeypatch, module, package):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"encvec_store.integrations.{module}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'encvec-store\[{module}\]'"):
        importlib.import_module(f"encvec_store.integrations.{module}")
