"""A command as a job of a Ray cluster: it runs on the cluster's head, and outlives the machine that it was typed on.

Whoever sees the cluster's dashboard sees a job's command and its environment, so no secret may be in either: secrets are those
of the environment in which Ray was started on each node.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import longtake
from longtake.curation.errors import SetupError
from longtake.curation.running.plugins import plugin_paths

_NEEDED = "submitting jobs needs a package that is not installed ({}): pip install 'longtake[submit]'"
_LOOK_SECONDS = 1.0  # Seconds between two looks at a job that is followed.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|SIGNATURE|\bPAT\b|AUTH", re.IGNORECASE)
OVER = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True, slots=True)
class Submission:
    """What is submitted. arguments: of `longtake`. files: name → a file of this machine that goes along, and lies in the folder
    that the command runs in. environment: of the job, without secrets. package: send this machine's longtake and plug-ins."""

    arguments: Sequence[str]
    files: Mapping[str, Path]
    environment: Mapping[str, str]
    package: bool = True

    @property
    def entrypoint(self) -> str:
        """The command as the cluster runs it."""
        return shlex.join(["python", "-m", "longtake", *self.arguments])


def check_environment(environment: Mapping[str, str]) -> None:
    """Raises SetupError if a variable looks like a secret."""
    for name in environment:
        if _SECRET.search(name):
            raise SetupError(
                f"{name} looks like a secret, and a job's environment is shown to everybody who sees the cluster's dashboard: "
                "set it in the environment in which Ray is started on each node instead (on Kubernetes by a Secret of the pod)"
            )


def submit(submission: Submission, address: str | None) -> str:
    """Submit; the job's id. address: of the cluster's dashboard, `http://HOST:8265`; None: RAY_API_SERVER_ADDRESS, else this
    machine's. Raises SetupError."""
    check_environment(submission.environment)
    client = _client(address)
    with _runtime_env(submission) as runtime_env:
        try:
            job: str = client.submit_job(entrypoint=submission.entrypoint, runtime_env=runtime_env)
        except RuntimeError as error:
            raise SetupError(f"the cluster does not take the job: {_line(error)}") from error
    return job


def follow(job: str, address: str | None, write: Callable[[str], Any]) -> str:
    """What a job writes, as it writes it, until it is over; its last state, one of OVER. Raises SetupError."""
    client = _client(address)
    told = 0
    while True:
        try:
            status = str(client.get_job_status(job).value)
            logs = client.get_job_logs(job) or ""
        except (OSError, RuntimeError) as error:
            raise SetupError(f"the cluster does not answer any more; the job goes on: {_line(error)}") from error
        if len(logs) > told:
            write(logs[told:])
            told = len(logs)
        if status in OVER:
            return status
        time.sleep(_LOOK_SECONDS)


def _client(address: str | None) -> Any:
    try:
        from ray.job_submission import JobSubmissionClient

        for name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
            logging.getLogger(name).setLevel(logging.ERROR)  # These loggers would report each package that is sent.
        return JobSubmissionClient(address)
    except (ImportError, ModuleNotFoundError) as error:
        raise SetupError(_NEEDED.format(error.name or error)) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        if "ray[default]" in str(error):
            raise SetupError(_NEEDED.format("ray[default]")) from error
        where = address or "this machine (RAY_API_SERVER_ADDRESS names another)"
        raise SetupError(f"no Ray dashboard answers at {where}: {_line(error)}") from error


@contextmanager
def _runtime_env(submission: Submission) -> Iterator[dict[str, Any]]:
    """What Ray takes along. Folders are copied first: those of a checkout are links, which its archive would not follow."""
    with tempfile.TemporaryDirectory(prefix="longtake-submit-") as scratch:
        along = Path(scratch) / "job"
        along.mkdir()
        for name, file in submission.files.items():
            shutil.copyfile(file, along / name)
        made: dict[str, Any] = {"working_dir": str(along), "env_vars": dict(submission.environment)}
        if submission.package:
            package = Path(scratch) / "longtake"
            shutil.copytree(Path(longtake.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
            made["py_modules"] = [str(package), *_metadata(), *plugin_paths()]
        yield made


def _metadata() -> list[str]:
    """The folder by which an installed longtake is known, with its version."""
    folder = getattr(distribution("longtake"), "_path", None)
    return [str(folder)] if isinstance(folder, Path) else []


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
