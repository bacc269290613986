"""Thousands of programmes with known answers: what is called solved and wrong, and what is not solved.

    python tests/adversary/long_run.py --items 10000

Prints a row for each family and the seeds behind each wrong item; exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
import warnings

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from adversary.closed_forms import FAMILIES
from adversary.judge import CONSTRUCTED, Outcome, judge_closed_form, judge_constructed

from conelayers import Status


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000, help="programmes in all")
    parser.add_argument("--batch", type=int, default=8, help="programmes in a batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--solver", default=None, help="a backend's name")
    parser.add_argument("--only", nargs="*", default=None, help="families' names")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    families = {f"closed form: {name}": (judge_closed_form, name) for name in FAMILIES}
    families |= {f"constructed: {name}": (judge_constructed, name) for name in CONSTRUCTED}
    if options.only:
        families = {title: run for title, run in families.items() if run[1] in options.only}
    batches = max(1, options.items // (options.batch * len(families)))
    head = ("items", "solved", "judged", "wrong", "value", "gradient", "other statuses")
    print("{:34} {:>6} {:>7} {:>7} {:>6} {:>8} {:>8}  {}".format("family", *head))
    wrong: list[str] = []
    for title, (judge, name) in families.items():
        outcomes: list[Outcome] = []
        for seed in range(options.seed, options.seed + batches):
            found = judge(name, seed, options.batch, options.solver)
            wrong += [_line(title, seed, i, o) for i, o in enumerate(found) if o.wrong]
            outcomes += found
        print(_row(title, outcomes), flush=True)
    print("\n".join(wrong))
    return 1 if wrong else 0


def _row(title: str, outcomes: list[Outcome]) -> str:
    solved = [o for o in outcomes if o.status is Status.SOLVED]
    judged = [o for o in solved if o.judged]
    value = max((o.value for o in judged), default=0.0)
    gradient = np.nanmax([o.gradient for o in judged] + [0.0])
    others = collections.Counter(o.status.name for o in outcomes if o.status is not Status.SOLVED)
    rest = ", ".join(f"{count} {name}" for name, count in others.items())
    counts = f"{len(outcomes):6d} {len(solved):7d} {len(judged):7d} {sum(o.wrong for o in outcomes):6d}"
    return f"{title:34} {counts} {value:8.0e} {gradient:8.0e}  {rest}"


def _line(title: str, seed: int, item: int, outcome: Outcome) -> str:
    regular = ", called regular" if outcome.regular else ""
    errors = f"value {outcome.value:.0e}, gradient {outcome.gradient:.0e}"
    return f"WRONG {title}, seed {seed}, item {item}: {errors}{regular}"


if __name__ == "__main__":
    sys.exit(main())
