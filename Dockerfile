# Two images of one platform: `services` runs everything but models and has no engine; `worker` runs replicas and the
# pools that start them, with vLLM and Ray. `make images` builds both; images/README.md says how, and what else is here.
#
# Kept true: everything is pinned (the base by digest, packages by the hashes of requirements/*.lock); both images run as
# a user without rights on a read-only root, and write to /var/lib/modelplane, /var/cache/modelplane and /tmp alone; a
# change of the project's code changes one small layer.

# Any base with Python 3.11, its venv module and glibc will do: `--build-arg BASE=`.
ARG BASE=docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS base
# What the engine loads of the system besides the C library, and the gateway's allocator, unless the base has them.
RUN { ldconfig -p | grep -q libnuma.so.1 && ldconfig -p | grep -q libjemalloc.so.2; } \
 || { apt-get update -qq && apt-get install -qq -y --no-install-recommends libnuma1 libjemalloc2 \
 && rm -rf /var/lib/apt/lists/*; }

# The packages of the services; xds-protos carries an older copy of opentelemetry-proto's modules, so that the right ones
# go over it. The secret `certificates` is optional: authorities to trust while downloading.
FROM base AS packages
WORKDIR /build
COPY requirements/bootstrap.lock requirements/platform.lock images/fetch.sh ./
RUN --mount=type=secret,id=certificates \
    python3.11 -m venv tools \
 && ./fetch.sh tools/bin/pip install --quiet --require-hashes --no-deps -r bootstrap.lock \
 && tools/bin/uv venv --quiet --no-project --python python3.11 /opt/modelplane \
 && ./fetch.sh tools/bin/uv pip install --quiet --python /opt/modelplane --no-deps --require-hashes -r platform.lock \
 && ./fetch.sh tools/bin/uv pip install --quiet --python /opt/modelplane --no-deps --require-hashes \
      --reinstall-package opentelemetry-proto -r platform.lock \
 && echo /opt/project > /opt/modelplane/lib/python3.11/site-packages/project.pth \
 && /opt/modelplane/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/modelplane/lib

FROM packages AS contents-services
COPY images/sbom.py ./
RUN /opt/modelplane/bin/python sbom.py platform.lock > sbom.json

# The project itself, the same in both images.
FROM packages AS project
COPY requirements/engine.lock ./
RUN --mount=type=secret,id=certificates \
    sed -n '/^setuptools==/,/[^\\]$/p' platform.lock engine.lock > setuptools.lock \
 && ./fetch.sh tools/bin/uv pip install --quiet --python /opt/modelplane --no-deps --require-hashes -r setuptools.lock
COPY pyproject.toml README.md LICENSE ./source/
COPY services ./source/services
COPY operators ./source/operators
COPY protos/modelplane ./source/protos/modelplane
RUN tools/bin/uv pip install --quiet --python /opt/modelplane --no-deps --no-build-isolation --no-cache \
      --target /opt/project ./source \
 && /opt/modelplane/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/project

FROM base AS runtime
RUN echo 'modelplane:x:65532:65532:Modelplane:/var/lib/modelplane:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'modelplane:x:65532:' >> /etc/group \
 && install -d -o 65532 -g 65532 /var/lib/modelplane /var/cache/modelplane
ENV PATH=/opt/project/bin:/opt/modelplane/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/modelplane \
    XDG_CACHE_HOME=/var/cache/modelplane \
    MODELPLANE_HOME=/var/lib/modelplane \
    MODELPLANE_CACHE=/var/cache/modelplane
WORKDIR /var/lib/modelplane
USER 65532:65532
ENTRYPOINT ["modelplane"]
COPY --from=packages /opt/modelplane /opt/modelplane

FROM runtime AS services
COPY --from=contents-services /build/sbom.json /usr/share/doc/modelplane/sbom.json
COPY --from=project /opt/project /opt/project
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="modelplane" \
      org.opencontainers.image.description="The services of Modelplane, without an engine" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# The engine is installed here and not copied: gigabytes are written once.
FROM runtime AS engine
USER root
COPY requirements/platform.lock requirements/engine.lock /usr/share/doc/modelplane/
# A package that is written for newer Pythons too has a file that this one cannot compile.
RUN --mount=type=secret,id=certificates --mount=type=bind,from=packages,source=/build,target=/build \
    /build/fetch.sh /build/tools/bin/uv pip install --quiet --python /opt/modelplane --no-deps --require-hashes \
      -r /usr/share/doc/modelplane/engine.lock \
 && { /opt/modelplane/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/modelplane/lib || true; }
USER 65532:65532

FROM engine AS contents-worker
USER root
WORKDIR /build
COPY images/sbom.py ./
RUN cd /usr/share/doc/modelplane && /opt/modelplane/bin/python /build/sbom.py platform.lock engine.lock > /build/sbom.json

FROM engine AS worker
COPY --from=contents-worker /build/sbom.json /usr/share/doc/modelplane/sbom.json
COPY --from=project /opt/project /opt/project
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="modelplane-worker" \
      org.opencontainers.image.description="Replicas of Modelplane's models, with vLLM and Ray" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
