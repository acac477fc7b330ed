"""S3 on bad days, and the outcome that is written last and once."""

from __future__ import annotations

import http.server
import json
import os
import random
import socket
import sys
import threading
import zlib
from typing import Any

import cloudpickle
import pytest

from covalent_cirro.contract import documents, limits
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.protocol import ExitCode, Log, NodeResult, Outcome, Output, Usage
from covalent_cirro.contract.references import Blob, Inline
from tests.runner.conftest import BUCKET, MAC_KEY

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ACCESS_DENIED = (
    403,
    {"Content-Type": "application/xml"},
    b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message>"
    b"<StringToSign>AWS4-HMAC secret stuff</StringToSign></Error>",
)
SERVER_ERROR = (500, {"Content-Type": "application/xml"}, b"<Error><Code>InternalError</Code></Error>")


class Times:
    """Answers the first few requests that match; lets the rest through."""

    def __init__(self, count: int, answer: Any, matches: Any) -> None:
        self.left, self._answer, self._matches = count, answer, matches

    def __call__(self, request: Any) -> Any:
        if self.left and self._matches(request):
            self.left -= 1
            return self._answer
        return None


def an_outcome(attempt: int = 1, call_id: str = "018f5e2b7c00c0ffee01", failure: Failure | None = None) -> Outcome:
    """An outcome that an earlier attempt might have left."""
    output = None if failure else Output(Inline(cloudpickle.dumps("earlier")), Inline(b"earlier"))
    return Outcome(
        call_id, attempt, "job-1", (NodeResult(0, output, failure, Log(), Log()),), Usage(), "3", "3", {}, {}
    )


# --- reading --------------------------------------------------------------------------------------------------------


def test_call_that_is_not_there_names_bucket_and_key(runs: Any) -> None:
    """Exit code 64 and one clear line on stderr; no outcome."""
    ran = runs.finish(runs.start())

    assert (ran.code, ran.outcome) == (ExitCode.BAD_CALL, None)
    assert f"s3://runner-tests/{runs.location.call_key} failed: NoSuchKey" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_refused_call_names_role_and_permission(runs: Any) -> None:
    """What to check is said; what S3 said of signatures is not."""
    runs.proxy.intercept = lambda _: ACCESS_DENIED

    ran = runs.finish(runs.start())

    assert ran.code == ExitCode.BAD_CALL
    for words in ("AccessDenied", "s3:GetObject", "runner-tests", "job role", "s3:ListBucket"):
        assert words in ran.stderr
    assert "secret" not in ran.stderr


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"{", "call.json is not JSON"),
        (b'{"format": 99}', "update the side that reads it"),
        (b'{"format": 2}', "call.json.call_id is not a string"),
    ],
)
def test_call_that_is_not_understood_is_refused(runs: Any, document: bytes, words: str) -> None:
    """Exit code 64, and the reason on stderr."""
    runs.put(runs.location.call_key, document)

    ran = runs.finish(runs.start())

    assert (ran.code, ran.outcome) == (ExitCode.BAD_CALL, None)
    assert words in ran.stderr


def test_argument_that_is_no_call_is_refused(runs: Any) -> None:
    """Nothing is asked of S3."""
    runs.location = runs.location._replace(base="nothing/")

    ran = runs.finish(runs.start())

    assert ran.code == ExitCode.BAD_CALL
    assert "is not the URI of a call" in ran.stderr
    assert runs.proxy.requests == []


