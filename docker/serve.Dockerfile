# The image of the recommender's service (examples/recommender/service): Debian's slim Python, NumPy, FastAPI on uvicorn, and no
# torch: an answer is one matrix product, and torch's build for CPUs is larger than all the rest of this image. From the root of
# the repository:
#   docker build --file docker/serve.Dockerfile --tag recommender .

# Any Debian with Python 3.11 as `python` will do; serve.requirements.txt has the hashes of wheels for it.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
RUN useradd --uid 1000 --create-home cirro \
    && PYTHONDONTWRITEBYTECODE=1 python -m pip uninstall --yes --quiet --root-user-action=ignore setuptools wheel

# A stage of its own: neither pip's cache nor its settings (an index's address may hold a password) get into the image.
FROM base AS packages
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY docker/serve.requirements.txt ./
# Wheels only, so that no compiler is needed, and only those whose hash is listed.
RUN python -m pip install --prefix=/packages --no-deps --no-compile --only-binary :all: --require-hashes \
        --requirement serve.requirements.txt

FROM base
# 2: without docstrings, which take 2 MB of NumPy's memory.
ENV PYTHONOPTIMIZE=2 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/service \
    HOST=0.0.0.0 PORT=8000
COPY --from=packages /packages /usr/local
COPY examples/recommender/service/recommender_service /service/recommender_service
# All that is imported, the standard library too: the user cannot write bytecode, and a task's root may be read-only.
RUN python -m compileall -q -o 2 -x '/(test|tests|idlelib|lib2to3|ensurepip)/' /usr/local/lib/python3.11 /service
USER cirro
WORKDIR /home/cirro
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "import os, urllib.request; \
urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=4)"]
# The list form: Python is the container's first process, and gets SIGTERM itself.
CMD ["python", "-m", "recommender_service"]
LABEL org.opencontainers.image.title="recommender" \
      org.opencontainers.image.description="Recommendations of a matrix factorisation over HTTP." \
      org.opencontainers.image.licenses=Apache-2.0
