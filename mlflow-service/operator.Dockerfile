# The operator's image: the cell's, and on top what speaks with Kubernetes. A node that has the one
# fetches only the difference of the other.
#
#   docker build -f mlflow-service/operator.Dockerfile --build-arg CELL=mlfleet/cell:dev .
ARG BASE=python:3.11-slim-bookworm
ARG CELL=cell

FROM ${BASE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
COPY mlflow-service/requirements-operator.lock mlflow-service/slim.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip install --target /opt/mlfleet-operator --no-deps --require-hashes \
        -r requirements-operator.lock
RUN python3 slim.py /opt/mlfleet-operator \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/mlfleet-operator

FROM ${CELL}
COPY --from=build /opt/mlfleet-operator /opt/mlfleet-operator
ENV PYTHONPATH=/opt/mlfleet-operator
CMD ["python", "-m", "mlfleet.cluster.operator"]
