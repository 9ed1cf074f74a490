"""Code of the MLflow models that integrations.mlflow_model writes: MLflow runs it to load them."""

from mlflow.models import set_model

from integrations.mlflow_model import TaskModel

set_model(TaskModel())
