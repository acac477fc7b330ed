"""Which images of a repository its lifecycle policy expires. Pure: it must not know how images are kept.

Source: ECR User Guide, Lifecycle policies: evaluation rules and parameters. AWS applies a policy within a day; the
emulator does so at each push.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from covalent_cirro.local.emulator.batch.model import Json

DAY_S = 86400.0


class ImageAge(NamedTuple):
    """What a policy decides on. Two pushes of one second differ in ``number``; times are epoch seconds."""

    digest: str
    tags: tuple[str, ...]
    pushed_at: float
    number: int


def expired(images: Iterable[ImageAge], policy_text: str, now: float) -> list[str]:
    """Digests that a policy expires. Rules are applied by number; each decides alone on the images that it selects."""
    left = sorted(images, key=lambda image: (image.pushed_at, image.number), reverse=True)
    gone: list[str] = []
    rules: list[Json] = json.loads(policy_text).get("rules", [])
    for rule in sorted(rules, key=lambda each: int(each["rulePriority"])):
        selection: Json = rule["selection"]
        chosen = [image for image in left if _selects(selection, image.tags)]
        count = int(selection["countNumber"])
        if selection["countType"] == "imageCountMoreThan":
            gone += [image.digest for image in chosen[count:]]
        elif selection["countType"] == "sinceImagePushed":
            gone += [image.digest for image in chosen if now - image.pushed_at > count * DAY_S]
        left = [image for image in left if image not in chosen]
    return gone


def _selects(selection: Json, tags: Sequence[str]) -> bool:
    status = selection["tagStatus"]
    if status == "any":
        return True
    if status == "untagged":
        return not tags
    prefixes, patterns = selection.get("tagPrefixList") or [], selection.get("tagPatternList") or []
    # An image must have a tag for each entry of the list (User Guide, tagPatternList).
    return (
        bool(tags)
        and all(any(tag.startswith(prefix) for tag in tags) for prefix in prefixes)
        and all(any(wildcard(pattern, tag) for tag in tags) for pattern in patterns)
    )


def wildcard(pattern: str, text: str) -> bool:
    """Whether a text matches a pattern, in which ``*`` stands for any characters."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
