"""SIT against its baselines on data sets of teams whose agents play at different levels (Tian et al. 2023, Table 1).

    python benchmarks/offline.py --runs runs/offline                two hours on two CPU cores
    python benchmarks/offline.py --runs runs/offline --only CN_3ls3l_low
    python benchmarks/offline.py                                    table and picture from the figures kept
    python benchmarks/offline.py --cost --runs runs/offline         time of SIT's stages as a share of ICQ's

For each data set: a pool of policies from the checkpoints of one run, the set that the paper's composition makes of it,
the same number of policy updates by every learner, and 128 greedy episodes with the last parameters of each seed.
Returns are shown normalised, 0 for random play and 1 for the best of the pool, beside the paper's. What --runs holds
already is not done again, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Any

import _common
import numpy as np

from jaxshare import cli, results

OUT = pathlib.Path(__file__).parent / "results" / "offline"
SEEDS = 3
EPISODES = 2000  # of a data set; paper: 10,000
KEEP = ("checkpoint.keep=1000", "checkpoint.replay=false", "seeds=2", "resume=auto", "progress=false")
TASKS: dict[str, tuple[str, ...]] = {
    "CN_3ls3l": ("env=mpe", "env.scenario=CN_3ls3l"),
    "2s3z": ("env=smax", "env.scenario=2s3z"),
}
POOLS: dict[str, tuple[str, ...]] = {  # paper: QMIX, to 2 million steps in SMAC
    "CN_3ls3l": ("algo=qmix", "num_envs=8", "total_env_steps=200000", "eval.every=20000", "checkpoint.every=5000"),
    "2s3z": ("algo=qmix", "num_envs=8", "total_env_steps=200000", "eval.every=20000", "checkpoint.every=10000"),
}
UPDATES = {"CN_3ls3l": 3000, "2s3z": 1000}  # of every learner's policy; paper: 15,000
STAGE_I = {"CN_3ls3l": 1500, "2s3z": 400}  # of SIT's ensemble; paper: 20,000
# ours: episodes of CN last 25 steps of about -6 each, and bootstrap; at so few updates all that linear mixers and the
# critics of ICQ and SIT learn is how far down -600 is. In 2s3z nothing is changed
STANDARDISED = ("CN_3ls3l",)
OWN: dict[str, tuple[str, ...]] = {
    "icq": ("algo.critic_dim=32",),  # paper: Table 11 for all critics; ICQ's own code has 256
    "sit": ("algo.hparams.reward_lr=1e-3",),  # ours: ten times the paper's for a small part of its updates
    # ours: both filters weigh by e^(A / 0.1), of advantages that are far larger in CN than in 2s3z
    "icq_beta10": ("algo.critic_dim=32", "algo.hparams.beta=10"),
    "sit_beta10": ("algo.hparams.reward_lr=1e-3", "algo.hparams.beta=10"),
    "sit_unlifted": ("algo.hparams.reward_lr=1e-3", "algo.lift_rewards=false"),  # as the paper has it; see sit.py
}
LEARNERS = ("bc", "qmix", "mabcq", "macql", "icq", "sit")
VARIANTS = ("icq_beta10", "sit_beta10", "sit_unlifted")  # where rewards are below 0
SETS = ("CN_3ls3l_low", "CN_3ls3l_medium", "2s3z_low", "2s3z_medium")
PAPER_COLUMNS = ("behaviour", *LEARNERS)
PAPER: dict[str, tuple[float, ...]] = {  # Table 1; CN low BC is printed without its minus
    "CN_3ls3l_low": (-157.7, -161.1, -231.9, -174.3, -217.2, -117.8, -92.4),
    "CN_3ls3l_medium": (-107.4, -111.0, -256.1, -107.3, -231.9, -83.0, -54.5),
    "2s3z_low": (3.2, 3.1, 2.6, 4.7, 5.7, 9.1, 12.3),
    "2s3z_medium": (7.0, 7.1, 2.3, 5.8, 7.1, 9.1, 14.8),
}
PAPER_RANGE = {"CN_3ls3l": (-174.41, -37.32), "2s3z": (0.0, 20.0)}  # Tables 4 and 5: of a random and the best policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, help="folder of pools, data sets and runs; made if missing")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="without .json and .png (default %(default)s)")
    parser.add_argument("--only", choices=SETS, action="append", help="these data sets; the others' figures are kept")
    parser.add_argument(
        "--learner", choices=(*LEARNERS, *VARIANTS), action="append", help="these learners; the others' are kept"
    )
    parser.add_argument("--cost", action="store_true", help="measure costs, and nothing else")
    parser.add_argument("settings", nargs="*", help="more settings of jaxshare.train for the learners")
    options = parser.parse_args()
    cli.run_command(lambda: collect(options))


def collect(options: argparse.Namespace) -> None:
    """Make what is missing, keep the figures, show them."""
    path = options.out.with_suffix(".json")
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"sets": {}}
    if options.runs:
        for name in options.only or SETS:
            if options.cost:
                kept.setdefault("cost", {})[name] = cost(name, options.runs)
            else:
                found = kept["sets"].setdefault(name, {"learners": {}})
                run_set(name, options, found)
            kept.setdefault("machines", {})[f"cost of {name}" if options.cost else name] = _common.machine()
            path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    show(kept)
    draw(kept["sets"], options.out.with_suffix(".png"))


def command(module: str, *arguments: str) -> None:
    """Run one of jaxshare's commands; its error ends this script."""
    subprocess.run([sys.executable, "-m", f"jaxshare.{module}", *arguments], check=True)


