"""The emulated CloudFormation: stacks, change sets, and the resources that they make."""
