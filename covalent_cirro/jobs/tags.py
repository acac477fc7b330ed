"""Tags of the jobs that executors submit, and of the job definitions that they register. Pure.

The roles of a deployment (``infra/roles.yaml``) limit who may terminate a job by `DISPATCH_TAG`.
"""

from __future__ import annotations

DISPATCH_TAG = "covalent:dispatch"
"""Id of the dispatch."""

LATTICE_TAG = "covalent:lattice"
"""Name of the lattice; ``-`` for a lattice without a name."""

ELECTRON_TAG = "covalent:electron"
"""Name of the electron, of the first one of a task group; ``-`` for an electron without a name."""

NODE_TAG = "covalent:node"
"""Id of the electron's node."""

DEPLOYMENT_TAG = "covalent-cirro"
"""Name of the deployment, for the bill: on a deployment's resources, and on jobs on Fargate, which have no instance."""

MADE_BY = {"cirro:made-by": "covalent-cirro"}
"""The tag of job definitions."""
