"""Train from Python, watch the run, and end it when it is good enough.

    python docs/examples/train_with_callback.py

Takes about ten seconds, most of which is compiling. VDN learns the two-step game of QMIX's paper: its safe branch
pays 7, the other one 8 if both agents choose well.
"""

import jaxshare


class GoodEnough(jaxshare.Callback):
    """Stop once all seeds have reached a return, and print the returns on the way."""

    def __init__(self, wanted):
        self.wanted = wanted

    def on_evaluation(self, training, evaluation):
        """After every evaluation: one return a seed."""
        returns = evaluation.scores["return"]
        steps = evaluation.at.env_steps
        print("steps", steps, "returns", returns)
        if returns.min() >= self.wanted:
            training.stop(f"every seed has a return of {self.wanted}")


def main():
    """Train two seeds, and print the end of their curves."""
    run = jaxshare.train(
        algo="vdn",
        env="matrix",
        game="two_step",
        seeds=2,
        total_env_steps=4000,
        num_envs=8,
        batch_size=16,
        epsilon_anneal_fraction=0.5,
        eval={"every": 400, "episodes": 8},
        progress=False,
        run_dir="runs/callback",
        callbacks=[GoodEnough(7.0)],
    )
    for seed in (0, 1):
        steps, returns = run.curve("eval/return", seed=seed)
        print(f"seed {seed}: return {returns[-1]:.1f} after {steps[-1]:.0f} steps")
    print("python docs/examples/evaluate_saved.py", run.run_dir, "plays it")


if __name__ == "__main__":
    main()
