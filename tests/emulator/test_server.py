"""The port: connections, big objects, parallel reads, conditional writes, checksums; and life as a process."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from covalent_cirro.errors import EmulatorError
from covalent_cirro.local.emulator import Emulator, keys
from tests.access import ask, signed
from tests.emulator.conftest import alive

MIB = 1024 * 1024


def test_a_connection_is_kept_for_many_calls(aws: Any) -> None:
    """HTTP/1.1, after answers of all kinds, an unread body among them."""
    connection = http.client.HTTPConnection("127.0.0.1", aws.emulator.port)
    asked = [
        ("GET", "/_cirro/health", b"", 200),
        ("POST", "/v1/describejobs", b'{"jobs": ["x"]}', 200),
        ("POST", "/v1/describejobs", b"{", 400),
        ("POST", "/v1/submitjob", b"x" * 1000, 403),
        ("HEAD", "/no-such-bucket/key", b"", 404),
        ("POST", "/_cirro/nothing", b"x" * 1000, 404),
        ("GET", "/_cirro/health", b"", 200),
    ]
    sockets = set()
    for method, path, body, status in asked:
        key, url = aws.emulator.key, aws.emulator.endpoint_url + path
        if path.startswith("/_cirro/"):
            headers = {"Authorization": key.basic}
        else:
            headers = {} if status == 403 else signed(key, method, url, body, service="s3" if not body else "batch")
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status, path
        sockets.add(connection.sock)
    assert len(sockets) == 1


def test_a_chunked_body_is_understood(aws: Any) -> None:
    """As some clients send streams of unknown length."""
    bucket = aws.bucket()
    connection = http.client.HTTPConnection("127.0.0.1", aws.emulator.port)
    url = aws.s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"})
    target = url.removeprefix(aws.emulator.endpoint_url)
    connection.request("PUT", target, iter([b"one ", b"two"]), encode_chunked=True)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    assert aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"one two"


def test_a_form_content_type_does_not_hang(aws: Any) -> None:
    """urllib's default for a PUT; the object is stored as it is."""
    bucket, body = aws.bucket(), bytes(range(256)) * 20
    url = aws.s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"})
    request = urllib.request.Request(url, data=body, method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    assert aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "SHA256", "CRC64NVME"])
def test_checksums_of_all_kinds_are_taken(aws: Any, algorithm: str) -> None:
    """Sent in the trailer of a streamed body, and given back on reading."""
    if algorithm in ("CRC32C", "CRC64NVME"):
        pytest.importorskip("awscrt")
    bucket, body = aws.bucket(), os.urandom(3 * MIB)
    aws.s3.put_object(Bucket=bucket, Key="k", Body=body, ChecksumAlgorithm=algorithm)
    got = aws.s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == body
    assert f"Checksum{algorithm}" in got


