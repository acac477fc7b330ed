"""The way back: what is refused, what is tried again, and what counts as left; against fakes of AWS's services."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from covalent_cirro.deployment import emptying, holdings, leftovers, teardown
from covalent_cirro.deployment.holdings import ActiveJob, Holdings, Proof, is_of_deployment
from covalent_cirro.deployment.stacks import Resource
from covalent_cirro.errors import StackError
from tests.unit.fake_formation import FakeFormation, Time, refusal

META = SimpleNamespace(region_name="eu-west-1", endpoint_url="https://s3.eu-west-1.amazonaws.com")
BUCKET = Resource("Bucket", "AWS::S3::Bucket", "bucket-1", "CREATE_COMPLETE")
QUEUE = Resource("CpuQueue", "AWS::Batch::JobQueue", "arn:queue", "CREATE_COMPLETE")


class FakeS3:
    """A bucket with versions, delete markers and unfinished uploads, in pages of two."""

    def __init__(self, keys: list[str], refuse: str = "", uploads: int = 0) -> None:
        self.meta = META
        self.left = keys
        self.refuse = refuse
        self.uploads = [{"Key": f"upload-{n}", "UploadId": str(n)} for n in range(uploads)]
        self.emptied = 0

    def get_paginator(self, operation: str) -> Any:
        return SimpleNamespace(paginate=getattr(self, operation))

    def list_object_versions(self, Bucket: str, PaginationConfig: dict[str, int]) -> Iterator[dict[str, Any]]:
        assert PaginationConfig["PageSize"] <= 1000
        self.emptied += 1
        keys = list(self.left)
        for start in range(0, len(keys), 2):
            first, *rest = ({"Key": key, "VersionId": "v1", "Size": 4} for key in keys[start : start + 2])
            yield {"Versions": [first]} | ({"DeleteMarkers": rest} if rest else {})
        yield {}

    def list_multipart_uploads(self, Bucket: str) -> Iterator[dict[str, Any]]:
        yield {"Uploads": list(self.uploads)}
        yield {}

    def delete_objects(self, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        refused = [item["Key"] for item in Delete["Objects"] if item["Key"] == self.refuse]
        self.left = [key for key in self.left if key not in {item["Key"] for item in Delete["Objects"]} - set(refused)]
        return {"Errors": [{"Key": key, "Code": "AccessDenied", "Message": "not yours"} for key in refused]}

    def abort_multipart_upload(self, Bucket: str, Key: str, UploadId: str) -> None:
        self.uploads = [each for each in self.uploads if each["UploadId"] != UploadId]


class FakeEcr:
    """A repository; an image that another one lists goes after that only."""

    def __init__(self, images: dict[str, str | None], refuse: str = "") -> None:
        self.meta = META
        self.listed_by = images
        self.refuse = refuse

    def get_paginator(self, operation: str) -> Any:
        return SimpleNamespace(paginate=getattr(self, operation))

    def list_images(self, repositoryName: str) -> Iterator[dict[str, Any]]:
        if repositoryName == "gone":
            raise refusal("ListImages", "The repository does not exist", "RepositoryNotFoundException")
        tagged = [{"imageDigest": digest, "imageTag": tag} for digest in self.listed_by for tag in ("a", "b")]
        yield {"imageIds": tagged}

    def batch_delete_image(self, repositoryName: str, imageIds: list[dict[str, str]]) -> dict[str, Any]:
        assert len(imageIds) <= 100
        there, failures = dict(self.listed_by), []
        for each in imageIds:
            digest = each["imageDigest"]
            code = (
                "ImageReferencedByManifestList"
                if there.get(self.listed_by[digest] or "") or (self.listed_by[digest] in there)
                else "KmsError"
                if digest == self.refuse
                else ""
            )
            if code:
                failures.append({"imageId": each, "failureCode": code, "failureReason": "no"})
            else:
                del self.listed_by[digest]
        return {"failures": failures}


class FakeBatch:
    """Queues with jobs, which end some looks after they were terminated."""

    def __init__(self, jobs: int = 0, ends_after: int = 1, refuse_first: str = "") -> None:
        self.meta = META
        self.jobs = {f"job-{n}": ends_after for n in range(jobs)}
        self.terminated: list[list[str]] = []
        self.disabled: list[str] = []
        self.deregistered: list[str] = []
        self.refuse_first = refuse_first

    def describe_job_queues(self, jobQueues: list[str]) -> dict[str, Any]:
        return {"jobQueues": [{"jobQueueArn": arn, "status": "VALID"} for arn in jobQueues if arn != "arn:gone"]}

    def update_job_queue(self, jobQueue: str, state: str) -> None:
        assert state == "DISABLED"
        self.disabled.append(jobQueue)

    def get_paginator(self, operation: str) -> Any:
        return SimpleNamespace(paginate=getattr(self, operation))

    def list_jobs(self, jobQueue: str, jobStatus: str) -> Iterator[dict[str, Any]]:
        assert self.disabled, "a queue that takes jobs is never empty for sure"
        if jobStatus != "RUNNING":
            return
        asked = {job for some in self.terminated for job in some}
        self.jobs = {job: left - (job in asked) for job, left in self.jobs.items() if left > 0 or job not in asked}
        yield {"jobSummaryList": [{"jobId": job} for job in self.jobs]}

    def terminate_jobs(self, jobs: list[str], reason: str) -> dict[str, Any]:
        errors = [
            {"job": job, "code": "ThrottlingException", "message": "Rate exceeded"}
            for job in jobs
            if job == self.refuse_first
        ]
        self.refuse_first = ""
        self.terminated.append([job for job in jobs if job not in {each["job"] for each in errors}])
        return {"successful": [], "errors": errors}


def holding(*resources: Resource, **more: Any) -> Holdings:
    """What a deployment without stacks holds."""
    given: dict[str, Any] = {
        **{"name": "cirro", "region": "eu-west-1", "keep_data": False, "stacks": (), "resources": resources},
        **{"jobs": (), "buckets": (), "repositories": (), "clusters": (), "definitions": (), "kept": ()},
    }
    return Holdings(**{**given, **more})


# --- emptying -----------------------------------------------------------------------------------------------------


def test_a_bucket_is_emptied_whole() -> None:
    """All versions and delete markers of all pages, and unfinished uploads, which cost too."""
    s3 = FakeS3(["a", "b", "c", "d", "e"], uploads=2)
    told: list[int] = []
    assert emptying.bucket_contents(s3, "bucket-1") == ("bucket-1", 7, 12, True)
    assert emptying.empty_bucket(s3, "bucket-1", told.append) == 7
    assert (s3.left, s3.uploads) == ([], [])
    assert told == [2, 4, 5, 6, 7]


def test_a_large_bucket_is_not_counted_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for minutes to be asked a question."""
    monkeypatch.setattr(emptying, "MAX_COUNTED", 3)
    assert emptying.bucket_contents(FakeS3(["a", "b", "c", "d", "e"]), "bucket-1") == ("bucket-1", 4, 8, False)


