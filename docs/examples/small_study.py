"""A small study whose arms are computed in Python: written as YAML, run by the command, read as JSON.

    python docs/examples/small_study.py

Takes about a minute: every arm is a process that compiles its own program. Started again, it runs only what is
missing. docs/study.md tells the language.
"""

import json
import pathlib
import subprocess
import sys

import yaml

FOLDER = pathlib.Path("runs/small_study")
RATES = (1e-5, 5e-4)  # the second is the default


def study():
    """VDN on the two-step game with two learning rates, two seeds each, and one check."""
    arms = {f"lr {rate:g}": ["algo=vdn", f"algo.hparams.lr={rate:g}"] for rate in RATES}
    slow, usual = arms
    sizes = ["total_env_steps=400", "eval.every=100", "num_envs=8", "batch_size=16"]
    return {
        "title": "Two learning rates",
        "arms": arms,
        "tasks": {"two_step": ["env=matrix", "env.game=two_step"]},
        "checks": [{"says": f"return, {usual} - {slow}", "compare": "greater", "arms": [usual, slow]}],
        "small": {"seeds": 2, "settings": sizes},
    }


def main():
    """Write the file, run it, and print what came of it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "rates.yaml"
    path.write_text(yaml.safe_dump({"studies": {"rates": study()}}, sort_keys=False))
    command = [sys.executable, "-m", "jaxshare.study", "run", str(path), "--runs", str(FOLDER)]
    subprocess.run(command, check=True)

    results = json.loads((FOLDER / "results.json").read_text())
    result = results["claims"]["rates"]["small"]
    for arm, cell in result["cells"]["two_step"].items():
        print(f"{arm}: returns of the seeds {cell['scores']}")
    print(f"the check is {result['verdict']}; the page is {FOLDER / 'results.md'}")


if __name__ == "__main__":
    main()
