"""The options of the executor, each declared once with its type, default, help and range."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from covalent_cirro.settings import variables
from covalent_cirro.settings.constants import MIB_PER_GB, PLATFORMS
from covalent_cirro.settings.fargate_sizes import FRACTIONS, Size, fitting

MIN_TIME_LIMIT_S = 60
"""Smallest attemptDurationSeconds (Batch API Reference, JobTimeout)."""

MAX_ATTEMPTS = 10
"""Largest retryStrategy.attempts (Batch API Reference, RetryStrategy)."""

MIN_MEMORY_MIB = 128
"""AWS takes 4 MiB (ResourceRequirement), in which no Python starts; the runner alone needs about 60 MiB."""

MAX_CHILDREN = 10_000
"""Most jobs of an array job (Batch User Guide, Array jobs)."""

MAX_PARALLEL = 192
"""Most items that a job computes at a time: the vCPUs of the largest instances (c7i.48xlarge and others)."""

MAX_NODES = 1_000
"""Most nodes of a multi-node parallel job (Batch User Guide, Multi-node parallel jobs)."""

MAX_PRIORITY = 9_999
"""Largest schedulingPriority (Batch API Reference, RegisterJobDefinition)."""

MAX_TAGS = 46
"""A job has 50 tags at most (Batch User Guide, Tag restrictions), and four are the executor's."""

TAG_CHARS = (128, 256)
"""Characters of a tag's key and of its value (Batch User Guide, Tag restrictions)."""

OWN_TAGS = ("aws:", "covalent:", "cirro:")
"""How tags begin that are AWS's or the executor's. By those of the executor, its jobs are found and may be ended."""

MAX_CONSUMABLES = 5
"""Consumable resources of a job definition (Batch User Guide, Specify the resources needed to run a job)."""

MAX_NAME_PREFIX = 100
"""A job definition's name has 128 characters at most (RegisterJobDefinition); a dash and a digest follow the prefix."""

