from __future__ import annotations

import inspect
import pickle
import re

import pytest

from trtfarm import errors
from trtfarm.errors import InvalidDigestError, NotFoundError, TrtFarmError, from_code

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, TrtFarmError) and kind.__module__.startswith(errors.__name__)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_the_docstring_is_the_message(kind):
    assert kind.__doc__
    assert kind.__doc__ != kind.__base__.__doc__
    first = kind.__doc__.partition("\n")[0]
    assert first.endswith(".")
    assert (kind().message, str(kind()), kind().hint, kind().details) == (first, first, None, {})


@pytest.mark.parametrize("kind", CLASSES)
def test_the_code_is_its_own(kind):
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", kind.code)
    assert "code" in vars(kind)


def test_codes_are_unique():
    assert len({kind.code for kind in CLASSES}) == len(CLASSES) > 50


@pytest.mark.parametrize("kind", CLASSES)
def test_it_comes_back_from_its_code(kind):
    error = from_code(kind.code, "What happened.", "What to do.", {"limit": 3})
    assert type(error) is kind
    assert (error.message, error.hint, error.details) == ("What happened.", "What to do.", {"limit": 3})


@pytest.mark.parametrize("kind", CLASSES)
def test_it_crosses_processes_whole(kind):
    copy = pickle.loads(pickle.dumps(kind("What happened.", hint="What to do.", limit=3)))
    assert type(copy) is kind
    assert (copy.message, copy.hint, copy.details) == ("What happened.", "What to do.", {"limit": 3})
    assert str(copy) == "What happened. What to do."


def test_a_code_of_a_newer_farm():
    error = from_code("NOT_INVENTED_YET", "What happened.")
    assert isinstance(error, TrtFarmError)
    assert (error.code, str(error)) == ("NOT_INVENTED_YET", "What happened.")
    assert isinstance(from_code("NOT_INVENTED_YET", "What happened.", otherwise=NotFoundError), NotFoundError)


def test_some_are_value_errors_so_that_pydantic_reports_them():
    assert issubclass(InvalidDigestError, ValueError)
    assert not issubclass(NotFoundError, ValueError)
