"""The texts of explanations: for each kind of end what happened, and what to do. Pure."""

from __future__ import annotations

from covalent_cirro.jobs.ends import End

_TO_LOOK = "Read the log's end and AWS's words below"

TEXTS: dict[End, tuple[str, str]] = {
    End.SUCCEEDED: ("{electron} returned.", ""),
    # --- the electron's own doing ---
    End.RAISED: ("{electron} raised {message}", ""),
    End.HOOK_FAILED: ("{electron} did not run to its end: {message}", "Correct the hook; the log has its output."),
    End.EXITED: (
        "{electron} ended without a result: {message}.",
        "Let it return or raise, instead of ending its process.",
    ),
    End.KILLED: (
        "{electron} was killed by {signal}{killed_why}.",
        "{after_signal}",
    ),
    End.UNPICKLABLE: (
        "{electron} returned what cannot be sent back: {message}",
        "Return plain data, arrays or tensors.",
    ),
    End.UNREADABLE: (
        "{electron} could not be started: {message}",
        "Build the image with the same versions of the packages that its function and inputs come from.",
    ),
    End.MISSING_MODULE: ("{electron} could not be started: {message}", "Ship the module in one of these ways."),
    End.VERSIONS: ("{electron} could not be started: {message}", "Make the versions of both sides equal."),
    End.NOT_RUN: ("{electron} was not run: {message}", "See the electron that failed first."),
    # --- it needed more than it had ---
    End.OUT_OF_MEMORY: (
        "{electron} ran out of memory: it was killed at its limit of {memory}{reached}.",
        "{more_memory}",
    ),
    End.GPU_OUT_OF_MEMORY: (
        "{electron} ran out of GPU memory{gpu}: {message}",
        "Use smaller batches, or a queue of GPUs with more memory; memory= is that of the host, and does not help.",
    ),
    End.SHARED_MEMORY_FULL: (
        "{electron} filled its shared memory, /dev/shm,{of_shared_memory}: {message}",
        "{larger_shared_memory}, or use fewer DataLoader workers.",
    ),
    End.DISK_FULL: (
        "{electron} found the disk of its host full{message_after}.",
        "{larger_disk}, or write less.",
    ),
    End.TIME_LIMIT: (
        "{electron} was stopped at its time limit of {time_limit} s{ran}.",
        "Set time_limit={next_time_limit} or more on its executor.",
    ),
    # --- machines ---
    End.HOST_LOST: (
        "{electron} lost its host {lost} (Spot capacity reclaimed, or a machine that failed); its attempts are used "
        "up.",
        "{after_lost_hosts}.",
    ),
    End.AGENT_LOST: (
        "{electron} lost the ECS agent of its host.",
        "Dispatch it again; if it happens again, check memory and disk of the hosts of queue {queue}.",
    ),
    End.DOCKER_TIMEOUT: (
        "{electron} was not started: Docker on its host was too slow.",
        "Dispatch it again. If it happens again: use a smaller image than {image}, or fewer jobs for one host.",
    ),
    # --- the image ---
    End.IMAGE_NOT_FOUND: (
        "{electron} was not started: there is no image {image}.",
        "Push it (cirro image push), or set container_image_uri to an image that exists; check tag and region.",
    ),
    End.IMAGE_DENIED: (
        "{electron} was not started: its image may not be read, or is not there: {image}.",
        "Let {agent_role} read the repository (ecr:BatchGetImage, ecr:GetDownloadUrlForLayer, "
        "ecr:BatchCheckLayerAvailability, ecr:GetAuthorizationToken), and check the name.",
    ),
    End.IMAGE_UNREACHABLE: (
        "{electron} was not started: the registry of its image did not answer in time: {image}.",
        "Dispatch it again. If it happens again: check the subnets' route to the registry, and keep the image in ECR.",
    ),
    End.IMAGE_ARCHITECTURE: (
        "{electron} was not started: its image is built for another processor: {image}.",
        "Build it for the instances of queue {queue} (cirro image build --platform linux/amd64, or linux/arm64).",
    ),
    End.IMAGE_PULL: (
        "{electron} was not started: its image could not be pulled: {image}.",
        "Check that repository and tag exist, that {agent_role} may read them, and that the instances reach the "
        "registry.",
    ),
    End.IMAGE_WITHOUT_RUNNER: (
        "{electron} was not started: its image has no `python` with covalent-cirro, cloudpickle and awscrt: {image}.",
        "Add to the image: RUN pip install --no-deps covalent-cirro && pip install cloudpickle awscrt.",
    ),
    # --- the deployment's settings ---
    End.LOG_GROUP: (
        "{electron} was not started, because of its log: batch_job_log_group_name={log_group!r}.",
        "Make the group in this region, and let {agent_role} write to it (logs:CreateLogStream, logs:PutLogEvents).",
    ),
    End.ROLE: (
        "{electron} was not started, because of its roles: batch_job_role_name={job_role!r}, "
        "batch_execution_role_name={execution_role!r}.",
        "Both must exist and trust ecs-tasks.amazonaws.com; `cirro doctor` checks it.",
    ),
    End.SECRET_UNREADABLE: (
        "{electron} was not started, because ECS could not read a secret of it: {secret_words}.",
        "{secret_remedy}",
    ),
    End.VOLUME: (
        "{electron} was not started, because a volume of it could not be mounted{shared_files}.",
        "Look whether file system, access point and mount targets are there, and whether their security groups let the "
        "jobs in: `cirro doctor` does so for shared_files.",
    ),
    End.START_FAILED: (
        "{electron} was not started: its container could not be made or started from {image}.",
        "Run the image by hand (docker run), and `cirro doctor`; AWS's words below say what was wrong.",
    ),
    End.DEFINITION_GONE: (
        "{electron} was not started: its job definition was deregistered, or is not valid.",
        "Dispatch it again: a new one is registered.",
    ),
    End.OVERRIDES_TOO_LONG: (
        "{electron} was not started: what was submitted is longer than ECS takes.",
        "Shorten s3_prefix. If that is not it, please report it: covalent-cirro submits one URI.",
    ),
    End.TOO_MANY_TAGS: (
        "{electron} was not started: its job and its job definition have more tags together than the 50 that ECS "
        "takes.",
        "Let what tags jobs and definitions in this account add fewer; covalent-cirro's own are five.",
    ),
    End.DEPENDENCY_FAILED: (
        "{electron} was not started: a job that it depends on failed.",
        "Find how that job ended, and dispatch again.",
    ),
    End.CHILD_FAILED: (
        "{electron} failed, because jobs of its array failed.",
        "`cirro show DISPATCH:NODE` lists the jobs that failed, with AWS's reasons; `cirro logs "
        "'DISPATCH:NODE[ITEM]'` shows what one printed.",
    ),
    # --- somebody asked for it ---
    End.CANCELLED: ("{electron} was cancelled {cancelled}.", ""),
    End.ITEMS_STOPPED: (
        "The job that computed these items of {electron} was stopped {cancelled}.",
        "Dispatch again to compute them.",
    ),
    End.STOPPED_BY_ANOTHER: (
        "{electron} was stopped by somebody else, not from Covalent{ran}: {words}.",
        "CloudTrail says who called batch:TerminateJob or batch:CancelJob. Dispatch it again.",
    ),
    End.STOPPED_BY_QUEUE: (
        "{electron} waited too long: its queue {queue} cancels what finds no machine: {words}.",
        "Ask for less (vcpu, memory, num_gpus), or allow more instance types, vCPUs or time (cirro deploy --parameter "
        "RunnableTimeLimitMinutes=..., 0 is no limit).",
    ),
    End.STOPPED: (
        "{electron} was stopped by SIGTERM{ran}, and AWS does not say why: its host was going away, most likely.",
        "Dispatch it again. {retry} a queue of on-demand instances, if it happens again.",
    ),
    # --- between S3, the runner and us ---
    End.CALL_UNREADABLE: (
        "{electron} did not run: its job could not read its call in bucket {bucket}.",
        "Let the job role ({job_role}) read the bucket, and the job reach S3 (`cirro doctor`); the log has S3's words.",
    ),
    End.BLOB_LOST: ("{electron} did not run: {message}", "Dispatch it again: what is missing is sent again."),
    End.RESULT_UNREADABLE: (
        "{electron} returned, but its result could not be read: {message}.",
        "Dispatch it again. Nothing but its jobs and this server should write to bucket {bucket}.",
    ),
    End.OUTCOME_NOT_STORED: (
        "{electron} ran, but its result could not be stored in bucket {bucket}.",
        "Let the job role ({job_role}) write to the bucket, and the job reach S3 (`cirro doctor`); the log has S3's "
        "words.",
    ),
    End.NO_OUTCOME: (
        "{electron} left no outcome, although its job succeeded in AWS Batch: covalent-cirro's runner did not run.",
        "Take the ENTRYPOINT out of image {image}, or let it run the command that it is given.",
    ),
    End.NODES_APART: (
        "{electron} was not called, since the nodes of its job did not meet: {message}.",
        "Read the log of a node that is missing. If the nodes ran, their compute environment needs a security group "
        "that allows all traffic from itself, as `cirro deploy` makes it with MultiNodeMaxVcpus.",
    ),
    End.RUNNER_BROKE: (
        "{electron} has no result, because covalent-cirro's runner broke: {message}",
        "Dispatch it again, and please report it with the log.",
    ),
    End.LOST: (
        "{electron} is lost: its job left no outcome, and AWS Batch does not know the job any more.",
        "Check that account, region and endpoint are those that it was sent to; then dispatch it again.",
    ),
    # --- known by their facts only ---
    End.CONTAINER_ENDED: (
        "{electron} has no result: its container ended{with_exit_code} before covalent-cirro's runner could tell why.",
        _TO_LOOK + ". Does the image {image} run by hand (docker run)?",
    ),
    End.NEVER_RAN: (
        "{electron} has no result: its job ended before its container ran: {words}.",
        _TO_LOOK + ", and run `cirro doctor`.",
    ),
}
"""What happened and what to do, by kind of end. `explanations` has the values of the placeholders."""
