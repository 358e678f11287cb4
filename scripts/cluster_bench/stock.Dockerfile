# The stock `mlflow server` to compare with, in the versions of the repository's lock:
#
#   docker build -f scripts/cluster_bench/stock.Dockerfile -t dev.local/mlfleet-stock:test .
#
# pip compiles what it installs, as in any image that is made this way.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /opt/mlflow
COPY requirements.lock /tmp/
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/mlflow/bin/python install --no-deps --require-hashes \
        -r /tmp/requirements.lock
ENV PATH=/opt/mlflow/bin:$PATH
WORKDIR /data
EXPOSE 8080
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "8080", "--allowed-hosts", "*"]
