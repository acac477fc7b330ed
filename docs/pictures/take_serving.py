"""Takes the pictures of `cirro serve` in docs/serving.md: a recommender on an emulated AWS, as a terminal shows it.

    python docs/pictures/take_serving.py [--output FOLDER]

The service, its load balancer and the requests are real. What says something of this machine only is replaced.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from take_terminal import environment, seen_by_a_user
from terminal import output_of, picture

sys.path.insert(0, str(Path(__file__).parents[2]))

from covalent_cirro import deployment
from covalent_cirro.aws.sessions import Access
from covalent_cirro.local.emulator import Emulator, Timing
from covalent_cirro.local.emulator.attempts.runtime import ImageConfig
from covalent_cirro.models.model_objects import BucketObjects
from covalent_cirro.models.model_registry import ModelRegistry
from tests.serving_steps import NAME, Load, register

SERVICE = Path(__file__).parents[2] / "examples" / "recommender" / "service"
ADDRESS = "cirro-LoadB-1A2B3C4D5E6F-1234567890.us-east-1.elb.amazonaws.com"

SEEN_BY_A_USER = (
    (r"account 123456789012 at http://127\.0\.0\.1:\d+", "AWS account 123456789012, us-east-1"),
    (r"in AWS it would cost", "it costs"),
    (r", in AWS; here nothing", ""),
    (r"http://127\.0\.0\.1:\d+ \(Press", "http://0.0.0.0:8000 (Press"),
    (r"server process \[\d+\]", "server process [1]"),
    (r"localhost:\d+", ADDRESS),
)
"""Patterns of what is the emulator's, and what stands in their place."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of `cirro serve`.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder for the pictures")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    images = {"recommender": ImageConfig(environment={"PYTHONPATH": str(SERVICE)})}
    with tempfile.TemporaryDirectory() as name, Emulator(timing=Timing(scale=0.1), images=images) as emulator:
        folder = Path(name)
        registry = emulator.endpoint_url.partition("://")[2]

        def take(name: str, command: str, *more: str) -> None:
            text = output_of([*command.split()[1:], *more])
            for here, there in [*SEEN_BY_A_USER, *seen_by_a_user(folder, registry)]:
                text = re.sub(here, there, text)
            file = options.output / f"{name}.svg"
            file.write_text(picture(command, text))
            print(file)

        with environment(emulator, folder):
            output_of(["deploy", "--yes"])
            models = registry_of(emulator)
            register(models, 1)
            take("cirro-serve-deploy", f"cirro serve deploy --model {NAME} --allow-from 127.0.0.0/8", "--yes")
            with Load(address(emulator)):
                register(models, 2)
                output_of(["serve", "update", "--yes"])
                register(models, 3, broken=True)
                take("cirro-serve-goes-back", "cirro serve update", "--yes")
                take("cirro-serve-status", "cirro serve status")


def registry_of(emulator: Emulator) -> ModelRegistry:
    """The models of the deployment."""
    found = deployment.outputs(emulator.client("cloudformation"), "cirro")
    access = Access(profile=None, credentials=None, region=None, endpoint_url=None)
    return ModelRegistry(BucketObjects(access, found["S3BucketName"]), found["S3BucketName"], f"{found['S3Prefix']}/")


def address(emulator: Emulator) -> str:
    """Where the load balancer answers."""
    [found] = emulator.client("elbv2").describe_load_balancers()["LoadBalancers"]
    return f"http://{found['DNSName']}"


if __name__ == "__main__":
    main()
