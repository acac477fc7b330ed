# The image of examples/sweep.py, torch and scikit-learn on top of the runner's image, and an example of one of your own:
#   cirro image build --file docker/training.Dockerfile --device gpu
ARG CIRRO_RUNNER=cirro-runner

FROM ${CIRRO_RUNNER} AS packages
ARG DEVICE=cpu
# Builds of torch without CUDA, a tenth of the size.
ARG PYTORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
USER root
WORKDIR /build
COPY training.requirements.txt ./
# What is large comes in layers of its own, which are pulled side by side.
RUN if [ "${DEVICE}" = cpu ]; then set -- --extra-index-url "${PYTORCH_INDEX_URL}"; fi \
    && python -m pip install --prefix=/packages "$@" --requirement training.requirements.txt \
    && mkdir /nvidia /torch && for name in nvidia torch; do \
           for found in /packages/lib/python*/site-packages/"${name}"; do if [ -d "${found}" ]; then \
               place="/${name}/${found#/packages/}" && mkdir -p "${place%/*}" && mv "${found}" "${place}"; \
           fi; done; \
       done

FROM ${CIRRO_RUNNER}
COPY --from=packages /nvidia /usr/local
COPY --from=packages /torch /usr/local
COPY --from=packages /packages /usr/local
