"""Make the environment in .venv from requirements.lock; nothing happens when it is already right.

    python3 workflow/install.py [--chosen]

Runs on the bare interpreter, so it uses the standard library only, and syntax that an interpreter
which is too old can still read in order to be told so. The installer, uv, stands in the lock
with its hashes like everything else: pip installs that one entry, uv installs the rest in seconds.
Where uv cannot be had, pip installs all of it from the same lock, with the same hashes.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.txt"
LOCK = ROOT / "requirements.lock"
OLDEST = (3, 11)


def wanted_state():
    """Digest of everything that decides what .venv must hold, and of where it stands.

    The folder counts because the scripts in .venv/bin name it: a moved clone needs a new .venv.
    """
    parts = [str(ROOT).encode(), LOCK.read_bytes(), (ROOT / "pyproject.toml").read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def lock_entry(text, name):
    """The lines of one package in the lock, hashes included; empty when it is not there."""
    found = re.search(rf"^{re.escape(name)}==.*(?:\n[ \t]+.*)*", text, flags=re.MULTILINE)
    return found.group(0) + "\n" if found else ""


def version_of(python):
    """(major, minor) of an interpreter, or None when it does not run."""
    try:
        text = subprocess.run(
            [str(python), "-c", "import sys; print(*sys.version_info[:2])"],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = text.split()
    return int(major), int(minor)


def make_venv(chosen):
    """An empty .venv, unless a usable one is there (half an installation is continued)."""
    there = version_of(PYTHON)
    mine = sys.version_info[:2]
    if there and there >= OLDEST and (not chosen or there == mine):
        return
    if mine < OLDEST:
        sys.exit(
            f"compat_lib needs Python 3.11 or newer; {sys.executable} is Python {mine[0]}.{mine[1]}. "
            "Name another interpreter, for example: make env PYTHON=python3.12"
        )
    print(f"Making .venv with Python {mine[0]}.{mine[1]}", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)]).returncode:
        sys.exit(
            f"{sys.executable} could not make a virtual environment. On Debian and Ubuntu the package "
            "python3-venv is missing; install it, or name another interpreter: make env PYTHON=python3.12"
        )


def run(*command):
    """Whether a command ended well; its own output is shown."""
    try:
        return subprocess.run([str(part) for part in command], cwd=str(ROOT)).returncode == 0
    except OSError as error:  # for example a uv that was not built for this machine
        print(f"{command[0]}: {error}", flush=True)
        return False


def install_with_uv():
    """The lock and the package, by uv; False when uv cannot be had or does not manage."""
    entry = lock_entry(LOCK.read_text(), "uv")
    with tempfile.TemporaryDirectory() as folder:
        requirement = Path(folder) / "uv.txt"
        requirement.write_text(entry)
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if not entry or not run(*pip, "--require-hashes", "--no-deps", "-r", requirement):
            return False
    uv = [VENV / "bin" / "uv", "pip"]
    package = ["--no-deps", "--no-build-isolation", "--editable", "."]
    print("Installing requirements.lock (the first time this fetches about 3 GB)", flush=True)
    return run(
        *uv, "sync", "--quiet", "--compile-bytecode", "--python", PYTHON, "--require-hashes", LOCK
    ) and run(*uv, "install", "--quiet", "--python", PYTHON, *package)


def install_with_pip():
    """The same, by pip alone: slower, equally checked. uv itself is left out: it may be the obstacle."""
    text = LOCK.read_text()
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "lock.txt"
        requirements.write_text(text.replace(lock_entry(text, "uv"), ""))
        pip = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
        return run(*pip, "--require-hashes", "-r", requirements) and run(
            *pip, "--no-build-isolation", "--editable", "."
        )


def main():
    parser = argparse.ArgumentParser(description="Make the environment in .venv from requirements.lock.")
    parser.add_argument(
        "--chosen", action="store_true", help="the user named this interpreter: .venv must be of its version"
    )
    chosen = parser.parse_args().chosen
    state = wanted_state()
    there = STAMP.read_text().split() if STAMP.exists() else []
    mine = "{}.{}".format(*sys.version_info[:2])
    if PYTHON.exists() and there[:1] == [state] and (not chosen or there[1:] == [mine]):
        return
    make_venv(chosen)
    if STAMP.exists():
        STAMP.unlink()
    if not install_with_uv():
        print("uv could not do it; going on with pip, which takes some minutes longer", flush=True)
        if not install_with_pip():
            sys.exit(
                "The environment could not be installed: the lines above say why. Is the package index "
                "reachable, and is there room for 8 GB? The same command goes on where this one stopped."
            )
    STAMP.write_text("{} {}.{}\n".format(state, *version_of(PYTHON)))
    print("The environment stands in .venv", flush=True)


if __name__ == "__main__":
    main()
