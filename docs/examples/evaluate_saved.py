"""Evaluate a run that is on the disk, then play one episode with it by hand.

    python docs/examples/evaluate_saved.py runs/callback

Takes a few seconds. Any run directory of jaxshare's own environments in JAX will do.
"""

import dataclasses
import sys

import jax

import jaxshare


def main(run_dir):
    """Print the scores of every seed, and one episode of the first."""
    run = jaxshare.load(run_dir)
    print(f"{run.settings.algo_name} on {run.settings.env_name}, {len(run.labels)} runs")

    # many episodes, compiled
    result = run.evaluate(episodes=32)
    for scores in result["runs"]:
        print(f"seed {scores['seed']}: return {scores['return']:.2f} over {result['episodes']} episodes")

    # one episode, step by step
    policy = run.policy()
    env = jaxshare.make_env(run.settings.env_name, **dataclasses.asdict(run.settings.env))
    carry = policy.initial_carry()
    key = jax.random.key(0)
    state, timestep = env.reset(key)
    total = 0.0
    for step in range(env.spec.episode_limit):
        action, carry = policy.act(timestep, carry, jax.random.fold_in(key, 2 * step))
        state, timestep = env.step(state, action, jax.random.fold_in(key, 2 * step + 1))
        total += float(timestep.reward[0])
        print(f"step {step}: actions {action.tolist()}, reward {timestep.reward[0]:.1f}")
        if timestep.terminated or timestep.truncated:
            break
    print(f"this episode's return {total:.1f}")


if __name__ == "__main__":
    main(sys.argv[1])
