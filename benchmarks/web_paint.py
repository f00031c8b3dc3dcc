"""A run's page with a series of a million points, in Chromium: from the request for the page to the painted line.

    CHROMIUM=/usr/bin/chromium python -m benchmarks.web_paint

The browser has the page's scripts in its cache, as on every visit but the first. The time ends with the frame after the
one in which the chart was drawn.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.tables import table
from benchmarks.web_live import browser
from benchmarks.web_series import KEY, fill
from benchmarks.web_server import percentiles, serving
from server.db.migrate import upgrade
from server.db.session import Database
from server.db.tables import Run
from server.settings import Settings

PAINT_MS = 300

PAINTED = """() => new Promise((done) => {
  const look = () => (document.querySelector("#chart-fvu canvas")
    ? requestAnimationFrame(() => done(performance.now())) : requestAnimationFrame(look));
  look();
})"""
"""Milliseconds from the start of the navigation until the chart stands on the screen."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    with table("First paint of a chart", ["points", "ms", "goal, ms"]) as rows, tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), database_url="")
        upgrade(settings)
        database = Database(settings)
        run_id = fill(settings, database, points=args.points, runs=1)[0]
        with database.write() as session:
            session.get_one(Run, run_id).latest = {KEY: 0.2}
        times = []
        with serving(settings, database) as client, browser(database, str(client.base_url), run_id) as page:
            for _ in range(args.repeats):
                page.reload(wait_until="commit")
                times.append(page.evaluate(PAINTED))
        rows.add(f"{args.points:,}", percentiles(times), PAINT_MS)
        database.engine.dispose()


if __name__ == "__main__":
    main()
