"""``python benchmarks/serving_bare.py PORT``: FastAPI on uvicorn with an endpoint that returns a constant; no model.

Its settings are those of the service; its memory is that of the bare server.
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response

app = FastAPI()


@app.get("/health")
async def health() -> Response:
    """A constant."""
    return Response(b'{"status":"alive"}', media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        server_header=False,
    )
