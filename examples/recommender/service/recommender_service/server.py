"""The process: listens at once, loads the model meanwhile, and finishes what it is answering when it is told to end."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging

import uvicorn
import uvloop

from recommender_service.app import Service, make_app
from recommender_service.loading import NotLoaded, load, version_of
from recommender_service.metrics import Measured

KEEP_ALIVE_S = 75
"""Longer than the 60 s after which a load balancer closes an idle connection: it must not send a request on a
connection that is being closed here, to which it would answer 502."""

DRAIN_S = 50
"""Seconds that answers have to be finished after SIGTERM. ECS kills the container 60 s after it (stopTimeout)."""

LOG = logging.getLogger("uvicorn.error")


def serve(uri: str, host: str, port: int) -> int:
    """Serve a model until SIGTERM or SIGINT; returns the exit code.

    Args:
        uri: The model, as for `load`.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one, which the log tells.

    Returns:
        1 if the model could not be loaded, else 0.
    """
    service = Service(version_of(uri))
    app = Measured(make_app(service), service.metrics, lambda: service.version)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,  # a line for each request takes as long as the answer; the balancer has a log of its own
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
    )
    uvloop.run(_serve(server, service, uri))
    return 0 if service.loaded is not None else 1


async def _serve(server: uvicorn.Server, service: Service, uri: str) -> None:
    loading = asyncio.create_task(_load(server, service, uri))
    await server.serve()
    await loading


async def _load(server: uvicorn.Server, service: Service, uri: str) -> None:
    """Load the model. A service that has none ends, so that whoever started it notices."""
    try:
        loaded = await load(uri)
    except NotLoaded as refused:
        LOG.error("%s", refused)
        server.should_exit = True
    except Exception:
        LOG.exception("the model %s cannot be loaded", uri)
        server.should_exit = True
    else:
        # What is there now stays: the collector does not look through it again, which would delay answers.
        gc.collect()
        gc.freeze()
        _return_free_memory()
        service.loaded = loaded
        LOG.info(
            "Serving %s %s: %d users, %d items", loaded.name, loaded.version, loaded.model.users, loaded.model.items
        )


def _return_free_memory() -> None:
    """Give the memory that loading needed for a moment back to the system, where the C library is glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