def test_an_object_that_s3_does_not_delete_is_an_error() -> None:
    """With its key and S3's words."""
    with pytest.raises(StackError, match="'bucket-1' could not be emptied: b: AccessDenied: not yours"):
        emptying.empty_bucket(FakeS3(["a", "b"], refuse="b"), "bucket-1")


def test_images_that_list_others_go_first() -> None:
    """The rest at the next try; each image once, however many tags it has."""
    ecr = FakeEcr({"amd64": "index", "index": None, "alone": None})
    assert emptying.empty_repository(ecr, "images") == 3
    assert ecr.listed_by == {}


def test_an_image_that_ecr_does_not_delete_is_an_error() -> None:
    """With its digest and ECR's words; it is not tried for ever."""
    with pytest.raises(StackError, match="image locked of repository 'images' could not be deleted: KmsError: no"):
        emptying.empty_repository(FakeEcr({"locked": None, "free": None}, refuse="locked"), "images")


def test_what_is_not_there_is_empty() -> None:
    """A deployment that was deleted by half is finished."""
    assert emptying.empty_repository(FakeEcr({}), "gone") == 0

    class Gone(FakeS3):
        def list_object_versions(self, **_: Any) -> Iterator[dict[str, Any]]:
            raise refusal("ListObjectVersions", "The specified bucket does not exist", "NoSuchBucket")

    assert emptying.empty_bucket(Gone([]), "bucket-1") == 0
    assert emptying.bucket_contents(Gone([]), "bucket-1") == ("bucket-1", 0, 0, True)


