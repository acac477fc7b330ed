"""Why a job waits for a machine: the reasons, when to look, and the look itself."""
