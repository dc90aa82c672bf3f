# The image of the runner and of Dask's scheduler and workers: one image, so that all of them have the same versions.
#
#   docker build -t geofield:0.1.0 .
#   docker build -t geofield-dagster:0.1.0 --build-arg LOCK=requirements-dagster.txt .
#
# Newer Python, newer zarr and icechunk: 3.13 is what the locks resolve to their newest for. A tag and its digest: the
# tag says what it is, the digest is what is taken. Another registry: --build-arg PYTHON_IMAGE=...
ARG PYTHON_IMAGE=python:3.13.15-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

FROM ${PYTHON_IMAGE} AS build
# requirements-kube.txt is what runs plus what makes clusters; all locks pin the same versions
ARG LOCK=requirements-kube.txt
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv /opt/geofield
# Wheels only: nothing is compiled, and no code of a source archive runs here. A layer of its own: it is made again
# when the lock changes, not when the code does.
COPY ${LOCK} lock.txt
RUN /opt/geofield/bin/pip install --quiet --require-hashes --only-binary=:all: -r lock.txt
COPY pyproject.toml README.md LICENSE ./
COPY geofield geofield
COPY orchestrate orchestrate
# Without tests of libraries, headers and what installs: nobody needs them at run time. Byte code is made here, since
# nothing can be written later; by hash, not by time, so that it does not depend on when the image was built.
COPY deploy/slim deploy/slim
RUN /opt/geofield/bin/pip install --quiet --no-deps --no-build-isolation . \
    && sh deploy/slim /opt/geofield \
    && /opt/geofield/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/geofield/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="geofield" \
      org.opencontainers.image.description="Daily field statistics from satellite imagery" \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, since Kubernetes can tell of a number only that it is not root
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin geofield \
    && install --directory --owner geofield --group geofield /store
COPY --from=build /opt/geofield /opt/geofield
COPY deploy/healthcheck /usr/local/bin/healthcheck
# What is written goes below HOME and TMPDIR (/tmp where nobody says): the root file system can be read-only. /store is
# for a volume with a store in it: a new volume takes over who owns the folder.
ENV PATH=/opt/geofield/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    GEOFIELD_METRICS=0.0.0.0:9464
USER 10001:10001
WORKDIR /tmp
EXPOSE 9464
# Of `geofield watch`: its metrics answer, from the process that runs stores. Anything else is healthy as long as it runs;
# what listens elsewhere is given to the command as an address (compose.yaml does so for Dask).
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["healthcheck"]
ENTRYPOINT ["geofield"]
CMD ["--help"]
