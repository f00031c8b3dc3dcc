"""Carries out the checks, one after the other, and prints what each has found."""

from collections.abc import Callable, Iterator

from server.doctor import machine, services, training
from server.doctor.finding import Finding, fail
from server.settings import Settings

Check = Callable[[Settings], Finding]

CHECKS: dict[str, Check] = {
    "disk": services.disk,
    "database": services.database,
    "migrations": services.migrations,
    "broker": services.broker,
    "worker": services.worker,
    "Hub token": services.hub_token,
    "devices": machine.devices,
    "collectives": machine.collectives,
}
TRAINING: dict[str, Check] = {"training": training.training}


def doctor(settings: Settings, *, with_training: bool) -> int:
    """Print a line per check. Returns 1 when one of them fails, else 0."""
    has_failed = False
    for name, finding in _findings(settings, CHECKS | (TRAINING if with_training else {})):
        print(f"{finding.verdict:5} {name:12} {finding.sentence}", flush=True)
        if finding.advice:
            print(f"{'':18} -> {finding.advice}", flush=True)
        has_failed = has_failed or finding.verdict == "fail"
    return 1 if has_failed else 0


def _findings(settings: Settings, checks: dict[str, Check]) -> Iterator[tuple[str, Finding]]:
    for name, check in checks.items():
        try:
            yield name, check(settings)
        except Exception as error:  # noqa: BLE001 - the boundary of a check: the others are still worth knowing
            yield name, fail(f"the check itself broke: {type(error).__name__}: {error}", "please report this")
