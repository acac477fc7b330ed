"""The endpoints. They answer with bytes that `answers` makes; the classes of `forms` describe these in `/docs`."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ValidationError

from recommender_service import answers, forms
from recommender_service.loading import Loaded
from recommender_service.metrics import Metrics

JSON = "application/json"
Responses = dict[int | str, dict[str, Any]]
NOT_LOADED: Responses = {503: {"model": forms.Refusal, "description": "No model is loaded yet."}}
REFUSALS: Responses = {
    **NOT_LOADED,
    404: {"model": forms.Refusal, "description": "The model does not know the user or the item."},
    422: {
        "description": "Validation Error",
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}},
    },
}

Form = TypeVar("Form", bound=BaseModel)


class DirectRoute(APIRoute):
    """A route whose endpoint gets the request as it is, and reads the query itself (`_asked`).

    FastAPI's own way, by a parameter of the function for each of the query, takes longer than the answer.
    """

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint itself."""
        return self.endpoint


class Service:
    """What the endpoints share.

    Attributes:
        version: Version of the model, also before it is loaded.
        loaded: The model; None until it is loaded.
        metrics: Counts and times of requests.
    """

    def __init__(self, version: str) -> None:
        """Begin without a model."""
        self.version = version
        self.loaded: Loaded | None = None
        self.metrics = Metrics()

    def not_loaded(self) -> Response:
        """The answer while there is no model."""
        return _refused(503, f"the model {self.version} is still being loaded: try again in a second")

    def unknown_user(self, loaded: Loaded, user: str) -> Response:
        """The answer for a user that the model does not know."""
        return _refused(
            404,
            f"user {user} is none of the {loaded.model.users} users that the model {loaded.name} {loaded.version} was "
            "trained on; popular=true answers with popular items",
        )


def make_app(service: Service) -> FastAPI:
    """The application.

    Args:
        service: What the endpoints share; its model may come later.
    """
    # The pages of /docs come with the package fastapi-offline: nothing is asked of another server.
    app = FastAPIOffline(
        title="Recommender",
        version=service.version,
        description="Items for a user, by a matrix factorisation. Answers have the header `x-model-version`.",
        redoc_url=None,
    )
    direct = APIRouter(route_class=DirectRoute)
    _add_recommendations(direct, service)
    _add_similar(direct, service)
    app.include_router(direct)
    _add_batch(app, service)
    _add_states(app, service)
    return app


def _asked(form: type[Form], request: Request) -> Form:
    """The query of a request.

    Raises:
        RequestValidationError: As FastAPI raises it; the answer is 422.
    """
    query = dict(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
    try:
        return form.model_validate(query)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise RequestValidationError([{**each, "loc": ("query", *each["loc"])} for each in found]) from error


def _parameters(form: type[BaseModel], **path: str) -> dict[str, Any]:
    """The parameters of an endpoint for OpenAPI: those of its path with their descriptions, and those of a query."""
    schema = form.model_json_schema()
    in_path = [
        {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}
        for name, description in path.items()
    ]
    in_query = [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": each.pop("description"),
            "schema": each,
        }
        for name, each in schema["properties"].items()
    ]
    return {"parameters": in_path + in_query}


def _add_recommendations(router: APIRouter, service: Service) -> None:
    # Coroutines, not functions: an answer takes less time than handing it to another thread.
    @router.get(
        "/",
        summary="Items for a user, as triples of id, title and predicted rating",
        response_model=forms.Triples,
        responses=REFUSALS,
        openapi_extra=_parameters(forms.AskOfUser),
        tags=["recommendations"],
    )
    async def recommend(request: Request) -> Response:
        """The items with the highest predicted ratings among those that the user has not rated, as triples."""
        loaded, asked = service.loaded, _asked(forms.AskOfUser, request)
        if loaded is None:
            return service.not_loaded()
        row = loaded.catalogue.users.row(asked.uid)
        if row is not None:
            return Response(
                answers.triples(loaded.catalogue, await loaded.together.best(row, asked.n)), media_type=JSON
            )
        if asked.popular:
            return Response(answers.popular_triples(loaded.catalogue, asked.n), media_type=JSON)
        return service.unknown_user(loaded, asked.uid)

    @router.get(
        "/users/{user_id}/recommendations",
        summary="Items for a user",
        response_model=forms.Recommendations,
        responses=REFUSALS,
        openapi_extra=_parameters(forms.Ask, user_id="Id of the user, as in the ratings."),
        tags=["recommendations"],
    )
    async def recommend_to_user(request: Request) -> Response:
        """The items with the highest predicted ratings among those that the user has not rated."""
        loaded, asked = service.loaded, _asked(forms.Ask, request)
        if loaded is None:
            return service.not_loaded()
        user = request.path_params["user_id"]
        row = loaded.catalogue.users.row(user)
        if row is not None:
            best = await loaded.together.best(row, asked.n)
            return Response(answers.recommended(loaded.catalogue, user, best), media_type=JSON)
        if asked.popular:
            return Response(answers.popular(loaded.catalogue, user, asked.n), media_type=JSON)
        return service.unknown_user(loaded, user)


