"""Day 37: Docker: the layer cache, mistakes in a Dockerfile, health checks."""


def rebuilt_steps(steps: list[str], copied: dict[int, set[str]], changed: set[str]) -> list[int]:
    """Return the steps of an image that a build executes again.

    The cache of a step is used if the step before it was taken from the cache and, for a COPY, no
    file that it copies has changed. Show why dependencies are copied and installed before the code.

    Args:
        steps: Instructions, such as "COPY . /app"; all were built before.
        copied: Index of each COPY step to the files that it copies.
        changed: Files that changed since then.

    Returns:
        Indices of the executed steps, ascending.

    Source: Docker documentation, "Build cache invalidation".
    """
    raise NotImplementedError


def find_problems(dockerfile: str) -> list[str]:
    """Return the problems of a Dockerfile, in this order, each at most once.

    - "unpinned": a FROM whose image has no tag and no digest, or the tag latest. The name of an
      earlier stage (FROM … AS name) is no image. A port in the registry's name is no tag.
    - "root": the last stage has no USER, or its last USER is root or 0.
    - "secret": an ENV or ARG instruction whose line contains PASSWORD, TOKEN or SECRET, in any
    case.

    Args:
        dockerfile: Instructions, one a line; lines that begin with # and empty ones do not count.
    """
    raise NotImplementedError


def health(results: list[bool], retries: int, start_probes: int) -> list[str]:
    """Return the state of a container after each health check.

    The state is "starting" until the first success or until the start period is over. A success
    makes it "healthy". Failures during the start period (the first `start_probes` checks, as long
    as none succeeded) do not count; `retries` counted failures in a row make it "unhealthy", fewer
    leave the state as it is.

    Args:
        results: Whether each check succeeded.
        retries: Failures in a row that make a container unhealthy.
        start_probes: Checks of the start period.

    Source: Docker documentation, "HEALTHCHECK".
    """
    raise NotImplementedError
