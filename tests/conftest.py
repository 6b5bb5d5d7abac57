"""Loads the suite's modes where tests run: the process that only hands them out to others needs no framework."""

import gc

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        gc.disable()  # until all is imported
        config.pluginmanager.import_plugin("suite")