def test_a_checksum_is_kept_and_told_by_head(aws: Any) -> None:
    """The sender's own, or that of the parts with their number, as S3 has it; a copy has one of the whole."""
    bucket = aws.bucket()
    parts = [bytes(5 * MIB), b"the last one"]
    digests = [hashlib.sha256(part).digest() for part in parts]
    of_whole = base64.b64encode(hashlib.sha256(b"".join(parts)).digest()).decode()
    of_parts = f"{base64.b64encode(hashlib.sha256(b''.join(digests)).digest()).decode()}-2"

    def checksum(key: str) -> str:
        return str(aws.s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")["ChecksumSHA256"])

    aws.s3.put_object(Bucket=bucket, Key="whole", Body=b"".join(parts), ChecksumSHA256=of_whole)
    assert checksum("whole") == of_whole
    upload = aws.s3.create_multipart_upload(Bucket=bucket, Key="parts", ChecksumAlgorithm="SHA256")["UploadId"]
    done = []
    for number, part in enumerate(parts, 1):
        where = {"Bucket": bucket, "Key": "parts", "UploadId": upload, "PartNumber": number}
        answer = aws.s3.upload_part(**where, Body=part, ChecksumAlgorithm="SHA256")
        done.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": answer["ChecksumSHA256"]})
    aws.s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": done})
    assert checksum("parts") == of_parts
    aws.s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/parts", ChecksumAlgorithm="SHA256")
    assert checksum("copy") == of_whole


def test_a_wrong_checksum_is_refused(aws: Any) -> None:
    """The object is not stored."""
    bucket = aws.bucket()
    wrong = base64.b64encode(zlib.crc32(b"other").to_bytes(4, "big")).decode()
    with pytest.raises(ClientError) as error:
        aws.s3.put_object(Bucket=bucket, Key="k", Body=b"this", ChecksumCRC32=wrong)
    assert error.value.response["Error"]["Code"] == "BadDigest"
    assert "Contents" not in aws.s3.list_objects_v2(Bucket=bucket)


def test_an_upload_that_breaks_off_stores_nothing(aws: Any) -> None:
    """A cut connection is not the end of the object."""
    bucket = aws.bucket()
    connection = http.client.HTTPConnection("127.0.0.1", aws.emulator.port)
    connection.putrequest("PUT", f"/{bucket}/k")
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    connection.send(b"x" * 500)
    connection.close()
    time.sleep(0.1)
    assert "Contents" not in aws.s3.list_objects_v2(Bucket=bucket)


def test_many_read_a_big_object_at_once(aws: Any) -> None:
    """50 MB, 100 readers, ten at a time; the bytes are right, and memory does not grow with the readers."""
    import psutil

    bucket, body = aws.bucket(), os.urandom(50_000_000)
    digest = hashlib.sha256(body).hexdigest()
    aws.s3.put_object(Bucket=bucket, Key="k", Body=body)
    url = aws.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})

    def read(_: int) -> int:
        """Reads in pieces: the reader holds little."""
        with urllib.request.urlopen(url) as answer:
            return sum(iter(lambda: answer.readinto(buffers.__dict__.setdefault("own", bytearray(MIB))), 0))

    buffers = threading.local()
    assert hashlib.sha256(aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read()).hexdigest() == digest
    before = psutil.Process().memory_info().rss
    peak = before
    with ThreadPoolExecutor(10) as pool:
        results = [pool.submit(read, i) for i in range(100)]
        while not all(result.done() for result in results):
            peak = max(peak, psutil.Process().memory_info().rss)
            time.sleep(0.01)
    assert {result.result() for result in results} == {50_000_000}
    assert peak - before < 150 * MIB


def test_ranges_of_an_object(aws: Any) -> None:
    """As transfer managers ask for them."""
    bucket = aws.bucket()
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    got = aws.s3.get_object(Bucket=bucket, Key="k", Range="bytes=3-5")
    assert (got["Body"].read(), got["ContentRange"]) == (b"345", "bytes 3-5/10")


def test_one_of_many_conditional_writers_wins(aws: Any) -> None:
    """The others get 412, however close they are."""
    bucket = aws.bucket()
    barrier = threading.Barrier(8)

    def write(number: int) -> str:
        barrier.wait()
        try:
            aws.s3.put_object(Bucket=bucket, Key="k", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return str(number)

    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(write, range(8)))
    winners = [result for result in results if result != "PreconditionFailed"]
    assert len(winners) == 1
    assert aws.s3.get_object(Bucket=bucket, Key="k")["Body"].read().decode() == winners[0]


def test_a_transfer_manager_round_trip(aws: Any, tmp_path: Path) -> None:
    """boto3's multipart upload and download."""
    bucket, path, back = aws.bucket(), tmp_path / "file", tmp_path / "back"
    path.write_bytes(os.urandom(20 * MIB))
    aws.s3.upload_file(str(path), bucket, "k")
    aws.s3.download_file(bucket, "k", str(back))
    assert back.read_bytes() == path.read_bytes()


def test_the_crt_reads_and_writes(aws: Any, tmp_path: Path) -> None:
    """The S3 client that the runner uses: parallel parts and ranges."""
    pytest.importorskip("awscrt")
    from awscrt.auth import AwsCredentialsProvider
    from awscrt.http import HttpHeaders, HttpRequest
    from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup
    from awscrt.s3 import S3Client, S3RequestTlsMode, S3RequestType, create_default_s3_signing_config

    group = EventLoopGroup(1)
    credentials = AwsCredentialsProvider.new_static(*aws.emulator.key)
    client = S3Client(
        bootstrap=ClientBootstrap(group, DefaultHostResolver(group)),
        region="us-east-1",
        tls_mode=S3RequestTlsMode.DISABLED,
        signing_config=create_default_s3_signing_config(region="us-east-1", credential_provider=credentials),
        part_size=5 * MIB,
    )
    bucket, path, back = aws.bucket(), tmp_path / "file", tmp_path / "back"
    path.write_bytes(os.urandom(20 * MIB))

    def ask(method: str, kind: S3RequestType, headers: list[tuple[str, str]], **files: str) -> None:
        host = ("Host", f"127.0.0.1:{aws.emulator.port}")
        request = HttpRequest(method, f"/{bucket}/k", HttpHeaders([host, *headers]))
        client.make_request(type=kind, request=request, **files).finished_future.result(30)

    length = ("Content-Length", str(20 * MIB))
    ask("PUT", S3RequestType.PUT_OBJECT, [length], send_filepath=str(path))
    ask("GET", S3RequestType.GET_OBJECT, [], recv_filepath=str(back))
    assert back.read_bytes() == path.read_bytes()