def _add_batch(app: FastAPI, service: Service) -> None:
    one_at_a_time = threading.Lock()

    # A function, which FastAPI calls in a thread: a large batch must not keep single requests waiting. One at a time,
    # so that many of them do not need the memory of many products.
    @app.post(
        "/recommendations",
        summary="Items for many users at once",
        response_model=forms.BatchAnswers,
        responses=NOT_LOADED,
        tags=["recommendations"],
    )
    def recommend_to_many(batch: forms.Batch) -> Response:
        """Recommendations for many users, by matrix products; unknown users are told as such."""
        loaded = service.loaded
        if loaded is None:
            return service.not_loaded()
        catalogue = loaded.catalogue
        rows = [catalogue.users.row(str(user)) for user in batch.users]
        with one_at_a_time:
            known = [row for row in rows if row is not None]
            found = iter(loaded.model.best(known, [batch.n] * len(known)))
            each = []
            for user, row in zip(batch.users, rows, strict=True):
                if row is not None:
                    each.append(answers.recommended(catalogue, str(user), next(found)))
                elif batch.popular:
                    each.append(answers.popular(catalogue, user, batch.n))
                else:
                    each.append(answers.unknown(user))
            return Response(answers.answers(each), media_type=JSON)


def _add_similar(router: APIRouter, service: Service) -> None:
    @router.get(
        "/items/{item_id}/similar",
        summary="Items that are like an item",
        response_model=forms.SimilarItems,
        responses=REFUSALS,
        openapi_extra=_parameters(forms.AskOfItem, item_id="Id of the item, as in the ratings."),
        tags=["items"],
    )
    async def similar(request: Request) -> Response:
        """The items whose vectors have the highest cosine with that of the item."""
        loaded, asked = service.loaded, _asked(forms.AskOfItem, request)
        if loaded is None:
            return service.not_loaded()
        item = request.path_params["item_id"]
        row = loaded.catalogue.items.row(item)
        if row is None:
            return _refused(
                404,
                f"item {item} is none of the {loaded.model.items} items that the model {loaded.name} "
                f"{loaded.version} was trained on",
            )
        return Response(answers.similar(loaded.catalogue, row, loaded.model.similar(row, asked.n)), media_type=JSON)


def _add_states(app: FastAPI, service: Service) -> None:
    @app.get("/health", summary="Is the process alive?", response_model=forms.Health, tags=["service"])
    async def health() -> Response:
        """Whether the process is alive; it may have no model yet."""
        return Response(b'{"status":"alive"}', media_type=JSON)

    @app.get(
        "/ready",
        summary="Is the model loaded, and which is it?",
        response_model=forms.Ready,
        responses=NOT_LOADED,
        tags=["service"],
    )
    async def ready() -> Response:
        """Whether the model is loaded, and which one it is."""
        loaded = service.loaded
        if loaded is None:
            return service.not_loaded()
        return Response(forms.Ready(model=loaded.name, version=loaded.version).model_dump_json(), media_type=JSON)

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=Response, tags=["service"])
    async def metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _refused(status: int, detail: str) -> Response:
    return Response(forms.Refusal(detail=detail).model_dump_json(), status_code=status, media_type=JSON)