def parts(name: str) -> tuple[str, str]:
    """Task and quality of a data set."""
    task, _, quality = name.rpartition("_")
    return task, quality


def run_set(name: str, options: argparse.Namespace, found: dict[str, Any]) -> None:
    """One data set: what it is, and the scores of all learners on it."""
    task, _ = parts(name)
    data = make_set(name, options.runs)
    found.update(described(data))
    low, high = found["low"], found["high"]
    found["behaviour"] = (found["mean_return"] - low) / (high - low)
    for learner in options.learner or (*LEARNERS, *(VARIANTS if task in STANDARDISED else ())):
        run_dir = options.runs / f"{name}_{learner}"
        arguments = learner_arguments(name, learner, data)
        command("train", *arguments, *options.settings, f"run_dir={run_dir}")
        command("evaluate", f"run_dir={run_dir}", "episodes=128")
        evaluation = json.loads((run_dir / "evaluation.json").read_text(encoding="utf-8"))
        returns = [run["return"] for run in evaluation["runs"]]
        found["learners"][learner] = {
            "command": " ".join([*arguments[:-1], *options.settings]),  # without the place of the data set
            "returns": returns,
            "normalised": [(r - low) / (high - low) for r in returns],
            "curves": curves(run_dir, task if learner.startswith("sit") else "", low, high),
        }
        if learner.startswith("sit"):
            command("decompose", f"run_dir={run_dir}")
            shown = json.loads((run_dir / "decomposition.json").read_text())
            found["learners"][learner]["decomposition"] = {name: shown[name] for name in ("mean", "runs")}


def learner_arguments(name: str, learner: str, data: pathlib.Path) -> list[str]:
    """Of jaxshare.train; the last one is the data set."""
    task, _ = parts(name)
    updates, first = UPDATES[task], STAGE_I[task] if learner.startswith("sit") else 0
    own = (*OWN.get(learner, ()), *([f"algo.stage1_updates={first}"] if first else []))
    chosen = (
        "preset=offline/qmix" if learner == "qmix" else f"algo={learner.partition('_')[0]}"
    )  # the others' defaults are Table 11
    return [
        chosen, *TASKS[task], f"seeds={SEEDS}", f"total_updates={updates + first}", *own,
        f"eval.every={updates // 5}", "eval.episodes=64", "resume=auto", "progress=false", "parallel.devices=1",
        f"data={data}",
    ]  # fmt: skip


