"""Events to EventBridge."""

from __future__ import annotations

import json
from typing import Any


def test_each_change_of_state_is_an_event(aws: Any, poll: Any) -> None:
    """In a queue that a rule feeds: in order, with the job's detail, and none for SUBMITTED."""
    sqs, events = aws.client("sqs"), aws.client("events")
    url = sqs.create_queue(QueueName=aws.name("events"))["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    queue = aws.queue()
    queue_arn = aws.batch.describe_job_queues(jobQueues=[queue])["jobQueues"][0]["jobQueueArn"]
    rule = aws.name("rule")
    pattern = {"source": ["aws.batch"], "detail": {"jobQueue": [queue_arn]}}
    events.put_rule(Name=rule, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": arn}])
    job = aws.done(aws.submit("sh", "-c", "exit 4", queue=queue))
    aws.done(aws.submit("true"))  # of another queue: no event
    got: list[dict[str, Any]] = []

    def received() -> bool:
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        got.extend(json.loads(message["Body"]) for message in messages)
        return len(got) >= 4

    poll(received, "four events")
    assert [event["detail"]["status"] for event in got] == ["RUNNABLE", "STARTING", "RUNNING", "FAILED"]
    assert {event["detail"]["jobId"] for event in got} == {job["jobId"]}
    last = got[-1]
    assert last["detail-type"] == "Batch Job State Change"
    assert last["account"] == aws.emulator.account
    assert last["resources"] == [job["jobArn"]]
    assert last["detail"]["container"]["exitCode"] == 4
