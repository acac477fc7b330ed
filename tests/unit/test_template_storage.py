"""``infra/storage.yaml``: what keeps data private, and its cost from growing, which no linter knows."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest

from covalent_cirro.aws import blob_objects
from covalent_cirro.contract import places, reports
from covalent_cirro.local.emulator.ecr.image_lifecycle import ImageAge, expired
from covalent_cirro.models import model_version
from covalent_cirro.serving import service_values
from tests.unit.template_facts import TEMPLATES

STORAGE = TEMPLATES["storage"]


def test_bucket_is_private_and_encrypted() -> None:
    """No public access by policy or ACL, no ACLs at all, AES256."""
    bucket = STORAGE.properties("Bucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"


def test_bucket_is_reached_by_tls_only() -> None:
    """For everybody, for every action, on the bucket and all that is in it."""
    statement = STORAGE.properties("BucketPolicy")["PolicyDocument"]["Statement"][0]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Resource"] == [{"Fn::GetAtt": ["Bucket", "Arn"]}, {"Fn::Sub": "${Bucket.Arn}/*"}]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_all_that_we_write_expires() -> None:
    """Keys of calls, blobs and reports, by the protocol's own names, each fall under a rule of these days."""
    rules = STORAGE.properties("Bucket")["LifecycleConfiguration"]["Rules"]
    expire = {
        rule["Prefix"]["Fn::Sub"].replace("${S3Prefix}", STORAGE.defaults["S3Prefix"]): rule["ExpirationInDays"]
        for rule in rules
        if "ExpirationInDays" in rule
    }
    assert list(expire.values()) == [{"Ref": "ExpireAfterDays"}] * 3
    prefix = STORAGE.defaults["S3Prefix"] + "/"
    call = places.location("b", prefix, "d", 0, "c")
    for key in (places.blob_key(prefix, "0" * 64), call.outcome_key, reports.base(prefix, "sweep", "d", 0)):
        assert any(key.startswith(start) for start in expire)
    assert all(rule["Status"] == "Enabled" for rule in rules)


def test_what_a_job_tells_of_its_end_is_written_once() -> None:
    """Outcomes and results, of ordinary jobs and of children: without If-None-Match they are refused."""
    [statement] = [
        each
        for each in STORAGE.properties("BucketPolicy")["PolicyDocument"]["Statement"]
        if each["Sid"] == "OutcomesAreWrittenOnce"
    ]
    patterns = [each["Fn::Sub"].replace("${Bucket.Arn}/${S3Prefix}/", "cirro/") for each in statement["Resource"]]
    where = places.location("b", "cirro/", "dispatch", 3, "018f5e2b7c00c0ffee01")
    for job in (where, where.child(7)):
        for key in (job.outcome_key, job.attempt_key("f" * 32, 2), job.chunk_key("01-000000-000005-000000.json")):
            assert any(fnmatch.fnmatchcase(key, each) for each in patterns), key


def test_models_do_not_expire() -> None:
    """No rule takes a registered model."""
    rules = STORAGE.properties("Bucket")["LifecycleConfiguration"]["Rules"]
    key = model_version.file_key("cirro/", "m", "20261130T081500Z-0a1b2c3d", "weights.safetensors")
    starts = [rule["Prefix"]["Fn::Sub"].replace("${S3Prefix}", "cirro") for rule in rules if "Prefix" in rule]
    assert len(starts) == 3
    assert not [start for start in starts if key.startswith(start)]