def make_set(name: str, folder: pathlib.Path) -> pathlib.Path:
    """The data set of that name, and the pool that it comes from."""
    task, quality = parts(name)
    pool, data = folder / f"{task}_pool", folder / f"{name}.jds"
    if not data.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command("train", *POOLS[task], *TASKS[task], *KEEP, f"run_dir={pool}")
        command(
            "collect",
            f"run_dir={pool}",
            f"out={data}",
            f"composition={quality}",
            f"episodes={EPISODES}",
            "overwrite=true",
        )  # what a killed start left
    return standardised(data) if task in STANDARDISED else data


def standardised(data: pathlib.Path) -> pathlib.Path:
    """A copy of the data set whose team rewards have mean 0 and standard deviation 1 over all steps."""
    from jaxshare.data import own

    path = data.with_name(f"{data.stem}_standardised.jds")
    if not path.exists():
        dataset = own.open(data).read()
        episodes = dataset.episodes
        valid = np.asarray(episodes.mask)[..., None] > 0
        each = np.asarray(episodes.reward)[np.broadcast_to(valid, episodes.reward.shape)]
        reward = np.where(valid, (episodes.reward - each.mean()) / each.std(), 0).astype(np.float32)
        card = {**dataset.card, "standardised": {"mean": float(each.mean()), "std": float(each.std())}}
        own.save(dataclasses.replace(dataset, episodes=episodes.replace(reward=reward), card=card), path)
    return path


def described(data: pathlib.Path) -> dict[str, Any]:
    """What its card says of a data set."""
    from jaxshare.data import own

    plain = data.with_name(data.name.replace("_standardised", ""))
    card = own.open(plain).card
    pools = card["pools"]
    return {
        "composition": card["composition"], "episodes": card["episodes"], "low": pools["low"], "high": pools["high"],
        "cuts": pools["cuts"], "mean_return": float(card["returns"]["mean"]),
    }  # fmt: skip


def curves(run_dir: pathlib.Path, task: str, low: float, high: float) -> dict[str, Any]:
    """Normalised evaluations of every seed against updates of the policy; task: of SIT, without its stage I."""
    first = STAGE_I[task] if task else 0
    return {
        seed: [
            [r["updates"] - first, (r["eval/return"] - low) / (high - low)] for r in records if r["updates"] >= first
        ]
        for seed, records in results.evaluations(results.load(run_dir)).items()
    }


# ---------------------------------------------------------------------------------------------------------------- costs


def cost(name: str, folder: pathlib.Path) -> dict[str, float]:
    """Time per update of ICQ and of SIT's stages, timed in turn, and what a whole run of the paper costs.

    A run of ICQ is 15,000 updates; SIT's first stage is 20,000 and its last one 15,000 (Tables 10 and 11). In the last
    one the paper has a policy and 32 trajectories for each agent (share_params=none), and we for each type.
    """
    import jax

    from jaxshare.run import offline
    from jaxshare.runner import start_clock

    data, timed = make_set(name, folder), {}
    steps: dict[str, tuple[str, int, tuple[str, ...]]] = {  # learner, updates made before
        "icq": ("icq", 0, ()),
        "stage I": ("sit", 0, ()),
        "stage III": ("sit", 1, ("algo.stage1_updates=1",)),
        "stage III, a policy each": ("sit", 1, ("algo.stage1_updates=1", "algo.share_params=none")),
    }
    for label, (learner, made, more) in steps.items():
        task, _ = parts(name)
        arguments = [f"algo={learner}", *TASKS[task], f"data={data}", *OWN[learner], *more, "parallel.devices=1"]
        settings, program, _ = _common.program_and_runs(arguments)
        episodes = jax.device_put(offline.load(settings, program))
        timed[label] = ready(program, episodes, start_clock(), made)
    for update in timed.values():
        update()  # compiled, and past the second stage
    seconds: dict[str, list[float]] = {label: [] for label in timed}
    for _ in range(5):
        for label, update in timed.items():
            seconds[label] += _common.seconds(update, 1)
    chunk = {label: float(np.median(found)) / COST_UPDATES for label, found in seconds.items()}
    runs = {label: (20_000 if label == "stage I" else 15_000) * found for label, found in chunk.items()}
    return {
        **{f"ms per update, {label}": 1000 * found for label, found in chunk.items()},
        **{f"{label} / ICQ, whole runs": found / runs["icq"] for label, found in runs.items() if label != "icq"},
    }


