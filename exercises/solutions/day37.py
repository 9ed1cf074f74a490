"""Solutions of day 37."""

SECRETS = ("PASSWORD", "TOKEN", "SECRET")


def rebuilt_steps(steps: list[str], copied: dict[int, set[str]], changed: set[str]) -> list[int]:
    for index in range(len(steps)):
        if copied.get(index, set()) & changed:
            return list(range(index, len(steps)))
    return []


def find_problems(dockerfile: str) -> list[str]:
    found: set[str] = set()
    stages: set[str] = set()
    user = "root"
    for line in dockerfile.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        instruction = words[0].upper()
        if instruction == "FROM":
            user = "root"
            image = next(word for word in words[1:] if not word.startswith("--"))
            _, _, tag = image.rpartition("/")[2].partition(":")
            if image not in stages and "@" not in image and tag in ("", "latest"):
                found.add("unpinned")
            if len(words) > 3 and words[-2].upper() == "AS":
                stages.add(words[-1])
        elif instruction == "USER":
            user = words[1].partition(":")[0]
        elif instruction in ("ENV", "ARG") and any(word in line.upper() for word in SECRETS):
            found.add("secret")
    if user in ("root", "0"):
        found.add("root")
    return [problem for problem in ("unpinned", "root", "secret") if problem in found]


def health(results: list[bool], retries: int, start_probes: int) -> list[str]:
    states = []
    state, failures = "starting", 0
    for index, success in enumerate(results):
        if success:
            state, failures = "healthy", 0
        elif state != "starting" or index >= start_probes:
            failures += 1
            if failures >= retries:
                state = "unhealthy"
        states.append(state)
    return states
