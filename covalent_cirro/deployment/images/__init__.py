"""Images of the jobs: what they are made of, the engine that builds them, the repository that keeps them.

For the command line; what the executor asks of an image before it submits is `aws/image_labels.py`.
"""
