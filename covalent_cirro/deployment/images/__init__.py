"""Images of jobs: their contents, their build on a Docker engine, and their push to the repository of a deployment.

For the command line. The executor checks an image before it submits a job by `aws/image_labels.py`.
"""