def lies(runs: Any) -> dict[str, tuple[Blob, str]]:
    """Blobs that are not what they say, and what is said of them."""
    data = cloudpickle.dumps(list(range(1000)))
    packed = zlib.compress(data)
    changed = runs.blob(data)
    key = runs.location.blob_key(changed.sha256)

    def change(stored: bytes) -> Blob:
        runs.put(key, stored)
        return changed  # type: ignore[no-any-return]

    return {
        "missing": (Blob("0" * 64, 10, "raw", 10), "NoSuchKey"),
        "cut short": (runs.blob(data + b"1", size=len(data) + 2), "instead of"),
        "changed": (change(data[:-1] + b"!"), "was changed in S3"),
        "too long": (runs.blob(packed, codec="zlib", raw_size=len(data) - 1), "decodes to more than"),
        "too short": (runs.blob(packed, codec="zlib", raw_size=len(data) + 1), "instead of"),
        "not zlib": (runs.blob(data + b"2", codec="zlib", raw_size=1), "is not zlib data"),
        "unfinished zlib": (runs.blob(packed[:-4], codec="zlib", raw_size=len(data)), "instead of"),
    }


@pytest.mark.parametrize(
    "lie", ["missing", "cut short", "changed", "too long", "too short", "not zlib", "unfinished zlib"]
)
def test_blob_that_is_not_what_it_says_is_refused(runs: Any, lie: str) -> None:
    """Nothing of it is unpickled; outcome and exit code say FETCH, the message names the blob."""
    blob, words = lies(runs)[lie]

    ran = runs(runs.task(print, blob))

    assert ran.code == ExitCode.FETCH
    assert ran.failure.kind == Kind.FETCH
    assert blob.sha256 in ran.failure.message
    assert words in ran.failure.message
    assert ran.stdout == ""


def test_compressed_blob_is_decoded(runs: Any) -> None:
    """The codec of the call is honoured; a megabyte of zeros is only bytes long."""
    data = cloudpickle.dumps(bytes(5_000_000))
    blob = runs.blob(zlib.compress(data), codec="zlib", raw_size=len(data))

    assert runs.value(runs(runs.task(len, blob))) == 5_000_000


@pytest.mark.parametrize("trouble", [SERVER_ERROR, "cut"])
def test_server_errors_and_cut_connections_are_retried(runs: Any, trouble: Any) -> None:
    """On the call, on a blob that comes in ranges, and on the outcome."""
    blob = runs.blob(cloudpickle.dumps(os.urandom(10_000_000)))
    seen: set[tuple[str, str, str]] = set()

    def once_each(request: Any) -> Any:
        what = (request.method, request.path, request.headers.get("range", ""))
        if what in seen or (request.method != "GET" and trouble == "cut"):
            return None
        seen.add(what)
        return trouble

    runs.make_call(runs.task(len, blob))
    runs.proxy.intercept = once_each

    ran = runs.finish(runs.start())

    assert (ran.code, runs.value(ran)) == (ExitCode.OK, 10_000_000)
    assert len(seen) >= 3


# --- credentials ----------------------------------------------------------------------------------------------------


def test_no_credentials_at_all_are_told(runs: Any) -> None:
    """The job definition's role is what to look at."""
    runs.make_call(runs.task(print))

    ran = runs.finish(runs.start({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}))

    assert ran.code == ExitCode.BAD_CALL
    assert "no AWS credentials" in ran.stderr
    assert "jobRoleArn" in ran.stderr


def test_container_credentials_by_full_uri(runs: Any) -> None:
    """ECS's endpoint is asked with its token; the key that it gave signs the requests."""
    tokens = []

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers["Authorization"])
            data = {
                "AccessKeyId": "FROMECS",
                "SecretAccessKey": "s",
                "Token": "t",
                "Expiration": "2099-01-01T00:00:00Z",
            }
            body = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    runs.make_call(runs.task(lambda: 1))
    env = {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{server.server_port}/creds",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "the-token",
    }
    ran = runs.finish(runs.start(env))
    server.shutdown()
    server.server_close()

    assert ran.code == ExitCode.OK, ran.stderr
    assert set(tokens) == {"the-token"}
    assert all("Credential=FROMECS/" in request.headers["authorization"] for request in runs.proxy.requests)