COST_UPDATES = 20


def ready(program: Any, episodes: Any, clock: Any, made: int) -> Any:
    """A function that makes COST_UPDATES updates, after `made` that are made here."""
    import jax
    import jax.numpy as jnp

    hparams = {name: jnp.float32(value) for name, value in program.algorithm.hparams.items()}
    state = jax.jit(program.init)(jnp.int32(0))
    advance = jax.jit(program.chunk_offline, static_argnums=0)
    for _ in range(made + 1 if made else 0):
        (state, _), clock = advance(1, state, hparams, (clock, episodes))
    return lambda: advance(COST_UPDATES, state, hparams, (clock, episodes))


# -------------------------------------------------------------------------------------------------------------- results


def show(kept: dict[str, Any]) -> None:
    """Normalised scores beside the paper's, and what the decomposition says of who is good."""
    header = "".join(f"{column:>18}" for column in PAPER_COLUMNS)
    print(f"normalised returns, mean ± standard deviation over seeds; below each the paper's Table 1\n{'':<18}{header}")
    for name, found in kept["sets"].items():
        cells = [f"{found['behaviour']:.2f}"]
        cells += [score(found["learners"].get(learner)) for learner in LEARNERS]
        print(f"{name:<18}" + "".join(f"{cell:>18}" for cell in cells))
        print(f"{'  paper':<18}" + "".join(f"{score:>18.2f}" for score in paper(name)))
        for variant in VARIANTS:
            if variant in found["learners"]:
                print(f"  {variant}, {' '.join(OWN[variant])}: {score(found['learners'][variant])}")
        types = found["learners"].get("sit", {}).get("decomposition", {"mean": {"types": {}}})["mean"]["types"]
        for kind, one in types.items():
            auroc, share = one["auroc_reward"], one["better"]
            print(
                f"  sit, {kind}s, better against random: AUROC {auroc['pairs']:.2f} in the same episode, "
                f"{auroc['all']:.2f} over all; {share['probability']:.0%} of what is drawn is of better ones, "
                f"{share['trajectories']:.0%} of the data"
            )
    for name, found in kept.get("cost", {}).items():
        print(f"{name}: " + ", ".join(f"{label} {value:.2f}" for label, value in found.items()))


def score(one: dict[str, Any] | None) -> str:
    """Mean and standard deviation over seeds of a learner that was run."""
    if one is None:
        return "not run"
    return f"{np.mean(one['normalised']):.2f} ± {np.std(one['normalised'], ddof=1):.2f}"


def paper(name: str) -> list[float]:
    """The paper's scores, normalised by its own random and best returns."""
    low, high = PAPER_RANGE[parts(name)[0]]
    return [(score - low) / (high - low) for score in PAPER[name]]


def draw(sets: dict[str, Any], path: pathlib.Path) -> None:
    """A panel for each data set: bars of ours with every seed as a dot, the paper's as crosses."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, max(len(sets), 1), figsize=(4 * max(len(sets), 1), 3.8), squeeze=False)
    for axis, (name, found) in zip(axes[0], sets.items(), strict=False):
        axis.axhline(found["behaviour"], color="tab:gray", ls=":", label="the data")
        shown = [learner for learner in (*LEARNERS, *VARIANTS) if learner in found["learners"]]
        for at, learner in enumerate(shown):
            scores = found["learners"][learner]["normalised"]
            axis.bar(at, np.mean(scores), color="tab:red" if learner.startswith("sit") else "tab:blue", alpha=0.6)
            axis.plot([at] * len(scores), scores, "k.", ms=5, label=None if at else "a seed")
        theirs = dict(zip(PAPER_COLUMNS, paper(name), strict=True))
        at = [i for i, learner in enumerate(shown) if learner in theirs]
        axis.plot(at, [theirs[shown[i]] for i in at], "x", color="tab:orange", label="SIT's paper")
        axis.set_xticks(range(len(shown)), shown, rotation=45, ha="right")
        axis.set_title(f"{name}\n{found['composition']}", fontsize=9)
        axis.grid(alpha=0.3, axis="y")
    axes[0, 0].set_ylabel("return: 0 random play, 1 best policy")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
