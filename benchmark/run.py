"""Run one benchmark by name, or all of them: `make bench NAME=decide`."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    return max(
        subprocess.call([sys.executable, str(HERE / f"bench_{name}.py")]) for name in names or known
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
