"""The walk of docs/deploy.md in a real account: from nothing to nothing, with jobs on real instances in between.

    CIRRO_LIVE=1 AWS_PROFILE=me AWS_REGION=us-east-1 make test ARGS="tests/aws -m live --numprocesses 0 -s"

Needs credentials of somebody who may deploy, and a Docker engine. It takes about half an hour and costs some cents.
CIRRO_LIVE_GPU=1 adds a job on a GPU, which needs a quota for one. Whatever happens, what was made is deleted in the
end; if the process itself is killed, `cirro destroy --stack-name <the name printed first>` does it.

The same walk runs on the emulator in every CI (`tests/cli/test_walk.py`).
"""

from __future__ import annotations

from tests.aws.conftest import GPUS, put_image
from tests.aws.walk import Account, walk


def test_from_nothing_to_nothing(account: Account, parameters: dict[str, object]) -> None:
    """Deploy, image, a green doctor, a sweep, an update in place, a sweep, destroy, and nothing is left."""
    walk(account, parameters, put_image=put_image, gpus=GPUS)
