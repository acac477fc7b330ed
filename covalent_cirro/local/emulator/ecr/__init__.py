"""The emulated ECR: repositories, images, and the registry that Docker speaks to."""
