"""Has findings that make a run's coders useless told of while the run still trains."""

from sqlmodel import Session, col, select

from server.db.runs import record, snapshot
from server.db.session import Database
from server.db.tables import Run, RunEvent, RunState
from server.diagnosis import Finding, Severity
from server.services.diagnosis import Diagnoses

_ACTOR = "checkup"
_KIND = "health"


class Checkup:
    """Looks at every run that trains; a finding is told of once in a run, whichever server sees it first."""

    def __init__(self, database: Database, diagnoses: Diagnoses) -> None:
        self._database = database
        self._diagnoses = diagnoses

    def work(self) -> int:
        """Returns how many findings were new."""
        with self._database.read() as session:
            training = session.exec(select(Run).where(Run.state == RunState.RUNNING)).all()
            found = [(run.id, finding) for run in training for finding in self._bad(session, run)]
            told = _told(session, [run_id for run_id, _ in found])
        return sum(self._tell(run_id, finding) for run_id, finding in found if (run_id, finding.code) not in told)

    def _bad(self, session: Session, run: Run) -> list[Finding]:
        results = self._diagnoses.of(session, run)
        return [one.finding for one in results if one.finding and one.finding.severity == Severity.BAD]

    def _tell(self, run_id: str, finding: Finding) -> bool:
        with self._database.write() as session:
            snapshot(session, run_id)  # locks the row: another server may have found the same
            if (run_id, finding.code) in _told(session, [run_id]):
                return False
            record(session, run_id, actor=_ACTOR, kind=_KIND, reason_code=finding.code, detail=finding.title)
        return True


def _told(session: Session, run_ids: list[str]) -> set[tuple[str, str]]:
    """(run, finding) of these runs."""
    events = select(RunEvent.run_id, RunEvent.reason_code).where(RunEvent.kind == _KIND)
    return set(session.exec(events.where(col(RunEvent.run_id).in_(run_ids))))
