"""Some faults of an object store (`make chaos-s3` is a long one): rows are equal, and no run ends in a traceback."""

from __future__ import annotations

import pytest

from longtake.manifests import lock


@pytest.mark.slow  # A real S3 server is started, and the same command is given again and again.
def test_a_workspace_in_a_store_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    from benchmarks.chaos_s3 import KINDS, campaign

    for name in ("STALE_SECONDS", "HEARTBEAT_SECONDS"):
        # The campaign changes these constants, and monkeypatch restores them.
        monkeypatch.setattr(lock, name, getattr(lock, name))
    met, wrong = campaign(faults=10, films=2, seed=1)
    assert wrong == []
    assert sum(met[kind] for kind in KINDS) >= 10
