"""The forms of requests and answers, as `/docs` shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

MAX_ID = 200
"""Characters of an id."""

MAX_USERS = 1000
"""Users of a batch."""


class AskOfItem(BaseModel):
    """What the query of a request for similar items says."""

    n: int = Field(default=10, ge=1, description="Items in the answer; all that there are, where these are fewer.")


class Ask(AskOfItem):
    """What the query of a request for recommendations says."""

    popular: bool = Field(
        default=False, description="Answer with popular items where the user is unknown, and not with 404."
    )


class AskOfUser(Ask):
    """The same where the user, too, is in the query."""

    uid: str = Field(max_length=MAX_ID, description="Id of the user, as in the ratings.")


class Triples(BaseModel):
    """Id, title and predicted rating of each item, the best first; popular items have no rating."""

    success: bool
    response: list[tuple[int | str, str, float | None]]


class Recommendation(BaseModel):
    """An item that the user has not rated."""

    item: int | str
    title: str
    score: float | None = Field(description="The predicted rating; null for popular items.")


class Recommendations(BaseModel):
    """Items for a user, the best first."""

    user: int | str
    source: Literal["model", "popular", "unknown"] = Field(
        description="`popular` and `unknown` are for users that the model does not know."
    )
    items: list[Recommendation]


class Batch(BaseModel):
    """A request for many users."""

    users: list[int | Annotated[str, StringConstraints(max_length=MAX_ID)]] = Field(
        min_length=1, max_length=MAX_USERS, description="Ids of users, as in the ratings.", examples=[[1, 2, 3]]
    )
    n: int = Field(default=10, ge=1, description="Items for each user; all that there are, where these are fewer.")
    popular: bool = Field(default=False, description="Answer with popular items where a user is unknown.")


class BatchAnswers(BaseModel):
    """An answer for each user of a batch, in the order of the request."""

    answers: list[Recommendations]


class SimilarItem(BaseModel):
    """An item and the cosine of its vector with that of the item asked for."""

    item: int | str
    title: str
    similarity: float


class SimilarItems(BaseModel):
    """Similar items, the most similar first."""

    item: int | str
    title: str
    similar: list[SimilarItem]


class Health(BaseModel):
    """The process is alive."""

    status: Literal["alive"]


class Ready(BaseModel):
    """The model that is loaded."""

    model: str
    version: str


class Refusal(BaseModel):
    """Why there is no answer."""

    success: Literal[False] = False
    detail: str
