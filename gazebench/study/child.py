"""One run of a study, in a process of its own: ``python -m gazebench.study.child ANSWER RUNS BOARDS ARGUMENTS``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gazebench.core.errors import DataError
from gazebench.core.files import write_atomically
from gazebench.core.plugins import PluginError
from gazebench.engine.config import resolve
from gazebench.engine.run import Places, RunningError, bench
from gazebench.nn.backbones import WeightsError
from gazebench.report.run import show


def main(arguments: Sequence[str]) -> int:
    """Runs ``gazebench bench ARGUMENTS`` and writes the run's folder into the file ANSWER."""
    answer, runs, boards = map(Path, arguments[:3])
    try:
        config = resolve(arguments[3:])
        outcome = bench(config, Places(runs, boards))
    except (DataError, PluginError, RunningError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if outcome.record:  # not a further rank of a distributed run
        write_atomically(answer, json.dumps({"folder": str(outcome.folder.resolve())}))
        show(outcome, config)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