def test_credentials_by_profile(runs: Any) -> None:
    """``AWS_PROFILE`` and the shared credentials file."""
    (runs.tmp_path / "creds").write_text("[team]\naws_access_key_id = FROMPROFILE\naws_secret_access_key = s\n")
    runs.make_call(runs.task(lambda: 1))

    env = {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_PROFILE": "team",
        "AWS_SHARED_CREDENTIALS_FILE": str(runs.tmp_path / "creds"),
    }
    ran = runs.finish(runs.start(env))

    assert ran.code == ExitCode.OK, ran.stderr
    assert all("Credential=FROMPROFILE/" in request.headers["authorization"] for request in runs.proxy.requests)


def test_no_credential_and_no_payload_in_any_log(runs: Any) -> None:
    """Not even where S3 fails in the middle."""
    runs.make_call(runs.task(print, Blob("0" * 64, 1, "raw", 1), "payload-text"))
    runs.proxy.intercept = lambda request: ACCESS_DENIED if request.method == "PUT" else None

    ran = runs.finish(runs.start())

    assert ran.code == ExitCode.STORE
    for secret in ("testing-secret", "payload-text", "AWS4-HMAC"):
        assert secret not in ran.stderr + ran.stdout


# --- the outcome ----------------------------------------------------------------------------------------------------


def test_outcome_is_written_after_everything_else(runs: Any) -> None:
    """Outputs and logs first, the outcome last and once."""
    runs(runs.task(lambda: print("x" * 50_000) or os.urandom(50_000)))  # type: ignore[func-returns-value]

    puts = runs.proxy.of("PUT")
    assert [path for path in puts if path.endswith("outcome.json")] == puts[-1:]
    assert len(puts) == 3
    assert runs.proxy.requests[-1].path.endswith("outcome.json")


def test_second_attempt_finds_the_outcome_of_the_first(runs: Any) -> None:
    """It runs nothing and ends as the first did."""
    runs.publish(an_outcome())

    ran = runs(runs.task(print, "ran again"), env={"AWS_BATCH_JOB_ATTEMPT": "2"})

    assert (ran.code, ran.stdout) == (ExitCode.OK, "")
    assert runs.value(ran) == "earlier"
    assert runs.proxy.of("PUT") == []


def test_second_attempt_does_not_repeat_what_the_electron_raised(runs: Any) -> None:
    """The electron's own failure is final; its exit code is repeated."""
    failure = Failure(Kind.RAISED, "ValueError: no")
    runs.publish(an_outcome(failure=failure))

    ran = runs(runs.task(print, "ran again"), env={"AWS_BATCH_JOB_ATTEMPT": "2"})

    assert (ran.code, ran.stdout, ran.failure) == (ExitCode.RAISED, "", failure)


@pytest.mark.parametrize("kind", [Kind.TERMINATED, Kind.OUT_OF_MEMORY, Kind.FETCH])
def test_second_attempt_betters_what_the_host_did(runs: Any, kind: str) -> None:
    """After a lost host, a kill or a failed fetch it runs again; its own outcome lies beside the first one."""
    runs.publish(an_outcome(failure=Failure(kind, "lost")))

    ran = runs(runs.task(lambda: "better"), env={"AWS_BATCH_JOB_ATTEMPT": "2"})

    assert (ran.code, runs.value(ran), ran.outcome.attempt) == (ExitCode.OK, "better", 2)
    assert len(runs.outcome_keys()) == 2


def test_outcome_that_appears_meanwhile_stands(runs: Any) -> None:
    """If-None-Match fails; the one that is there is of this call, so its exit code is ours."""
    theirs = an_outcome(failure=Failure(Kind.RAISED, "theirs"))

    def publish_first(request: Any) -> None:
        if request.method == "PUT" and request.path.endswith("outcome.json"):
            runs.publish(theirs)

    runs.make_call(runs.task(lambda: 1))
    runs.proxy.intercept = publish_first
    ran = runs.finish(runs.start())

    assert ran.code == ExitCode.RAISED
    assert ran.failure == theirs.results[0].failure
    assert runs.outcome_keys() == [runs.location.outcome_key]


