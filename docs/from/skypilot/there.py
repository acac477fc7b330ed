"""A sweep over learning rates with SkyPilot's managed jobs."""

import json
import subprocess
from pathlib import Path

import sky


def launch(rate):
    task = sky.Task.from_yaml("train.yaml")
    task.update_envs({"RATE": str(rate)})
    job_ids, _ = sky.get(sky.jobs.launch(task))
    return job_ids[0]


if __name__ == "__main__":
    jobs = [launch(rate) for rate in (0.03, 0.1, 0.3, 1.0)]
    failed = [job for job in jobs if sky.get(sky.jobs.wait(job_id=job)) != 0]
    if failed:
        raise SystemExit(f"failed: {failed}")
    subprocess.run(["aws", "s3", "sync", "s3://my-sweep-results", "results"], check=True)
    trained = [json.loads(file.read_text()) for file in Path("results").glob("*.json")]
    print(min(trained, key=lambda each: each["error"]))
