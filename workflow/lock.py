"""Write requirements.lock from pyproject.toml, and environment.yml from the lock.

    python workflow/lock.py [--upgrade]      (make lock; make lock UPGRADE=1 takes the newest of everything)

The lock is the one source of versions. It is made for every platform and Python from 3.11, carries
hashes and no address, and names in its head the digest of the dependency tables that it was made
from, so that a test sees when pyproject.toml has moved on without it.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("workflow", "milvus", "test")
DIGEST = "# dependency tables of pyproject.toml: sha256 "
CONDA_HEAD = """\
# For conda users: conda env create -f environment.yml && conda activate compat_lib
# Written by `make lock` from requirements.lock: edit neither by hand.
#
# pip cannot check hashes in a set that holds an editable package, and conda hands pip one set; so the
# lock's versions stand here without their hashes. To have the hashes checked as well:
#   conda create -n compat_lib python=3.12 pip && conda activate compat_lib
#   pip install --require-hashes --no-deps -r requirements.lock && pip install --no-deps -e .
name: compat_lib
channels:
  - conda-forge
dependencies:
  - python=3.12
  - pip
  - pip:
      - --editable .
"""


def dependency_digest(pyproject: Path) -> str:
    """Digest of what pyproject.toml asks for: Python, dependencies and extras."""
    project = tomllib.loads(pyproject.read_text())["project"]
    tables = {key: project[key] for key in ("requires-python", "dependencies", "optional-dependencies")}
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()


def pins(lock_text: str) -> list[str]:
    """The lock's entries without hashes and comments: ``name==version ; marker``."""
    entries = re.findall(r"^([a-z0-9][^\s=]*==[^\\\n]+)", lock_text, flags=re.MULTILINE)
    return [entry.strip() for entry in entries]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    arguments = parser.parse_args()
    lock = ROOT / "requirements.lock"
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "pyproject.toml", "--quiet"]
    command += [part for extra in EXTRAS for part in ("--extra", extra)]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url"]
    command += ["--custom-compile-command", "make lock", "--output-file", lock.name]
    command += ["--upgrade"] if arguments.upgrade else []
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit("requirements.lock was not changed: the lines above say why.")
    body = lock.read_text()
    lock.write_text(f"{DIGEST}{dependency_digest(ROOT / 'pyproject.toml')}\n{body}")
    # A marker may hold a quote or a hash sign; JSON's quoting is YAML's too.
    rows = "".join(f"      - {json.dumps(pin)}\n" for pin in pins(body))
    (ROOT / "environment.yml").write_text(CONDA_HEAD + rows)
    print(f"requirements.lock and environment.yml: {len(pins(body))} pins")


if __name__ == "__main__":
    main()
