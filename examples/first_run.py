"""A first run on a tenant: the stock MLflow client, nothing of mlfleet.

    export MLFLOW_TRACKING_URI=http://127.0.0.1:8080/demo MLFLOW_TRACKING_TOKEN=...
    .venv/bin/python examples/first_run.py

Trains a linear classifier of handwritten digits for 1,000 steps and records everything that a
real run has: parameters, a metric at each step, a figure, a file, and a registered model.
"""

import os
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import mlflow
import numpy as np
import sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import ConfusionMatrixDisplay, classification_report, log_loss
from sklearn.model_selection import train_test_split

STEPS = 1_000
BATCH = 64
PARAMETERS = {"loss": "log_loss", "learning_rate": "constant", "eta0": 0.01, "random_state": 0}


def train() -> None:
    """Train, record each step, and register the model."""
    digits = load_digits()
    x, x_test, y, y_test = train_test_split(
        digits.data / 16.0, digits.target, test_size=0.25, random_state=0
    )
    model = SGDClassifier(**PARAMETERS)
    mlflow.log_params({**PARAMETERS, "steps": STEPS, "batch": BATCH})
    order = np.random.default_rng(0)
    for step in range(STEPS):
        batch = order.integers(0, len(x), BATCH)
        model.partial_fit(x[batch], y[batch], classes=np.arange(10))
        mlflow.log_metric("test_loss", log_loss(y_test, model.predict_proba(x_test)), step=step)

    predicted = model.predict(x_test)
    mlflow.log_metric("test_accuracy", float((predicted == y_test).mean()))
    figure, axes = plt.subplots()
    ConfusionMatrixDisplay.from_predictions(y_test, predicted, ax=axes)
    mlflow.log_figure(figure, "confusion.png")
    mlflow.log_text(classification_report(y_test, predicted), "report.txt")
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(x_test, predicted),
        input_example=x_test[:1],
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
        registered_model_name="digits",
    )


def main() -> None:
    """Record one run and say where to look at it."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        sys.exit(
            "first set MLFLOW_TRACKING_URI and MLFLOW_TRACKING_TOKEN as `make up` printed them"
        )
    experiment = mlflow.set_experiment("first-run")
    with mlflow.start_run() as run:
        train()
    print(f"run {run.info.run_id}: 1,000 steps, a figure, a report, and version of model digits")
    print(f"look at it: {uri}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}")


if __name__ == "__main__":
    main()
