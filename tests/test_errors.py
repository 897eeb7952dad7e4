"""The error tree that the docstring draws is the tree of the classes."""

import importlib
import inspect
import pickle
import pkgutil
import re

import pytest

import encvec_store as ev
from encvec_store import errors


def drawn():
    """Read (name, parent, other bases) off the drawing."""
    branches = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"^    ((?:[│ ]   )*(?:[├└]── )?)(\w+Error)(?: \(also (\w+)\))?(?:\s|$)", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            branches[found[2]] = (path[depth - 1] if depth else None, found[3])
    return branches


def classes():
    return {name: item for name, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, Exception)}


def test_the_drawing_shows_the_tree():
    tree = drawn()
    assert len(tree) > 20
    assert set(tree) == set(classes()) == set(errors.__all__)
    for name, (parent, also) in tree.items():
        item = classes()[name]
        if parent is not None:
            assert item.__bases__[0] is classes()[parent], name
        if also is not None:
            assert also in {base.__name__ for base in item.__mro__}, name


@pytest.mark.parametrize("name", sorted(classes()))
def test_every_error_says_what_it_means(name):
    assert classes()[name].__doc__
    assert issubclass(classes()[name], errors.EncvecError)


def test_bad_input_is_a_value_error_and_nothing_else_is():
    for item in classes().values():
        assert issubclass(item, ValueError) is issubclass(item, errors.InputError)


def test_unreachable_is_never_forged():
    assert not issubclass(errors.StoreError, errors.AuthenticationError)
    assert not issubclass(errors.AuthenticationError, errors.StoreError)


def test_lookup():
    assert issubclass(errors.CollectionNotFoundError, LookupError)


def every_error():
    """The errors of all modules that can be imported here."""
    for module in pkgutil.walk_packages(ev.__path__, "encvec_store."):
        if not module.name.endswith("__main__"):
            try:
                found = vars(importlib.import_module(module.name)).values()
            except ImportError as error:  # an adapter of a framework that is not installed
                assert "pip install 'encvec-store[" in str(error)  # noqa: PT017
                continue
            yield from (item for item in found if inspect.isclass(item) and issubclass(item, errors.EncvecError))


def test_errors_come_back_from_another_process_as_they_were():
    """As multiprocessing sends them: pickled, with their attributes."""
    ours = {item for item in every_error() if item.__module__.startswith("encvec_store")}
    assert len(ours) > 30
    for item in ours:
        error = item("a sentence")
        error.row = 5
        back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert (type(back), str(back), back.row) == (item, str(error), 5)


def test_what_holds_keys_or_connections_says_why_it_is_not_pickled():
    keyset = ev.Keyset.create("memory:")
    with ev.connect("memory:", keyset=keyset) as store:
        for item, name in ((keyset, "Keyset"), (store, "Store"), (store.collection("a", dim=2), "Collection")):
            with pytest.raises(TypeError, match=f"a {name} cannot be pickled: "):
                pickle.dumps(item)
