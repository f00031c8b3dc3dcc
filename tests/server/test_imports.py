"""The web process stays small: what it must not load, how much it needs."""

import json
import subprocess
import sys

from server.settings import Settings

PROBE = """
import json, sys
import psutil
from server.app import create_app
create_app()
heavy = ("torch", "transformers", "datasets", "triton", "huggingface_hub", "celery", "numpy", "alembic")
loaded = [name for name in heavy if name in sys.modules]
print(json.dumps({"heavy": loaded, "rss_bytes": psutil.Process().memory_info().rss}))
"""


def test_the_server_loads_nothing_heavy(sqlite_settings: Settings) -> None:
    env = {"SPARSEBOARD_DATA_DIR": str(sqlite_settings.data_dir), "PATH": ""}
    out = subprocess.run([sys.executable, "-c", PROBE], env=env, check=True, capture_output=True, text=True).stdout
    found = json.loads(out)
    assert found["heavy"] == []
    assert found["rss_bytes"] < 150 << 20