# --- jobs and stacks ----------------------------------------------------------------------------------------------


def destroy(found: Holdings, batch: FakeBatch | None = None, **services: Any) -> tuple[Proof, Time, list[str]]:
    """Destroy without waiting in earnest; nothing is looked at afterwards but the stacks."""
    time, told = Time(), []  # type: tuple[Time, list[str]]
    made: dict[str, Any] = {"cloudformation": FakeFormation(), "batch": batch or FakeBatch(), **services}
    proof = teardown.destroy(made.__getitem__, found, say=told.append, sleep=time.sleep, clock=time.clock)
    return proof, time, told


@pytest.fixture
def only_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof looks at stacks only."""
    for name in ("_left_batch", "_left_clusters", "_left_definitions", "_left_tagged"):
        monkeypatch.setattr(holdings, name, lambda client, found: [])


@pytest.mark.usefixtures("only_stacks")
def test_jobs_are_terminated_in_bulk_and_waited_for() -> None:
    """After the queue takes no more, each once; one that could not be terminated is tried again."""
    batch = FakeBatch(jobs=120, ends_after=3, refuse_first="job-7")
    _, time, told = destroy(holding(QUEUE, jobs=(ActiveJob("job-0", "RUNNING"),)), batch)
    assert batch.disabled == ["arn:queue"]
    assert [len(some) for some in batch.terminated] == [49, 50, 20, 1]
    assert batch.jobs == {}
    assert told[:3] == [
        "terminating 120 jobs",
        "1 of 50 jobs could not be terminated yet: job job-7: ThrottlingException: Rate exceeded",
        "terminating 1 jobs",
    ]
    assert time.sleeps


@pytest.mark.usefixtures("only_stacks")
def test_jobs_that_do_not_end_hold_nothing_up_for_ever() -> None:
    """The deletion of their queue waits for them in AWS."""
    batch = FakeBatch(jobs=1, ends_after=10_000)
    _, time, told = destroy(holding(QUEUE), batch)
    assert teardown.JOBS_TIMEOUT_S <= time.now < teardown.JOBS_TIMEOUT_S + 60
    assert "1 jobs have not ended yet" in told[1]


@pytest.mark.usefixtures("only_stacks")
def test_a_queue_that_is_gone_is_not_looked_for() -> None:
    """A stack that lost it otherwise is deleted all the same."""
    batch = FakeBatch()
    destroy(holding(QUEUE._replace(physical_id="arn:gone")), batch)
    assert batch.disabled == []


@pytest.mark.usefixtures("only_stacks")
def test_a_bucket_that_is_written_meanwhile_is_emptied_again() -> None:
    """A Covalent server may still be at work; three times, then it is an error."""
    for failures in (1, 3):
        aws, s3 = FakeFormation(), FakeS3(["a"])
        stack = aws.add("cirro-storage", "CREATE_COMPLETE")
        event = ("Bucket", "AWS::S3::Bucket", "DELETE_FAILED", "The bucket you tried to delete is not empty")
        real_delete, left = aws.delete_stack, [failures]

        def delete(
            StackName: str,
            aws: FakeFormation = aws,
            left: list[int] = left,
            real: Any = real_delete,
            failed: Any = event,
        ) -> Any:
            if left[0]:
                left[0] -= 1
                aws.runs["cirro-storage"] = [("DELETE_FAILED", [failed])]
            return real(StackName=StackName)

        aws.delete_stack = delete  # type: ignore[method-assign]
        found = holding(BUCKET, stacks=(holdings.stacks.get(aws, stack["StackId"]),))
        if failures < teardown.EMPTYING_TRIES:
            assert destroy(found, cloudformation=aws, s3=s3)[0] == Proof((), ())
            assert s3.emptied == failures + 1
        else:
            with pytest.raises(StackError, match=r"could not be deleted: Bucket .* not empty"):
                destroy(found, cloudformation=aws, s3=s3)


# --- what is whose, and what is left ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "ours"),
    [
        ({"role": "cirro-roles-JobRole-1A2B"}, True),
        ({"role": "renamed"}, True),
        ({"role": "other-roles-JobRole-1A2B"}, False),
        ({"role": "cirro-roles-roles-JobRole-1A2B"}, False),
        ({"role": "cirro-roles-JobRole-1A2B", "tags": {}}, False),
        ({"role": "cirro-roles-JobRole-1A2B", "name": "mine-1"}, False),
        ({"role": ""}, False),
    ],
)
def test_definitions_of_executors_are_told_by_name_tag_and_role(definition: dict[str, Any], ours: bool) -> None:
    """Roles that are gone already by the name that CloudFormation gave them, also of a deployment with a like name."""
    role = definition["role"]
    described = {
        "jobDefinitionName": definition.get("name", "cirro-0123456789abcdef"),
        "tags": definition.get("tags", {"cirro:made-by": "covalent-cirro"}),
        "containerProperties": {"jobRoleArn": f"arn:aws:iam::123456789012:role/{role}" if role else None},
    }
    assert is_of_deployment(described, "cirro", ["renamed"]) == ours
    container = described.pop("containerProperties")
    several = {**described, "nodeProperties": {"nodeRangeProperties": [{"targetNodes": "0:", "container": container}]}}
    assert is_of_deployment(several, "cirro", ["renamed"]) == ours


def test_what_takes_its_time_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still listed for a while is looked at again; what stays listed is named."""
    answers = iter([["arn:a", "arn:b"], ["arn:b"], []])
    for name in ("_left_stacks", "_left_batch", "_left_clusters", "_left_definitions"):
        monkeypatch.setattr(holdings, name, lambda client, found: [])
    monkeypatch.setattr(holdings, "_left_tagged", lambda client, found: next(answers))
    time = Time()
    assert holdings.prove(lambda service: None, holding(), sleep=time.sleep, clock=time.clock) == Proof((), ())
    monkeypatch.setattr(holdings, "_left_tagged", lambda client, found: ["arn:b"])
    time = Time()
    proof = holdings.prove(lambda service: None, holding(), sleep=time.sleep, clock=time.clock)
    assert proof == Proof(("arn:b",), ())
    assert time.now == pytest.approx(holdings.PROOF_PATIENCE_S)


