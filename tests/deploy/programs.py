"""Programs of the system that some tests need."""

import os
import shutil
import subprocess

import pytest


def need(*programs: str, as_root: bool = False) -> None:
    """Skip the test where a program is missing, or the right to use it; in CI, let it fail."""
    missing = [program for program in programs if shutil.which(program) is None]
    if as_root and os.geteuid() != 0:
        missing.append("root")
    if "unshare" in programs and not missing and not _may_unshare():
        missing.append("the right to make namespaces")
    if missing and "CI" in os.environ:
        pytest.fail(f"needs {', '.join(missing)}")
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def _may_unshare() -> bool:
    command = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
