"""Settings of the ECS agent in the user data of an instance. Pure.

AWS Batch joins the user data of a launch template with its own, so it has to be a MIME multi-part archive (User Guide,
Use Amazon EC2 launch templates); other user data has no effect here.
"""

from __future__ import annotations

import email
import re

_SETTING = re.compile(r"^\s*(?:echo\s+)?[\"']?(ECS_[A-Z0-9_]+)=([^\s\"'>]*)", re.MULTILINE)


def drains(user_data: str) -> bool:
    """Whether the agent drains its instance at a Spot notice; by default it does not (ECS agent, README)."""
    return agent_settings(user_data).get("ECS_ENABLE_SPOT_INSTANCE_DRAINING", "").lower() == "true"


def agent_settings(user_data: str) -> dict[str, str]:
    """The variables of ``/etc/ecs/ecs.config`` that scripts in the user data write."""
    archive = email.message_from_string(user_data)
    if not archive.is_multipart():
        return {}
    scripts = (str(part.get_payload()) for part in archive.walk() if not part.is_multipart())
    return {name: value for script in scripts for name, value in _SETTING.findall(script)}