def test_own_outcome_whose_answer_was_lost_is_recognised(runs: Any) -> None:
    """The PUT came through although its connection was cut: the retry finds its own outcome."""
    runs.make_call(runs.task(lambda: 1))
    lose = Times(1, SERVER_ERROR, lambda request: request.method == "PUT")

    def put_and_lose(request: Any) -> Any:
        answer = lose(request)
        if answer is not None:
            runs.publish(an_outcome())
        return answer

    runs.proxy.intercept = put_and_lose
    ran = runs.finish(runs.start())

    assert ran.code == ExitCode.OK
    assert len([path for path in runs.proxy.of("PUT") if path.endswith("outcome.json")]) == 2


@pytest.mark.parametrize(
    "there",
    [
        documents.dump_outcome(an_outcome(call_id="other"), MAC_KEY),
        documents.dump_outcome(an_outcome()),
        documents.dump_outcome(an_outcome(), "f" * 32),
        b"no outcome",
        b"x" * (limits.MAX_DOCUMENT_BYTES + 1),
    ],
    ids=["of another call", "without a code", "of another key", "no outcome", "too large"],
)
@pytest.mark.parametrize("attempt", ["1", "2"])
def test_what_another_job_put_in_the_outcomes_place_loses_no_result(runs: Any, there: bytes, attempt: str) -> None:
    """The electron runs, and its outcome goes where only a job with the call's key can write first."""
    runs.put(runs.location.outcome_key, there)

    runs.make_call(runs.task(lambda: "mine"))
    process = runs.start({"AWS_BATCH_JOB_ATTEMPT": attempt})
    process.communicate(timeout=60)

    mine = documents.parse_outcome(runs.get(runs.location.attempt_key(MAC_KEY, int(attempt))))
    assert process.returncode == ExitCode.OK
    assert mine.is_authentic(MAC_KEY)
    assert mine.succeeded
    assert runs.get(runs.location.outcome_key) == there


def test_third_attempt_finds_the_outcome_of_the_second(runs: Any) -> None:
    """The first attempt lost its host after it wrote; the second returned, and lost its host too."""
    runs.publish(an_outcome(failure=Failure(Kind.TERMINATED, "lost")))
    runs.put(runs.location.attempt_key(MAC_KEY, 2), documents.dump_outcome(an_outcome()._replace(attempt=2), MAC_KEY))

    ran = runs(runs.task(print, "ran again"), env={"AWS_BATCH_JOB_ATTEMPT": "3"})

    assert (ran.code, ran.stdout, runs.value(ran)) == (ExitCode.OK, "", "earlier")
    assert runs.proxy.of("PUT") == []


def test_conflict_is_retried(runs: Any) -> None:
    """S3 answers 409 while another conditional write of the same key is under way."""
    conflict = (409, {}, b"<Error><Code>ConditionalRequestConflict</Code></Error>")
    runs.make_call(runs.task(lambda: 1))
    runs.proxy.intercept = Times(2, conflict, lambda request: request.method == "PUT")

    ran = runs.finish(runs.start())

    assert (ran.code, runs.value(ran)) == (ExitCode.OK, 1)


def test_conflict_does_not_cost_a_result(runs: Any) -> None:
    """A blob is put again, as the outcome is."""
    conflict = (409, {}, b"<Error><Code>ConditionalRequestConflict</Code></Error>")
    runs.make_call(runs.task(bytes, 50_000))
    runs.proxy.intercept = Times(2, conflict, lambda request: request.method == "PUT" and "/blobs/" in request.path)

    ran = runs.finish(runs.start())

    assert (ran.code, runs.value(ran)) == (ExitCode.OK, bytes(50_000))


