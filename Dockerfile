# The service's image, and beside it its list of parts and the Zoho stand-in:
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" -t zoho-sync .
#   docker build --build-arg PACKAGES=msk ...           # with what Amazon MSK with IAM needs
#   docker build --target sbom    --output type=local,dest=dist .
#   docker build --target sandbox -t zoho-sync-sandbox .
#
# Written for BuildKit and buildah alike: no heredocs, no mounts, nothing from a remote frontend.

# Tag and digest move together: docker buildx imagetools inspect python:3.13-slim-trixie
ARG PYTHON_IMAGE=python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

# --- tools: what builds the wheel and lists the parts; nothing of it is shipped -----------------------
FROM ${PYTHON_IMAGE} AS tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
COPY requirements/image.txt requirements/image.txt
RUN python3 -m venv --without-pip /opt/tools \
    && python3 -m pip --python /opt/tools/bin/python install --require-hashes --only-binary :all: -r requirements/image.txt

# --- packages: the locked dependencies, and they alone, so that code changes reuse this layer ----------
FROM tools AS packages
ARG PACKAGES=run
COPY requirements/${PACKAGES}.txt requirements/packages.txt
RUN python3 -m venv --without-pip /opt/zoho-sync \
    && python3 -m pip --python /opt/zoho-sync/bin/python install --no-compile --require-hashes --only-binary :all: \
        -r requirements/packages.txt

# --- build: the service beside them; bytecode is checked by content, for the root is read-only ---------
FROM packages AS build
COPY pyproject.toml README.md ./
COPY consumer consumer
COPY schemas schemas
RUN /opt/tools/bin/python -m hatchling build -t wheel -d dist \
    && python3 -m pip --python /opt/zoho-sync/bin/python install --no-compile --no-deps --no-index dist/*.whl \
    && /opt/zoho-sync/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/zoho-sync/lib

# --- sbom: the parts of the image in CycloneDX, as one file --------------------------------------------
FROM build AS parts
RUN /opt/tools/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
    --mc-type application --output-file /sbom.cdx.json /opt/zoho-sync/bin/python

FROM scratch AS sbom
COPY --from=parts /sbom.cdx.json /

# --- sandbox: the Zoho stand-in, for trying things out; never for production ---------------------------
FROM packages AS sandbox-packages
COPY requirements/sandbox.txt requirements/sandbox.txt
RUN python3 -m pip --python /opt/zoho-sync/bin/python install --require-hashes --only-binary :all: \
    -r requirements/sandbox.txt

FROM ${PYTHON_IMAGE} AS sandbox
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=sandbox-packages /opt/zoho-sync /opt/zoho-sync
WORKDIR /opt/app
COPY sandbox sandbox
USER 10001:10001
ENTRYPOINT ["/opt/zoho-sync/bin/python", "-m", "sandbox"]
CMD ["zoho", "--port", "8090"]

# --- the service ---------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS service
ARG VERSION=1.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="zoho-sync" \
    org.opencontainers.image.description="Brings every message of a Kafka topic into Zoho CRM: lead, message record, note" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"
ENV PATH=/opt/zoho-sync/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/zoho-sync /opt/zoho-sync
WORKDIR /tmp
USER 10001:10001
EXPOSE 8080
# Kubernetes has probes of its own and ignores this; plain Docker and compose do not.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('HTTP_PORT', '8080')}/livez\", timeout=4)"]
ENTRYPOINT ["zoho-sync"]
CMD ["run"]