def test_emulators_side_by_side_do_not_mix() -> None:
    """Each has an account of its own in this process, and forgets it at its end."""
    with Emulator() as one, Emulator() as two:
        assert one.account != two.account
        one.client("s3").create_bucket(Bucket="only-in-one")
        assert two.client("s3").list_buckets()["Buckets"] == []
        one.client("logs").create_log_group(logGroupName="here")
        assert two.client("logs").describe_log_groups()["logGroups"] == []
        account = one.account
    with Emulator() as again:
        assert again.account == account
        assert again.client("s3").list_buckets()["Buckets"] == []
        again.client("s3").create_bucket(Bucket="only-in-one")


def test_closing_ends_every_job(poll: Any) -> None:
    """At once, SIGTERM or not."""
    import psutil

    with Emulator() as emulator:
        from tests.emulator.conftest import Aws

        aws = Aws(emulator)
        job_id = aws.submit("sh", "-c", "trap '' TERM; echo $$; while true; do sleep 0.05; done")
        job = aws.reach(job_id, "RUNNING")
        (pid,) = poll(lambda: aws.log(job), "its pid")
    poll(lambda: not psutil.pid_exists(int(pid)), "the end of the job")
    assert not emulator.state_dir.exists()


def test_a_taken_port_is_an_error_that_says_so(aws: Any) -> None:
    """With what to do."""
    with pytest.raises(EmulatorError, match=f"127.0.0.1:{aws.emulator.port}.*take another port"):
        Emulator(port=aws.emulator.port).start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_a_process(tmp_path: Path, poll: Any, number: signal.Signals) -> None:
    """It says where it is once it answers, and leaves neither a job nor its note when it is told to stop."""
    note = tmp_path / "emulator.json"
    process = subprocess.Popen([sys.executable, "-m", "covalent_cirro.emulator", "--state-dir", str(tmp_path)])
    try:
        poll(note.exists, "emulator.json")
        facts = json.loads(note.read_text())
        assert facts["pid"] == process.pid
        assert facts["region"] == "us-east-1"
        assert facts["endpoint_url"] == f"http://127.0.0.1:{facts['port']}"
        key = keys.read(Path(facts["credentials"]))
        assert ask(facts["endpoint_url"], key, "health") == {"status": "ok"}
        batch = boto3.client(
            "batch",
            endpoint_url=facts["endpoint_url"],
            region_name="us-east-1",
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
        )
        pid_file = tmp_path / "pid"
        _start_sleeping_job(batch, pid_file)
        pid = int(poll(lambda: pid_file.exists() and pid_file.read_text().strip(), "the job's pid"))
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
        poll(lambda: not alive(pid), "the end of the job")
        assert not note.exists()
    finally:
        process.kill()
        process.wait()


def _start_sleeping_job(batch: Any, pid_file: Path) -> None:
    batch.create_compute_environment(
        computeEnvironmentName="ce",
        type="MANAGED",
        computeResources={
            "type": "EC2",
            "maxvCpus": 2,
            "minvCpus": 0,
            "instanceTypes": ["m6i"],
            "instanceRole": "r",
            "subnets": ["s"],
            "securityGroupIds": ["g"],
        },
    )
    batch.create_job_queue(
        jobQueueName="q", priority=1, computeEnvironmentOrder=[{"order": 1, "computeEnvironment": "ce"}]
    )
    requirements = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}]
    batch.register_job_definition(
        jobDefinitionName="d",
        type="container",
        containerProperties={
            "image": "i",
            "command": ["sh", "-c", f"echo $$ > {pid_file}; exec sleep 300"],
            "resourceRequirements": requirements,
        },
    )
    batch.submit_job(jobName="j", jobQueue="q", jobDefinition="d")