@pytest.mark.parametrize("size", [50_000, 9_000_000], ids=["in one piece", "in parts"])
def test_result_whose_name_was_taken_in_s3_is_stored_under_another(runs: Any, size: int) -> None:
    """Other bytes of the same length are told by S3's checksum. They stay: a job may write over nothing."""

    def blobs_put() -> list[str]:
        runs.s3.delete_object(Bucket=BUCKET, Key=runs.location.outcome_key)
        runs.proxy.requests.clear()
        ran = runs(runs.task(random.Random(1).randbytes, size))
        assert runs.value(ran) == random.Random(1).randbytes(size)
        paths = [path.partition("?")[0].removeprefix(f"/{BUCKET}/") for path in runs.proxy.of("PUT")]
        return list(dict.fromkeys(path for path in paths if "/blobs/" in path))

    (key,) = blobs_put()
    if size < 8_000_000:  # moto's HEAD does not tell the number of parts, as S3's does
        assert blobs_put() == []
    wrong = bytes(len(runs.get(key)))
    runs.put(key, wrong)
    (first,), (second,) = blobs_put(), blobs_put()
    assert len({key, first, second}) == 3  # no name that anybody could have known
    assert runs.get(key) == wrong


def test_result_that_another_job_stores_meanwhile_is_not_written_over(runs: Any) -> None:
    """If-None-Match fails; what is there is whole, so it is this result."""
    runs(runs.task(random.Random(1).randbytes, 50_000))
    (key,) = [runs.prefix + path for path in runs.stored() if path.startswith("blobs/")]
    data = runs.get(key)
    for there, puts in ((data, 1), (bytes(len(data)), 2)):
        runs.s3.delete_object(Bucket=BUCKET, Key=key)
        runs.s3.delete_object(Bucket=BUCKET, Key=runs.location.outcome_key)
        runs.proxy.requests.clear()

        def be_first(request: Any, there: bytes = there) -> None:
            if request.method == "PUT" and key in request.path:
                runs.s3.put_object(Bucket=BUCKET, Key=key, Body=there, ChecksumAlgorithm="SHA256")

        runs.make_call(runs.task(random.Random(1).randbytes, 50_000))
        runs.proxy.intercept = be_first
        ran = runs.finish(runs.start())
        assert runs.value(ran) == random.Random(1).randbytes(50_000)
        assert len([path for path in runs.proxy.of("PUT") if "/blobs/" in path]) == puts
        assert runs.get(key) == there


def test_outcome_that_cannot_be_stored_has_its_own_exit_code(runs: Any) -> None:
    """The reason is on stderr: bucket, key, role and permission."""
    runs.make_call(runs.task(lambda: 1))
    runs.proxy.intercept = lambda request: ACCESS_DENIED if request.method == "PUT" else None

    ran = runs.finish(runs.start())

    assert (ran.code, ran.outcome) == (ExitCode.STORE, None)
    assert "outcome.json" in ran.stderr
    assert "s3:PutObject" in ran.stderr


def test_result_that_cannot_be_stored_leaves_an_outcome_that_says_so(runs: Any) -> None:
    """A role that may write the call's folder but no blobs."""
    runs.make_call(runs.task(os.urandom, 50_000))
    runs.proxy.intercept = lambda request: (
        ACCESS_DENIED if request.method == "PUT" and "/blobs/" in request.path else None
    )

    ran = runs.finish(runs.start())

    assert (ran.code, ran.failure.kind) == (ExitCode.STORE, Kind.RUNNER)
    assert "s3:PutObject" in ran.failure.message


def test_lost_part_of_a_log_does_not_fail_the_electron(runs: Any) -> None:
    """The log lists only what is there; the tail and the size are whole."""
    runs.make_call(runs.task(print, "x" * 50_000))
    runs.proxy.intercept = lambda request: ACCESS_DENIED if "/log/" in request.path else None

    ran = runs.finish(runs.start())

    assert ran.code == ExitCode.OK
    assert (ran.result.stdout.parts, ran.result.stdout.size) == ((), 50_001)
    assert "a part of the log is lost" in ran.stderr


def test_unreachable_s3_ends_with_a_reason(runs: Any) -> None:
    """No answer at all: the network is what to look at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"

    ran = runs.finish(runs.start({"AWS_ENDPOINT_URL_S3": url, "AWS_MAX_ATTEMPTS": "1"}))

    assert ran.code == ExitCode.BAD_CALL
    assert "Check the job's network" in ran.stderr
