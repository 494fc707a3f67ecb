"""One source of versions: pyproject.toml says what is needed, the lock what is installed."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import compat_lib

ENVIRONMENTS = [
    {"python_version": python[: python.rindex(".")], "python_full_version": python, "sys_platform": system}
    for python in ("3.11.9", "3.12.4", "3.13.1")
    for system in ("linux", "darwin")
]


@pytest.fixture(scope="module")
def tables(project):
    return tomllib.loads((project / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def lock_lines(project):
    return (project / "requirements.lock").read_text().splitlines()


@pytest.fixture(scope="module")
def locked(lock_lines):
    """The lock's requirements: lines that start with a letter."""
    return [Requirement(line.rstrip("\\ ")) for line in lock_lines if line[:1].isalnum()]


def wanted(tables):
    extras = tables["optional-dependencies"]
    groups = [tables["dependencies"], *(extras[name] for name in extras if name != "kubernetes")]
    return [Requirement(text) for group in groups for text in group]


@pytest.mark.parametrize(
    "environment", ENVIRONMENTS, ids=lambda e: f"{e['python_version']}-{e['sys_platform']}"
)
def test_every_dependency_is_locked_once_at_a_version_that_fits(tables, locked, environment):
    for need in wanted(tables):
        pins = [
            pin
            for pin in locked
            if canonicalize_name(pin.name) == canonicalize_name(need.name)
            and (pin.marker is None or pin.marker.evaluate(environment))
        ]
        assert len(pins) == 1, f"{need} has {len(pins)} pins"
        (version,) = [clause.version for clause in pins[0].specifier if clause.operator == "=="]
        assert need.specifier.contains(version), f"{need}, but the lock has {version}"


def test_every_locked_package_has_hashes_and_no_address(lock_lines, locked):
    text = "\n".join(lock_lines)
    assert "://" not in text and "index" not in text.replace("indexed", "")
    entries = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert len(entries) == len(locked)
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_lock_holds_what_builds_the_package_on_every_python(locked):
    by_name = {pin.name: pin for pin in locked}
    for name in ("setuptools", "uv"):
        assert by_name[name].marker is None


def test_conda_installs_the_lock_on_a_python_that_the_package_supports(project, tables):
    python, _, pip = yaml.safe_load((project / "environment.yml").read_text())["dependencies"]
    assert Requirement(f"x{tables['requires-python']}").specifier.contains(python.split("=")[1] + ".0")
    # pip refuses an editable package, which is this one, in a set with hashes
    assert pip == {"pip": ["-r requirements.lock"]}


def test_the_lock_is_made_of_every_extra_but_that_of_one_cluster(project, tables):
    command = (project / "Makefile").read_text()
    assert set(re.findall(r"--extra (\w+)", command)) == set(tables["optional-dependencies"]) - {"kubernetes"}


def test_the_package_has_one_version(project):
    citation = yaml.safe_load((project / "CITATION.cff").read_text())
    assert citation["version"] == compat_lib.__version__


def test_the_environment_is_what_the_lock_says(project, locked):
    """The tests speak for the locked versions only when they run on them."""
    if Path(sys.prefix).resolve() != (project / ".venv").resolve():
        pytest.skip("these tests run in an environment that make did not make; its versions are its own")
    different = [
        f"{pin.name}: {importlib.metadata.version(pin.name)} instead of {pin.specifier}"
        for pin in locked
        if (pin.marker is None or pin.marker.evaluate())
        and not pin.specifier.contains(importlib.metadata.version(pin.name))
    ]
    assert not different
