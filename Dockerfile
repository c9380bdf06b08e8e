# The daemon in a container. An agent is added by FROM agentws, COPY and a variable: see
# examples/container. Another Python is chosen by --build-arg PYTHON_IMAGE=...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build

# Optional dependencies of the daemon, by the names of their extras.
ARG EXTRAS=azure,redis,uvloop

WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY agentws agentws
COPY clients/javascript/agentws.js clients/javascript/agentws.js

# A network with an index or certificates of its own passes them as secrets, which no layer keeps:
#   --secret id=pip,src=pip.conf --secret id=certificates,src=ca-certificates.crt
# Wheels only: what needs a compiler fails here instead of growing one. pip stays, for agents that
# need more packages; setuptools, which older Pythons put beside it, does not.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/agentws && \
    /opt/agentws/bin/pip install --no-cache-dir --constraint constraints.txt --upgrade pip && \
    /opt/agentws/bin/pip uninstall --yes setuptools && \
    /opt/agentws/bin/pip install --no-cache-dir --constraint constraints.txt \
        --build-constraint constraints.txt --only-binary :all: ".[${EXTRAS}]"
COPY constraints.txt deploy/healthcheck.py /opt/agentws/

FROM ${PYTHON_IMAGE}

LABEL org.opencontainers.image.title="agentws" \
      org.opencontainers.image.description="Serves an AI agent over WebSocket and HTTP" \
      org.opencontainers.image.licenses="MIT"

# Process 1 has to reap what an agent's programs leave behind, and to pass on signals.
RUN apt-get update && \
    apt-get install --yes --no-install-recommends "tini=0.19.*" && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin

COPY --from=build /opt/agentws /opt/agentws

# All that is written is the log, on stdout: the root file system may be read-only.
ENV PATH=/opt/agentws/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1

# The folder that handlers are imported from.
WORKDIR /agent

# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 8088
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python3", "-I", "/opt/agentws/healthcheck.py"]
# -s: it reaps as well where another init is process 1 (docker run --init).
ENTRYPOINT ["tini", "-s", "--", "agentws"]
CMD ["serve"]
