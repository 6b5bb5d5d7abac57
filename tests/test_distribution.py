"""What users install: a wheel and a source distribution, built here without a network, and what they say."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import diffstack
from release import __main__ as release

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = f"diffstack-{diffstack.__version__}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the source distribution, and of the wheel that was built from it and not from this tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in folder.iterdir()) == [f"{NAME}-py3-none-any.whl", f"{NAME}.tar.gz"]
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def sdist(built: Path) -> dict[str, bytes]:
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        files = {entry.name.removeprefix(f"{NAME}/"): entry for entry in archive.getmembers() if entry.isfile()}
        return {name: archive.extractfile(entry).read() for name, entry in files.items()}


@pytest.fixture(scope="module")
def metadata(wheel: dict[str, bytes]) -> Message:
    return Parser().parsestr(wheel[f"{NAME}.dist-info/METADATA"].decode())


def tracked(*folders: str) -> dict[str, bytes]:
    """The files of this tree in these folders, without what Python and the benchmarks leave there."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    names = [str(path.relative_to(ROOT)) for path in paths if "__pycache__" not in path.parts]
    return {n: (ROOT / n).read_bytes() for n in names if not n.startswith(("results/runs/", "benchmarks/results/"))}


def test_the_wheel_has_the_package_and_nothing_else(wheel: dict[str, bytes]):
    about = {name: content for name, content in wheel.items() if name.startswith(f"{NAME}.dist-info/")}
    assert wheel.keys() - about.keys() == tracked("diffstack").keys()
    assert {name: wheel[name] for name in tracked("diffstack")} == tracked("diffstack")
    assert "diffstack/py.typed" in wheel
    assert about[f"{NAME}.dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"diffstack = diffstack.__main__:main" in about[f"{NAME}.dist-info/entry_points.txt"]


def test_the_source_distribution_has_what_its_tests_and_pages_need(sdist: dict[str, bytes]):
    folders = tracked("diffstack", "tests", "benchmarks", "results", "release", "docs", "examples")
    assert {name: sdist.get(name) for name in folders} == folders
    pages = [path.name for path in ROOT.glob("*.md")]
    others = ["LICENSE", "CITATION.cff", "Makefile", "constraints.txt", "mkdocs.yml", "pyproject.toml"]
    for name in [*pages, *others]:
        assert sdist[name] == (ROOT / name).read_bytes()
    assert sdist.keys() - folders.keys() - set(pages) == {*others, ".gitignore", "PKG-INFO"}


def test_the_metadata_is_that_of_the_project(metadata: Message):
    assert metadata["Name"] == "diffstack"
    assert metadata["License-Expression"] == PROJECT["license"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "README.md").read_text()
    assert metadata.get_all("Provides-Extra") == sorted(PROJECT["optional-dependencies"])


def test_what_is_needed_without_an_extra_is_small(metadata: Message):
    """Each framework comes with its own extra alone."""
    needed = [Requirement(line) for line in metadata.get_all("Requires-Dist")]

    def names(extra: str) -> set[str]:
        return {each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": extra})}

    assert names("") == {"numpy", "jaxtyping"}
    assert names("jax") - names("") == {"jax", "jaxlib", "optax"}
    assert names("torch") - names("") == {"torch"}


def test_what_is_checked_before_a_release():
    """On every Python the lower ends of all ranges, and the newest; PyTorch only where it is at hand."""
    found = list(release.environments(["3.0", release.HERE], torch=False))
    assert [(each.python, each.title) for each in found] == [
        *(("3.0", f"{which} versions") for which in ("lowest", "newest")),
        *((release.HERE, f"{which} versions") for which in ("lowest", "newest")),
        *((release.HERE, f"{which} alone") for which in ("JAX", "PyTorch")),
    ]
    ours = {"torch": release.pinned("torch")}
    assert [each.constraints for each in found[1:]] == [{}, found[0].constraints | ours, ours, {}, ours]
    assert all(("torch" in each.extras) == ("torch" in each.constraints) for each in found)
    lines = [*PROJECT["dependencies"], *(line for e in release.EXTRAS for line in PROJECT["optional-dependencies"][e])]
    whole = release.lowest(release.EXTRAS, "3.0")
    assert len(whole) == len(lines)
    assert all(any(line.startswith(f"{name}>={version}") for line in lines) for name, version in whole.items())


def test_the_extras_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    (listed,) = re.findall(r"or some of ([a-z, ]+);", text)
    assert PROJECT["optional-dependencies"]["all"] == [f"diffstack[{listed.replace(', ', ',')}]"]


def test_versions_agree(metadata: Message):
    version = diffstack.__version__
    assert metadata["Version"] == version
    assert re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE) == [version]
    assert re.findall(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == version


def test_pythons_agree(metadata: Message):
    """The classifiers are the Pythons that pip lets in, and the README names the first and the last of them."""
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(metadata.get_all("Classifier")))
    allowed = SpecifierSet(metadata["Requires-Python"])
    assert named == [f"3.{minor}" for minor in range(50) if allowed.contains(f"3.{minor}.5")]
    assert f"Python {named[0]} to {named[-1]}" in (ROOT / "README.md").read_text()
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert configured["mypy"]["python_version"] == named[0]
    assert configured["ruff"]["target-version"] == f"py{named[0].replace('.', '')}"