_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_DEFINITION_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_DISPATCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHARE = re.compile(r"[A-Za-z0-9]{1,255}")
_TAG = re.compile(r"[\w +\-=._:/@]*")
_CONSUMABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}|arn:[a-z-]+:batch:[^:]+:\d{12}:consumable-resource/[\w-]+")
_SHARED_FILES = re.compile(r"fs-[0-9a-f]{8,40}/fsap-[0-9a-f]{8,40}")
_URL = re.compile(r"https?://[^/\s]+/?\S*")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option.

    Attributes:
        name: The keyword, and the key in the config section.
        kind: ``"text"``, ``"whole"``, ``"number"``, ``"switch"``, ``"texts"``, or of a mapping ``"text by name"``,
            ``"whole by name"``, ``"properties"`` (as JSON has them).
        default: Value where nobody set one; `None`: AWS's own chain decides, or the option is not used.
        help: What it is, with its unit.
        valid: What is accepted, in words, for error messages and the docs.
        accepts: Whether a value of the right kind is possible.
        refuses: Why a value of the right kind is not possible, in words that do not show the value; `None` if it is.
        is_path: A path object is as good as a text.
        stock: The stock plugin has it too, with the same unit and meaning.
    """

    name: str
    kind: str
    default: Any
    help: str
    valid: str
    accepts: Callable[[Any], bool]
    refuses: Callable[[Any], str | None]
    is_path: bool
    stock: bool


def _option(
    *,
    default: Any,
    help: str,
    valid: str,
    accepts: Callable[[Any], bool] = lambda value: True,
    refuses: Callable[[Any], str | None] = lambda value: None,
    is_path: bool = False,
    stock: bool = True,
) -> Any:
    """A field of `Settings` that is an option; see `Option`."""
    metadata = {
        "help": help,
        "valid": valid,
        "accepts": accepts,
        "refuses": refuses,
        "is_path": is_path,
        "stock": stock,
    }
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All options with their values: what one electron's job is made from.

    Each option is declared here and nowhere else, with its type, default, help and range. `OPTIONS`, the table in
    docs/settings.md, and the signature and docstring of `CirroBatchExecutor` are made from it
    (``python docs/make_settings.py``).

    Attributes:
        on_demand: The job of a further try (`jobs/further_tries.py`) goes to the on-demand queue. No option.
    """

    credentials: str | None = _option(
        default=None,
        help="Path of an AWS credentials file on the Covalent server. It comes before keys and profiles of the "
        "environment. Its profile is that of the option profile, else default. Unset: AWS's usual chain.",
        valid="a path",
        is_path=True,
    )
    profile: str | None = _option(
        default=None,
        help="AWS profile whose credentials and region are used. It comes before keys of the environment. Unset: "
        "AWS's usual chain.",
        valid="the name of a profile",
    )
    region: str | None = _option(
        default=None,
        help="AWS region. Unset: that of the profile or of the environment, else us-east-1.",
        valid='a region such as "eu-west-1"',
        accepts=lambda value: value == "" or _REGION.fullmatch(value) is not None,
    )
    s3_bucket_name: str = _option(
        default="covalent-batch-job-resources",
        help="Bucket for calls, outcomes, logs and blobs.",
        valid="the name of a bucket: 3 to 63 lowercase letters, digits, dots and hyphens",
        accepts=lambda value: _BUCKET.fullmatch(value) is not None,
    )
    batch_queue: str = _option(
        default="covalent-batch-queue",
        help="Job queue, by name or ARN.",
        valid="the name or ARN of a job queue",
        accepts=lambda value: value.strip() != "",
    )
    batch_execution_role_name: str = _option(
        default="ecsTaskExecutionRole",
        help='Role of the ECS agent, by name or ARN; "" for none.',
        valid="the name or ARN of a role",
    )
    batch_job_role_name: str = _option(
        default="covalent-batch-job-role",
        help="Role of the container, by name or ARN: reads and writes the bucket.",
        valid="the name or ARN of a role",
        accepts=lambda value: value.strip() != "",
    )
    batch_job_log_group_name: str = _option(
        default="covalent-batch-job-logs",
        help="CloudWatch log group of the jobs. It must exist.",
        valid="the name of a log group",
        accepts=lambda value: value.strip() != "",
    )
    vcpu: float = _option(
        default=2,
        help="vCPUs of the job. On Fargate, vCPUs and memory are raised to the next pair that Fargate has.",
        valid='a whole number from 1; with platform="FARGATE" also 0.25 or 0.5',
        accepts=lambda value: value in FRACTIONS or (value >= 1 and float(value).is_integer()),
    )
    memory: float = _option(
        default=3.75,
        help="Memory of the job in GB (1024 MiB). The job is killed when it uses more.",
        valid=f"a number from {MIN_MEMORY_MIB / MIB_PER_GB} GB ({MIN_MEMORY_MIB} MiB), in which the runner just starts",
        accepts=lambda value: int(value * MIB_PER_GB) >= MIN_MEMORY_MIB,
    )
    num_gpus: int = _option(
        default=0,
        help="GPUs of the job. From 1, the job goes to batch_gpu_queue where that is set.",
        valid="a whole number from 0",
        accepts=lambda value: value >= 0,
    )
    retry_attempts: int = _option(
        default=3,
        help="How often AWS Batch may start the job in all, when its host is lost or cannot start it. "
        "An electron that raised is not started again. 0 and 1 both mean once.",
        valid=f"a whole number from 0 to {MAX_ATTEMPTS}",
        accepts=lambda value: 0 <= value <= MAX_ATTEMPTS,
    )
    time_limit: int = _option(
        default=300,
        help="Seconds after which an attempt is stopped (SIGTERM, 30 s, SIGKILL).",
        valid=f"a whole number of seconds from {MIN_TIME_LIMIT_S}, AWS's least",
        accepts=lambda value: value >= MIN_TIME_LIMIT_S,
    )
    poll_freq: float = _option(
        default=10,
        help="Seconds between two looks at a job, at most. Jobs are looked at together, young ones every second.",
        valid="a number of seconds from 0",
        accepts=lambda value: value >= 0,
    )
    cache_dir: str | None = _option(
        default=None,
        help="Folder on the Covalent server for files that are sent to S3. It is made for the server's user alone; one "
        "that is another user's, or that others may write to, is refused. Unset, or /tmp/covalent, which was the stock "
        "plugin's default: the folder cirro in Covalent's own cache folder (dispatcher.cache_dir).",
        valid="a path",
        is_path=True,
        accepts=lambda value: value.strip() != "",
    )
    container_image_uri: str = _option(
        default="public.ecr.aws/covalent/covalent-executor-base:stable",
        help="Image of the job: with Python, cloudpickle, awscrt and covalent-cirro. `cirro image push` makes one and "
        "sets it. The default, the stock plugin's, has no covalent-cirro and is refused.",
        valid="the URI of an image",
        accepts=lambda value: value.strip() != "",
    )
    endpoint_url: str | None = _option(
        default=None,
        help="Endpoint for all AWS services, such as an emulator's. Unset: AWS_ENDPOINT_URL, else AWS.",
        valid="a URL with http:// or https://",
        accepts=lambda value: value == "" or _URL.fullmatch(value) is not None,
        stock=False,
    )
    s3_prefix: str = _option(
        default="cirro",
        help='What keys in the bucket begin with; "" for nothing.',
        valid="a key prefix without // or ..",
        accepts=lambda value: "//" not in value and ".." not in value and not value.startswith("/"),
        stock=False,
    )
    batch_gpu_queue: str | None = _option(
        default=None,
        help="Job queue for electrons with num_gpus from 1, by name or ARN. Unset: batch_queue.",
        valid="the name or ARN of a job queue",
        stock=False,
    )
    batch_job_definition_name: str = _option(
        default="cirro",
        help="What the names of job definitions begin with.",
        valid=f"1 to {MAX_NAME_PREFIX} letters, digits, hyphens and underscores",
        accepts=lambda value: len(value) <= MAX_NAME_PREFIX and _DEFINITION_PREFIX.fullmatch(value) is not None,
        stock=False,
    )
    shared_memory_gb: float | None = _option(
        default=None,
        help="Size of /dev/shm in GB, which PyTorch's DataLoader needs. Part of memory. Unset: half of memory.",
        valid="a number of GB above 0",
        accepts=lambda value: int(value * MIB_PER_GB) >= 1,
        stock=False,
    )
    local_packages: tuple[str, ...] = _option(
        default=(),
        help="Your own packages or modules, which are sent to the job with the electron: import names, or paths on the "
        "server.",
        valid="a list of import names or paths",
        is_path=True,
        accepts=lambda value: all(item.strip() for item in value),
        stock=False,
    )
    memory_max: float | None = _option(
        default=None,
        help="Most GB with which an electron that ran out of memory is submitted again, each time with twice as much. "
        "Unset: never.",
        valid=f"a number from {MIN_MEMORY_MIB / MIB_PER_GB} GB, and not less than memory",
        accepts=lambda value: int(value * MIB_PER_GB) >= MIN_MEMORY_MIB,
        stock=False,
    )
    batch_on_demand_queue: str | None = _option(
        default=None,
        help="Job queue without Spot, by name or ARN: an electron that lost its host in all its attempts is submitted "
        "again, to it. Unset: never.",
        valid="the name or ARN of a job queue",
        stock=False,
    )
    batch_gpu_on_demand_queue: str | None = _option(
        default=None,
        help="Job queue without Spot for electrons with num_gpus from 1, used like batch_on_demand_queue. Unset: "
        "batch_on_demand_queue where batch_gpu_queue is unset too, else never.",
        valid="the name or ARN of a job queue",
        stock=False,
    )
    reuse_from: str | None = _option(
        default=None,
        help="Dispatch whose results are taken where they are of the same work: same function, inputs, hooks, packages "
        "and image. Unset: every electron is computed.",
        valid="the whole id of an earlier dispatch",
        accepts=lambda value: value == "" or _DISPATCH.fullmatch(value) is not None,
        stock=False,
    )
    on_server_stop: str = _option(
        default="keep",
        help='What happens to a running job when the Covalent server is stopped: "keep", and the next server goes on '
        'with it; or "cancel", with the whole dispatch.',
        valid='"keep" or "cancel"',
        accepts=lambda value: value in ("keep", "cancel"),
        stock=False,
    )
    on_error: str = _option(
        default="raise",
        help='What becomes of an electron that failed: "raise", and the dispatch fails; or "return", and its value is '
        "an ElectronFailed that says why, with which the dispatch goes on. An electron that is cancelled or could not "
        'be submitted has no value. Of a mapped electron, "raise" computes all items first, "return" puts the error in '
        'the place of the item, and "stop" ends the other jobs when an item fails; for others, "stop" is "raise".',
        valid='"raise", "stop" or "return"',
        accepts=lambda value: value in ("raise", "stop", "return"),
        stock=False,
    )
    array_size: int | None = _option(
        default=None,
        help="Most jobs that the items of a mapped electron are shared over. Unset: one for each item, at most "
        f"{MAX_CHILDREN:,}. A job should last minutes.",
        valid=f"a whole number from 1 to {MAX_CHILDREN:,}, AWS's most",
        accepts=lambda value: 1 <= value <= MAX_CHILDREN,
        stock=False,
    )
    array_parallel: int = _option(
        default=1,
        help="Items that a job of a mapped electron computes at a time, each in a process of its own.",
        valid=f"a whole number from 1 to {MAX_PARALLEL}",
        accepts=lambda value: 1 <= value <= MAX_PARALLEL,
        stock=False,
    )
    environment: Mapping[str, str] = _option(
        default={},
        help="Environment variables of the electron, which has them before anything is imported in it. The runner does "
        "not see them. Everybody who may see the job sees them: for passwords and keys there is secrets.",
        valid="a mapping of names to texts",
        refuses=variables.environment_problem,
        stock=False,
    )
    secrets: Mapping[str, str] = _option(
        default={},
        help="Environment variables of the electron whose values ECS takes from Secrets Manager or from SSM "
        'parameters, by name: an ARN, with the key of its JSON where it has keys, or "ssm:/name of a parameter". Needs '
        "batch_execution_role_name, whose role may read them (cirro deploy --parameter SecretArns=...).",
        valid="a mapping of names to ARNs or names of parameters",
        refuses=variables.secrets_problem,
        stock=False,
    )
    job_properties: Mapping[str, Any] = _option(
        default={},
        help="Further properties of the container, as ContainerProperties of RegisterJobDefinition has them: ulimits, "
        "volumes, mountPoints, linuxParameters and others.",
        valid="a mapping in the form of AWS Batch's ContainerProperties",
        refuses=variables.properties_problem,
        stock=False,
    )
    tags: Mapping[str, str] = _option(
        default={},
        help="Tags of the job, besides those of the executor: such as the keys by which costs are shared out.",
        valid=f"a mapping of at most {MAX_TAGS} keys to texts: {TAG_CHARS[0]} and {TAG_CHARS[1]} letters, digits, "
        f"spaces and + - = . _ : / @ at most; no key begins with {', '.join(OWN_TAGS)}",
        accepts=lambda value: len(value) <= MAX_TAGS and all(_is_tag(key, text) for key, text in value.items()),
        stock=False,
    )
    propagate_tags: bool = _option(
        default=True,
        help="Whether the ECS task of the job gets the job's tags.",
        valid="True or False",
        stock=False,
    )
    scheduling_priority: int | None = _option(
        default=None,
        help="Priority among the jobs of one share identifier in a queue with a scheduling policy; the highest first.",
        valid=f"a whole number from 0 to {MAX_PRIORITY:,}",
        accepts=lambda value: 0 <= value <= MAX_PRIORITY,
        stock=False,
    )
    share_identifier: str | None = _option(
        default=None,
        help="Share of the job in a queue with a scheduling policy, which needs one.",
        valid="1 to 255 letters and digits",
        accepts=lambda value: value == "" or _SHARE.fullmatch(value) is not None,
        stock=False,
    )
    consumable_resources: Mapping[str, int] = _option(
        default={},
        help="Consumable resources, such as licences, that the job holds while it runs: how many of each, by name or "
        "ARN. The job waits until they are free.",
        valid=f"a mapping of at most {MAX_CONSUMABLES} names or ARNs to whole numbers from 1",
        accepts=lambda value: (
            len(value) <= MAX_CONSUMABLES
            and all(_CONSUMABLE.fullmatch(name) and count >= 1 for name, count in value.items())
        ),
        stock=False,
    )
    shared_files: str | None = _option(
        default=None,
        help="EFS file system and access point that jobs have at /shared. `cirro deploy --parameter "
        "SharedFileSystem=true` makes one and sets it.",
        valid='the ids of a file system and of its access point, "fs-.../fsap-..."',
        accepts=lambda value: value == "" or _SHARED_FILES.fullmatch(value) is not None,
        stock=False,
    )
    num_nodes: int | None = _option(
        default=None,
        help="Machines on which the function runs at the same time, as nodes of one multi-node parallel job. What it "
        "returns on the main node is the result. Unset: one machine, and no multi-node job.",
        valid=f"a whole number from 1 to {MAX_NODES:,}, AWS's most",
        accepts=lambda value: 1 <= value <= MAX_NODES,
        stock=False,
    )
    processes_per_node: int | None = _option(
        default=None,
        help="Processes that call the function on each node. Unset: one for each GPU, one without GPUs.",
        valid=f"a whole number from 1 to {MAX_PARALLEL}",
        accepts=lambda value: 1 <= value <= MAX_PARALLEL,
        stock=False,
    )
    batch_multi_node_queue: str | None = _option(
        default=None,
        help="Job queue for electrons with num_nodes from 2, by name or ARN: without Spot. Unset: the queue of other "
        "electrons.",
        valid="the name or ARN of a job queue",
        stock=False,
    )
    platform: str = _option(
        default="EC2",
        help='What the job runs on: "EC2", instances that AWS Batch starts; or "FARGATE", a machine of its own that '
        "starts within about a minute, without GPUs.",
        valid='"EC2" or "FARGATE"',
        accepts=lambda value: value in PLATFORMS,
        stock=False,
    )
    batch_fargate_queue: str | None = _option(
        default=None,
        help='Job queue for electrons with platform="FARGATE", by name or ARN. Unset: batch_queue.',
        valid="the name or ARN of a job queue",
        stock=False,
    )
    cpu_architecture: str = _option(
        default="x86_64",
        help="Architecture of the machines that run electrons without GPUs, and so of their image. `cirro deploy` sets "
        "it.",
        valid='"x86_64" or "arm64"',
        accepts=lambda value: value in ("x86_64", "arm64"),
        stock=False,
    )
    on_demand: bool = False

    @property
    def asked(self) -> Size:
        """vCPUs and memory as the options say them."""
        return Size(self.vcpu, int(self.memory * MIB_PER_GB))

    @property
    def size(self) -> Size:
        """vCPUs and memory of the job: on Fargate those of the smallest pair that fits what was asked for."""
        return (fitting(self.asked) or self.asked) if self.on_fargate else self.asked

    @property
    def memory_mib(self) -> int:
        """Memory of the job in MiB."""
        return self.size.memory_mib

    @property
    def on_fargate(self) -> bool:
        """Whether the job runs on Fargate."""
        return self.platform == "FARGATE"

    @property
    def shared_memory_mib(self) -> int:
        """Size of /dev/shm in MiB. Half of the memory unless set, which is what Linux gives a tmpfs."""
        if self.shared_memory_gb is None:
            return max(1, self.memory_mib // 2)
        return int(self.shared_memory_gb * MIB_PER_GB)

    @property
    def queue(self) -> str:
        """The queue that fits what the electron asks for."""
        return str(getattr(self, self.queue_option))

    @property
    def queue_option(self) -> str:
        """The name of the option that `queue` came from, for error messages."""
        if self.on_fargate and self.batch_fargate_queue:
            return "batch_fargate_queue"
        if self.nodes > 1 and self.batch_multi_node_queue:
            return "batch_multi_node_queue"
        if self.on_demand and self.on_demand_queue:
            return self.on_demand_queue_option
        return "batch_gpu_queue" if self.num_gpus and self.batch_gpu_queue else "batch_queue"

    @property
    def on_demand_queue(self) -> str | None:
        """The on-demand queue for what the electron asks for; `None` where there is none."""
        if self.on_fargate or self.nodes > 1:
            return None
        queue: str | None = getattr(self, self.on_demand_queue_option)
        return queue or None

    @property
    def on_demand_queue_option(self) -> str:
        """The name of the option that `on_demand_queue` comes from, set or not."""
        gpu = self.num_gpus and (self.batch_gpu_on_demand_queue or self.batch_gpu_queue)
        return "batch_gpu_on_demand_queue" if gpu else "batch_on_demand_queue"

    @property
    def nodes(self) -> int:
        """Machines on which the function runs."""
        return self.num_nodes or 1

    @property
    def processes(self) -> int:
        """Processes that call the function on each node."""
        return self.processes_per_node or max(1, self.num_gpus)

    @property
    def runner_options(self) -> tuple[str, ...]:
        """Options that are set and that an older runner in the image ignores (`problems.REVISION`)."""
        several = self.nodes > 1 or self.processes_per_node is not None
        chosen = {
            "environment": bool(self.environment),
            "secrets": bool(self.secrets),
            "num_nodes": self.nodes > 1,
            "processes_per_node": several and self.processes > 1,
        }
        return tuple(name for name, is_set in chosen.items() if is_set)

    @property
    def architecture(self) -> str:
        """Architecture of the machine: ``x86_64`` or ``arm64``.

        All GPU instances of AWS Batch's images have ``x86_64``, and so have those behind `cirro deploy`'s queue for
        several nodes.
        """
        several = self.nodes > 1 and self.batch_multi_node_queue
        return "x86_64" if self.num_gpus or several else self.cpu_architecture

    @property
    def key_prefix(self) -> str:
        """What keys begin with: empty, or ends with a slash."""
        stripped = self.s3_prefix.strip("/")
        return f"{stripped}/" if stripped else ""

    @property
    def attempts(self) -> int:
        """retryStrategy.attempts, from 1."""
        return max(1, self.retry_attempts)


def _is_tag(key: str, value: str) -> bool:
    most_key, most_value = TAG_CHARS
    return (
        0 < len(key) <= most_key
        and len(value) <= most_value
        and not key.lower().startswith(OWN_TAGS)
        and _TAG.fullmatch(key) is not None
        and _TAG.fullmatch(value) is not None
    )


_KINDS = {
    "str": "text",
    "str | None": "text",
    "int": "whole",
    "int | None": "whole",
    "float": "number",
    "float | None": "number",
    "bool": "switch",
    "tuple[str, ...]": "texts",
    "Mapping[str, str]": "text by name",
    "Mapping[str, int]": "whole by name",
    "Mapping[str, Any]": "properties",
}
"""`Option.kind` by the type of the field."""

OPTIONS: tuple[Option, ...] = tuple(
    Option(
        name=each.name,
        kind=_KINDS[str(each.type)],
        default=each.default if each.default is not MISSING else {},
        **each.metadata,
    )
    for each in fields(Settings)
    if each.metadata
)

BY_NAME: dict[str, Option] = {option.name: option for option in OPTIONS}