class Tagging:
    """Tells resources with a tag."""

    def __init__(self, *arns: str) -> None:
        self.meta = META
        self.arns = arns

    def get_paginator(self, operation: str) -> Any:
        return self

    def paginate(self, TagFilters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        assert TagFilters == [{"Key": "covalent-cirro", "Values": ["cirro"]}]
        yield {"ResourceTagMappingList": [{"ResourceARN": arn} for arn in self.arns]}


def test_what_is_kept_or_over_is_not_left() -> None:
    """Kept data by name or ARN, deleted stacks and terminated instances, which AWS lists for a while."""
    instances = {"i-1": "terminated", "i-2": "running"}
    ec2 = SimpleNamespace(
        meta=META,
        describe_instances=lambda Filters: {
            "Reservations": [
                {"Instances": [{"InstanceId": each, "State": {"Name": state}} for each, state in instances.items()]}
            ]
        },
    )
    tagging = Tagging(
        "arn:aws:s3:::bucket-1",
        "arn:aws:logs:eu-west-1:123456789012:log-group:logs-1",
        "arn:aws:ecr:eu-west-1:123456789012:repository/images",
        "arn:aws:cloudformation:eu-west-1:123456789012:stack/cirro-compute/1",
        "arn:aws:ec2:eu-west-1:123456789012:instance/i-1",
        "arn:aws:ec2:eu-west-1:123456789012:instance/i-2",
        "arn:aws:ec2:eu-west-1:123456789012:volume/vol-1",
    )
    made = {"resourcegroupstaggingapi": tagging, "ec2": ec2, "cloudformation": FakeFormation()}
    found = holding(keep_data=True, kept=("bucket-1", "logs-1", "images"))
    left = list(holdings._left_tagged(made.__getitem__, found))
    assert left == [
        "arn:aws:ec2:eu-west-1:123456789012:instance/i-2",
        "arn:aws:ec2:eu-west-1:123456789012:volume/vol-1",
    ]
    everything = list(holdings._left_tagged(made.__getitem__, holding()))
    assert "arn:aws:s3:::bucket-1" in everything


def test_what_cannot_be_looked_at_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof that could not look is not one of absence, and no failure of the deletion either."""
    for name in ("_left_batch", "_left_clusters", "_left_definitions"):
        monkeypatch.setattr(holdings, name, lambda client, found: [])

    class Denied(Tagging):
        def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
            raise refusal("GetResources", "not authorized to perform: tag:GetResources", "AccessDeniedException")

    made: dict[str, Any] = {"resourcegroupstaggingapi": Denied(), "cloudformation": FakeFormation()}
    proof = holdings.prove(made.__getitem__, holding(), patience_s=0)
    assert proof.left == ()
    assert "tag:GetResources" in proof.not_asked[0]


def policies(*described: dict[str, Any]) -> SimpleNamespace:
    """AWS Batch with these scheduling policies, and without queues and compute environments."""
    pages = [{"schedulingPolicies": [{"arn": each["arn"]} for each in described]}]
    return SimpleNamespace(
        meta=META,
        get_paginator=lambda operation: SimpleNamespace(paginate=lambda: pages),
        describe_scheduling_policies=lambda arns: {"schedulingPolicies": [each for each in described]},
    )


def test_a_scheduling_policy_that_is_left_is_named() -> None:
    """The stack's, and one that has the deployment's tag; none of others."""
    batch = policies(
        {"arn": "arn:of-the-stack"},
        {"arn": "arn:given-up", "tags": {"covalent-cirro": "cirro"}},
        {"arn": "arn:of-another", "tags": {"covalent-cirro": "other"}},
        {"arn": "arn:of-somebody"},
    )
    found = holding(QUEUE._replace(resource_type="AWS::Batch::SchedulingPolicy", physical_id="arn:of-the-stack"))
    assert list(holdings._left_batch({"batch": batch}.__getitem__, found)) == [
        "scheduling policy arn:of-the-stack",
        "scheduling policy arn:given-up",
    ]


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ("CloudFormation stack cirro-roles (DELETE_FAILED)", "cloudformation delete-stack --stack-name cirro-roles"),
        (
            "scheduling policy {batch}scheduling-policy/p",
            "batch delete-scheduling-policy --arn {batch}scheduling-policy/p",
        ),
        ("JobQueue {batch}job-queue/q (VALID)", "batch delete-job-queue --job-queue {batch}job-queue/q"),
        (
            "ComputeEnvironment {batch}compute-environment/c (INVALID)",
            "delete-compute-environment --compute-environment",
        ),
        (
            "job definition {batch}job-definition/d:1",
            "deregister-job-definition --job-definition {batch}job-definition/d:1",
        ),
        (
            "ECS cluster arn:aws:ecs:eu-west-1:1:cluster/c (ACTIVE), which AWS Batch made",
            "--cluster arn:aws:ecs:eu-west-1",
        ),
        ("arn:aws:elasticfilesystem:eu-west-1:1:file-system/fs-1", "efs delete-file-system --file-system-id fs-1"),
        ("arn:aws:s3:::bucket-1", "s3 rb s3://bucket-1 --force"),
        ("arn:aws:ecr:eu-west-1:1:repository/a/b", "ecr delete-repository --repository-name a/b --force"),
        (
            "arn:aws:logs:eu-west-1:1:log-group:/cirro/jobs:*",
            "logs delete-log-group --log-group-name /cirro/jobs --region",
        ),
        ("arn:aws:ec2:eu-west-1:1:instance/i-1", "ec2 terminate-instances --instance-ids i-1"),
        ("arn:aws:ec2:eu-west-1:1:security-group/sg-1", "ec2 delete-security-group --group-id sg-1"),
    ],
)
def test_the_command_that_deletes_what_is_left_is_told(left: str, words: str) -> None:
    """In the deployment's region."""
    batch = "arn:aws:batch:eu-west-1:123456789012:"
    found = leftovers.command(left.format(batch=batch), "eu-west-1")
    assert found.startswith("aws ")
    assert words.format(batch=batch) in found
    assert found.endswith("--region eu-west-1")


def test_of_what_no_deployment_makes_there_is_no_command() -> None:
    """Somebody gave it the deployment's tag."""
    assert leftovers.command("arn:aws:kinesis:eu-west-1:123456789012:stream/s", "eu-west-1") == ""
    assert leftovers.command("something", "eu-west-1") == ""
