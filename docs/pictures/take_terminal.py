"""Takes the pictures of the command line in docs/deploy.md: `cirro` on an emulated AWS, as a terminal would show it.

    python docs/pictures/take_terminal.py [--output FOLDER]

What says something of this machine only (paths, the loopback's port) is replaced by what a user would see.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from terminal import output_of, picture

sys.path.insert(0, str(Path(__file__).parents[2]))

from covalent_cirro import __version__
from covalent_cirro.contract import problems, protocol
from covalent_cirro.local import covalent_process
from covalent_cirro.local.emulator import Emulator, keys

GPU_QUOTAS_OF_A_NEW_ACCOUNT = {"L-DB2E81BA": 0.0, "L-3819A6DF": 0.0}


@contextlib.contextmanager
def environment(emulator: Emulator, folder: Path) -> Iterator[None]:
    """This process as a user's terminal: AWS is the emulator, Covalent's config is in the folder."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("AWS_", "COVALENT_")):
            del os.environ[name]
    os.environ |= {
        "AWS_ENDPOINT_URL": emulator.endpoint_url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_SHARED_CREDENTIALS_FILE": str(emulator.state_dir / keys.FILE),
        **covalent_process.client_environment(folder),
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def push_image(emulator: Emulator) -> None:
    """An image with the runner's labels, and its URI in the config: no engine is needed for a picture."""
    from covalent_cirro import deployment
    from covalent_cirro.aws.clients import Clients
    from covalent_cirro.aws.sessions import Access
    from covalent_cirro.covalent_server import config
    from tests.pushed_images import Pushes

    access = Access(profile=None, credentials=None, region=None, endpoint_url=None)
    repository = deployment.outputs(Clients(access)("cloudformation"))["ImageRepository"]
    labels = {
        protocol.LABEL_PYTHON: f"{sys.version_info.major}.{sys.version_info.minor}",
        protocol.LABEL_CLOUDPICKLE: importlib.metadata.version("cloudpickle"),
        protocol.LABEL_RUNNER: __version__,
        protocol.LABEL_FORMAT: str(problems.FORMAT),
    }
    digest = Pushes(emulator).image(repository.partition("/")[2], "runner", labels=labels)
    config.set_image(f"{repository}@{digest}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the command line.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder for the pictures")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, Emulator() as emulator:
        folder = Path(name)
        registry = emulator.endpoint_url.partition("://")[2]

        def take(name: str, command: str, *more: str) -> None:
            text = output_of([*command.split()[1:], *more])
            for here, there in seen_by_a_user(folder, registry):
                text = re.sub(here, there, text)
            file = options.output / f"{name}.svg"
            file.write_text(picture(command, text))
            print(file)

        with environment(emulator, folder), server(folder):
            take("cirro-deploy", "cirro deploy", "--yes")
            enough = dict(emulator.account_settings.quotas)
            emulator.account_settings.quotas |= GPU_QUOTAS_OF_A_NEW_ACCOUNT
            take("cirro-doctor-fails", "cirro doctor")
            emulator.account_settings.quotas |= enough
            push_image(emulator)
            take("cirro-doctor", "cirro doctor")


def seen_by_a_user(folder: Path, registry: str) -> list[tuple[str, str]]:
    """Patterns of what is this machine's, and what stands in their place."""
    return [
        (re.escape(str(folder)), "~/.config/covalent"),
        (re.escape(registry), "123456789012.dkr.ecr.us-east-1.amazonaws.com"),
        (r"http://(127\.0\.0\.1|localhost):\d+", "http://localhost:48008"),
        (re.escape(sys.executable), "python"),
        ("arn:aws:sts::123456789012:user/moto", "arn:aws:iam::123456789012:user/ada"),
    ]


@contextlib.contextmanager
def server(folder: Path) -> Iterator[None]:
    """A Covalent server with its config in the folder."""
    from tests.aws.walk import Account

    def no_client(service: str) -> Any:
        raise AssertionError(service)

    make: Callable[[str], Any] = no_client
    with Account("cirro", dict(os.environ), folder, make).covalent():
        yield


if __name__ == "__main__":
    main()
