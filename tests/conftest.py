"""What every test file shares: one thread, one meaning of "auto" precision, real images where they are."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.load_profile("ci")  # the same examples everywhere, and no limit of time on a busy machine
ROOT = Path(__file__).resolve().parent.parent
# They hold no doctests, and as modules they would have one name.
collect_ignore = ["conftest.py", "notebooks/conftest.py"]

# pytest loads this file before any test imports torch. Several test processes share the machine, and
# results are compared to the bit, which needs the same number of threads everywhere.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--precision",
        choices=("auto", "float32", "bfloat16", "other"),
        default="auto",
        help="what the precision 'auto' means in these tests; other: not what it does well",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: drives a real Chromium; skipped where there is none")
    config.addinivalue_line("markers", "precision: trains or embeds; passes in float32 and in bfloat16")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first: with the longest at the end one process would wait for the other."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session", autouse=True)
def precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give "auto" the meaning that --precision asks for: this processor then computes as another one does."""
    chosen = request.config.getoption("precision")
    if chosen == "auto":
        yield
        return
    from compat_lib import models

    resolve = models.resolve_precision
    if chosen == "other":
        chosen = {"float32": "bfloat16", "bfloat16": "float32"}[resolve("cpu", "auto")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            models, "resolve_precision", lambda on, asked: resolve(on, asked.replace("auto", chosen))
        )
        yield


@pytest.fixture(scope="session")
def project() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def omniglot_root() -> Path:
    """The data root that holds Omniglot; the test is skipped where it does not."""
    root = Path(os.environ.get("COMPAT_DATA") or ROOT / "data").expanduser().absolute()
    missing = [
        part
        for part in ("images_background", "images_evaluation")
        if not (root / "omniglot-py" / part).is_dir()
    ]
    if missing:
        pytest.skip(
            f"real images: no Omniglot ({', '.join(missing)}) under {root / 'omniglot-py'}; "
            "set COMPAT_DATA to a data root that holds it"
        )
    return root
