"""TensorLy-Torch's own tests, as they ship in its wheel, run against our names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.run_upstream import copied_tests, upstream

EXCEPTIONS: dict[str, str] = {}
"""Case -> why it tests a defect, and so must fail with us."""

SOURCE = upstream()


@pytest.mark.slow
@pytest.mark.skipif(SOURCE is None, reason="TensorLy-Torch and TensorLy are not installed")
def test_the_tests_of_tensorly_torch_pass_but_for_named_exceptions(tmp_path: Path) -> None:
    assert SOURCE is not None
    files = copied_tests(SOURCE, tmp_path)
    assert files, f"no tests below {SOURCE}"
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-W", "ignore", *files]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE.parent), *sys.path])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    found = re.findall(r"^(PASSED|FAILED|ERROR) \S*?::(\S+)", done.stdout, re.M)
    outcomes = {case: word for word, case in found}
    assert len(outcomes) >= 50, done.stdout[-4000:]
    failed = {case for case, word in outcomes.items() if word != "PASSED"}
    assert failed == set(EXCEPTIONS), done.stdout[-8000:]
