"""`ray`, with ten minutes of patience for a node that starts: its own half a minute is a number in its code, and too little on a
machine that is busy with other jobs. And without the server of Ray Client, which nobody asks here, and which takes seconds to
start. `python -m tests.curation.patient_ray start …`"""

from __future__ import annotations

import inspect
import sys
import textwrap

from ray._private import node
from ray.scripts.scripts import main


def wait_longer(seconds: int = 600) -> None:
    """Change the number in the code of the class that starts a node."""
    code = textwrap.dedent(inspect.getsource(node.Node.__init__))
    longer = code.replace("raylet_start_wait_time_s = 30\n", f"raylet_start_wait_time_s = {seconds}\n")
    assert longer != code, "this Ray has its patience elsewhere"
    made: dict[str, object] = {}
    exec(compile(longer, node.__file__, "exec"), node.__dict__, made)
    node.Node.__init__ = made["__init__"]  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    wait_longer()
    node.Node.start_ray_client_server = lambda self: None  # type: ignore[method-assign]
    sys.exit(main())
