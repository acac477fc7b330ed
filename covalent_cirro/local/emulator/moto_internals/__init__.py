"""The only place that imports moto: reads what moto keeps, and replaces what moto does otherwise than AWS.

moto's internals are not a public interface: a new minor version may rename what is read or replaced here. The package
therefore says which version it was written for, and refuses any other one at import.

| module | what it reads or replaces |
| --- | --- |
| `loading` | imports moto, replaces its attributes one by one, gives its WSGI application, forgets an account |
| `moto_iam` | users, roles, access keys and their policies (IAM and STS) |
| `moto_s3` | bucket policies, object bodies, checksums of objects in parts |
| `moto_ec2` | instance types, availability zones, launch templates, VPC endpoints |
| `moto_ecr` | repositories; the operations on images |
| `moto_logs`, `moto_events` | log streams; the default event bus |
| `moto_elb` | load balancers and target groups: their targets and ports; certificates of ACM |
| `moto_cloudwatch` | metrics, with percentiles |
| `moto_target_tracking` | policies of Application Auto Scaling |
| `moto_templates` | values of the names in a template; errors of CloudFormation |
| `moto_stacks` | stacks of CloudFormation, as the stack engine uses them |
| `moto_cloudformation` | what CloudFormation does with templates, stacks and change sets |
"""

from __future__ import annotations

from importlib import metadata

from covalent_cirro.errors import EmulatorError

WRITTEN_FOR = "5.2"
"""The minor version of moto whose internals the modules of this package know; ``setup.cfg`` has the same range."""


def require_version(installed: str | None) -> None:
    """Check that moto is the version that this package was written for.

    Args:
        installed: Version of moto, such as ``"5.2.5"``; `None` where moto is not installed.

    Raises:
        EmulatorError: It is another minor version, or none.
    """
    if installed is not None and f"{installed}.".startswith(f"{WRITTEN_FOR}."):
        return
    found = "moto is not installed" if installed is None else f"moto {installed} is installed"
    raise EmulatorError(
        f"the emulated AWS cannot start: {found}, but the emulator changes internals of moto {WRITTEN_FOR} and works "
        f"with that version only. Install it: pip install 'moto[cloudformation,server]=={WRITTEN_FOR}.*'"
    )


def _installed_version() -> str | None:
    try:
        return metadata.version("moto")
    except metadata.PackageNotFoundError:
        return None


require_version(_installed_version())