def test_versions_of_models_are_written_once_and_pointers_by_those_who_read_them() -> None:
    """By the bucket's policy, whatever the role; a part of an upload carries no condition."""
    statements = {
        each["Sid"]: each
        for each in STORAGE.properties("BucketPolicy")["PolicyDocument"]["Statement"]
        if each["Effect"] == "Deny"
    }
    once, read = statements["ModelsAreWrittenOnce"], statements["PointersAreReadBeforeTheyAreMoved"]
    version = "20261130T081500Z-0a1b2c3d"
    keys = [model_version.file_key("cirro/", "m", version, file) for file in ("weights.safetensors", "model.json")]
    pointer = model_version.pointer_key("cirro/", "m")

    def covers(statement: dict[str, Any], key: str) -> bool:
        pattern = statement["Resource"]["Fn::Sub"].replace("${Bucket.Arn}/${S3Prefix}/", "cirro/")
        return fnmatch.fnmatchcase(key, pattern)

    assert [covers(once, key) for key in (*keys, pointer)] == [True, True, False]
    assert covers(read, pointer)
    assert once["Condition"]["Null"] == {"s3:if-none-match": "true"}
    assert read["Condition"]["Null"] == {"s3:if-none-match": "true", "s3:if-match": "true"}
    assert once["Condition"]["Bool"] == read["Condition"]["Bool"] == {"s3:ObjectCreationOperation": "true"}


def test_unfinished_uploads_and_old_versions_go_too() -> None:
    """Both are invisible in a listing, and cost all the same."""
    rules = STORAGE.properties("Bucket")["LifecycleConfiguration"]["Rules"]
    [unfinished] = [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule]
    assert "Prefix" not in unfinished
    assert all("NoncurrentVersionExpiration" in rule for rule in rules if "ExpirationInDays" in rule)


def test_a_blob_lives_at_least_twice_as_long_as_it_takes_to_be_renewed() -> None:
    """It is renewed when it is needed again, and has to outlive the job that then waits for it."""
    assert STORAGE.parameters["ExpireAfterDays"]["MinValue"] * 24 * 3600 >= 2 * blob_objects.REFRESH_AFTER_S


def test_repository_scans_and_cleans_up() -> None:
    """Images are scanned on push, encrypted, and all but the newest go."""
    repository = STORAGE.properties("ImageRepository")
    assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
    assert repository["EncryptionConfiguration"] == {"EncryptionType": "AES256"}
    text = repository["LifecyclePolicy"]["LifecyclePolicyText"]["Fn::Sub"].replace("${KeepImages}", "10")
    served, others = json.loads(text)["rules"]
    assert others["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 10}
    assert served["selection"] == {**others["selection"], "tagStatus": "tagged", "tagPatternList": ["serve*"]}
    assert served["rulePriority"] < others["rulePriority"]
    assert served["action"] == others["action"] == {"type": "expire"}


def test_images_of_jobs_do_not_crowd_out_those_of_services() -> None:
    """A service pulls its image whenever a task starts, long after ten more images were pushed for jobs."""
    text = STORAGE.properties("ImageRepository")["LifecyclePolicy"]["LifecyclePolicyText"]["Fn::Sub"]
    served = ImageAge("sha256:served", (service_values.MODEL_IMAGE_TAG,), 0.0, 0)
    others = [ImageAge(f"sha256:{number}", (f"v{number}",), float(number), number) for number in range(1, 12)]
    assert expired([served, *others], text.replace("${KeepImages}", "10"), now=1e6) == ["sha256:1"]


def test_logs_are_not_kept_for_ever() -> None:
    """The log driver's own group would be."""
    assert STORAGE.properties("JobLogGroup")["RetentionInDays"] == {"Ref": "LogRetentionDays"}


@pytest.mark.parametrize("name", ["Bucket", "ImageRepository", "JobLogGroup"])
def test_what_holds_data_says_what_becomes_of_it(name: str) -> None:
    """Deleting the stack deletes it (S3 itself keeps a bucket that is not empty); replacing it does not."""
    assert STORAGE.resources[name]["DeletionPolicy"] == "Delete"
    assert STORAGE.resources[name]["UpdateReplacePolicy"] == "Retain"


def test_repository_does_not_block_the_deletion() -> None:
    """ECR refuses to delete a repository that has images."""
    assert STORAGE.properties("ImageRepository")["EmptyOnDelete"] is True
