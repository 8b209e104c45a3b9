"""What a pool costs that has grown by 1%: gradients computed, as a share of its rows.

Two jobs on the whole service with a tiny model: one over a pool, one over the same rows in another order with 1% more.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi.testclient import TestClient
from pydantic import RedisDsn

from app.core.db.migrate import upgrade
from app.core.settings import Settings
from app.local import EmbeddedServers
from app.main import create_app
from benchmarks.row import BenchRow
from benchmarks.scaling import finished, worker_processes
from demo.functions import function_rows
from tests.integration.tiny_model import save_tiny_model

if TYPE_CHECKING:
    from typing import Any

ROWS, QUICK_ROWS = 2000, 200


def row(*, quick: bool = False) -> BenchRow:
    """`gradients/append_1pct`."""
    count = QUICK_ROWS if quick else ROWS
    rows = _rows(count + count // 100)
    with tempfile.TemporaryDirectory(prefix="spice-bench-") as name, EmbeddedServers(Path(name) / "servers") as servers:
        directory = Path(name)
        model = save_tiny_model(directory / "models" / "tiny", [f"{one['prompt']} {one['response']}" for one in rows])
        settings = Settings(
            _env_file=None,
            database_url=servers.database_url,
            redis_url=RedisDsn(servers.redis_url),
            data_dir=directory / "data",
            allowed_roots=(name,),
            torch_threads=1,
            auth="off",
        )
        upgrade(servers.database_url)
        grown = rows.copy()
        random.Random(0).shuffle(grown)  # noqa: S311 - an order, no secret
        with TestClient(create_app(settings), "http://localhost") as http, worker_processes(settings, 1):
            first, second = (_result(http, directory, model, pool) for pool in (rows[:count], grown))
    computed, reused = second["gradients"]["computed"], second["gradients"]["reused"]
    return BenchRow(
        name="gradients/append_1pct",
        value=computed / second["rows_total"],
        unit="of the rows",
        target=0.015,
        baseline=f"gradients computed after {count // 100} rows were added to {first['rows_total']} and all shuffled: "
        f"{computed}, {reused} reused; gradients took {first['seconds']['gradients']:.2f} s before and "
        f"{second['seconds'].get('gradients', 0.0):.2f} s now",
        smaller_is_better=True,
    )


def _rows(count: int) -> list[dict[str, str]]:
    """Docstrings, each row another one by the number that it begins with."""
    real = [row for row in function_rows() if row.is_clean][:count]
    return [
        {
            "prompt": f"{number}: {real[number % len(real)].prompt[:100]}",
            "response": real[number % len(real)].response[:200],
        }
        for number in range(count)
    ]


def _result(http: TestClient, directory: Path, model: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    path = directory / f"rows-{len(rows)}.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    body = {
        "dataset": {"uri": path.as_uri()},
        "model": {"uri": model.as_uri(), "max_length": 256},
        "gradients": {"rank": 4, "sketch_dim": 64},
        "selection": {"budget": {"fraction": 0.05}},
    }
    response = http.post("/jobs", json=body)
    assert response.status_code == 202, response.text
    return dict(finished(http, str(response.json()["id"]))["result"])
