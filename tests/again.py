"""Run the files of failed tests once more, whole and one after the other: `python -m tests.again -m "..."`.

Real clients, servers and floods on two busy cores sometimes miss a deadline. Both outcomes are printed; what
fails twice fails. Whole files, because acts of a play build on each other.
Not here: which tests a target selects (Makefile).
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
MOST_FILES = 6  # more than that is no accident


def main() -> int:
    failed: dict[str, bool] = json.loads(CACHE.read_text()) if CACHE.is_file() else {}
    files = sorted({name.partition("::")[0] for name in failed})
    print(f"== failed: {len(failed)} tests in {len(files)} files", *sorted(failed), sep="\n   ")
    if not 0 < len(files) <= MOST_FILES:
        return 1
    print("== once more, these files whole", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", *sys.argv[1:], *files]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
