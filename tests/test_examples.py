"""The examples in docstrings give what they show."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["code_seg.metrics", "code_seg.labels", "code_detection.labels"])
def test_the_examples_of_a_module(module):
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0 and results.failed == 0
